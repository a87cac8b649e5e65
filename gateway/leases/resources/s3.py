"""S3 on Ceph's RADOS Gateway: a role for each lease, which only its client's own user may take on.

If one user of ours took every role on, each lease could take on every other's (Ceph 16; a test keeps
it in sight). So each client has a user, whose keys nobody but this module reads, when it needs them;
a role's trust names that user alone. The role's policy itself ends with the lease's time.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from gateway import settings
from gateway.leases.resources.driver import Connection, Gate, Purpose
from gateway.leases.resources.rgw_users import Account, Users, code_of

POLICY = "lease"
PATH = "/leases/"
# What the store takes; the role's own policy ends the lease earlier.
SHORTEST_SECONDS, LONGEST_SECONDS = 900, 43_200
SHORTEST_ROLE_SECONDS = 3600
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
CONNECTIONS = 8
GONE = ("NoSuchEntity", "NoSuchKey")


class S3Roles:
    """Leases on one bucket, in which each client has the prefix of its name.

    Attributes
    ----------
    life_seconds
        How long the keys could live at most: as long as any lease may be renewed.
    """

    name = "s3"

    def __init__(self, config: settings.Leases) -> None:
        secret = config.s3_secret_access_key
        account = Account(
            config.s3_access_key_id or "", secret.get_secret_value() if secret else ""
        )
        self._bucket = config.s3_bucket or ""
        self._endpoint = config.s3_endpoint or ""
        self._region = config.s3_region
        self._verify = None if config.s3_ca_path is None else str(config.s3_ca_path)
        self.life_seconds = min(max(config.max_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
        self._users = Users(self._endpoint, self._region, account, self._verify)
        self._iam = self._speaker("iam", account)
        self._gate = Gate(self.name, code_of)

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return the role, and whose it is: its policy is written anew to prolong it."""
        return {"role": _role(purpose.lease), "client": purpose.client}

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Make a role for this client alone, and take it on once."""
        role = _role(purpose.lease)
        with self._gate():
            user = self._users.of(purpose.client)
            self._iam.create_role(
                RoleName=role,
                Path=PATH,
                AssumeRolePolicyDocument=_text(_trust(user.name)),
                MaxSessionDuration=max(self.life_seconds, SHORTEST_ROLE_SECONDS),
            )
            self._allow(role, purpose.client, seconds)
            taken = self._speaker("sts", user).assume_role(
                RoleArn=f"arn:aws:iam:::role{PATH}{role}",
                RoleSessionName=role,
                DurationSeconds=self.life_seconds,
            )
        return self._connection(purpose.client, taken["Credentials"])

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Move the end of the role's policy; the keys stay as they are."""
        with self._gate():
            self._allow(handle["role"], handle["client"], seconds)

    def revoke(self, handle: dict[str, Any]) -> None:
        """Remove the role: its keys are dead at the next request."""
        with self._gate():
            for end in (self._forbid, self._remove):
                try:
                    end(handle["role"])
                except ClientError as error:
                    if code_of(error) not in GONE:
                        raise

    def held(self) -> list[str]:
        """Return the ids of the leases that have a role."""
        with self._gate():
            try:
                found = self._iam.list_roles(PathPrefix=PATH)["Roles"]
            except ClientError as error:
                if code_of(error) not in GONE:
                    raise
                found = []
        return [each["RoleName"].replace("-", "_", 1) for each in found]

    def _allow(self, role: str, client: str, seconds: float) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        document = _text(_policy(self._bucket, client, until))
        self._iam.put_role_policy(RoleName=role, PolicyName=POLICY, PolicyDocument=document)

    def _forbid(self, role: str) -> None:
        self._iam.delete_role_policy(RoleName=role, PolicyName=POLICY)

    def _remove(self, role: str) -> None:
        self._iam.delete_role(RoleName=role)

    def _connection(self, client: str, keys: dict[str, Any]) -> Connection:
        return Connection(
            "aws",
            login=keys["AccessKeyId"],
            password=keys["SecretAccessKey"],
            extra={
                "aws_session_token": keys["SessionToken"],
                "endpoint_url": self._endpoint,
                "region_name": self._region,
                "bucket": self._bucket,
                "prefix": f"{client}/",
            },
        )

    def _speaker(self, service: str, account: Account) -> Any:
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
        )
        return boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name=self._region,
            aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key,
            verify=self._verify,
            config=config,
        )


def _role(lease: str) -> str:
    # Ceph 16 takes no underscore in the names of roles.
    return lease.replace("_", "-", 1)


def _trust(user: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
                "Action": ["sts:AssumeRole"],
            }
        ],
    }


def _policy(bucket: str, client: str, until: datetime) -> dict[str, Any]:
    """Return what a client's tasks may do until then: everything below its prefix, nothing else."""
    in_time = {"DateLessThan": {"aws:CurrentTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    objects += ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    below = {"StringLike": {"s3:prefix": f"{client}/*"}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": objects,
                "Resource": [f"arn:aws:s3:::{bucket}/{client}/*"],
                "Condition": in_time,
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
                "Condition": in_time | below,
            },
        ],
    }


def _text(document: dict[str, Any]) -> str:
    # Ceph 16 refuses spaces.
    return json.dumps(document, separators=(",", ":"))
