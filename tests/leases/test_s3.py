"""Leases of a real Ceph: one role for each, which only the client's own user may take on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import SecretStr

from deploy.local import ceph
from deploy.local.ceph import ObjectStore
from gateway.leases.resources.driver import Connection, Purpose, ResourceUnavailableError
from gateway.leases.resources.rgw_users import PREFIX, code_of
from gateway.leases.resources.s3 import PATH, S3Roles
from gateway.settings import Leases
from tests.leases.asking import purpose
from tests.parts import free_port

pytestmark = pytest.mark.s3
BUCKET = "clients"


def settings_of(store: ObjectStore, **changed: Any) -> Leases:
    account, secret = store.lessor()
    values: dict[str, Any] = {
        "s3_bucket": BUCKET,
        "s3_endpoint": store.endpoint,
        "s3_region": ceph.REGION,
        "s3_access_key_id": account,
        "s3_secret_access_key": SecretStr(secret),
    }
    return Leases(**(values | changed))


@pytest.fixture(scope="module")
def store(object_store: ObjectStore) -> ObjectStore:
    object_store.create_bucket(BUCKET)
    owner = speaker(object_store, "s3", object_store.access_key_id, object_store.secret_access_key)
    for client in ("acme", "globex"):
        owner.put_object(Bucket=BUCKET, Key=f"{client}/old.csv", Body=client.encode())
    return object_store


@pytest.fixture
def roles(store: ObjectStore) -> S3Roles:
    return S3Roles(settings_of(store))


@pytest.fixture
def acme() -> Purpose:
    return purpose("acme")


@pytest.fixture
def lease(roles: S3Roles, acme: Purpose) -> Iterator[Connection]:
    yield roles.issue(acme, 900)
    roles.revoke(roles.handle(acme))


def speaker(store: ObjectStore, service: str, key: str, secret: str, token: str = "") -> Any:
    return boto3.client(
        service,
        endpoint_url=store.endpoint,
        region_name=ceph.REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def as_task(store: ObjectStore, found: Connection, service: str = "s3") -> Any:
    token = found.extra["aws_session_token"]
    return speaker(store, service, str(found.login), str(found.password), token)


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return code_of(caught.value)


def read(speaking: Any, key: str) -> bytes:
    found: bytes = speaking.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def test_a_lease_reads_and_writes_below_its_clients_prefix_and_nowhere_else(
    store: ObjectStore, roles: S3Roles, lease: Connection
) -> None:
    other = purpose("globex")
    theirs = as_task(store, roles.issue(other, 900))
    ours = as_task(store, lease)
    assert read(ours, "acme/old.csv") == b"acme"
    assert read(theirs, "globex/old.csv") == b"globex"
    ours.put_object(Bucket=BUCKET, Key="acme/new.csv", Body=b"1")
    listed = ours.list_objects_v2(Bucket=BUCKET, Prefix="acme/")["Contents"]
    assert [each["Key"] for each in listed] == ["acme/new.csv", "acme/old.csv"]
    foreign = {"Bucket": BUCKET, "Key": "globex/old.csv"}
    assert refused(ours.get_object, **foreign) == "AccessDenied"
    assert refused(ours.put_object, **foreign, Body=b"x") == "AccessDenied"
    assert refused(ours.delete_object, **foreign) == "AccessDenied"
    assert refused(ours.list_objects_v2, Bucket=BUCKET, Prefix="globex/") == "AccessDenied"
    assert refused(ours.list_objects_v2, Bucket=BUCKET) == "AccessDenied"
    source = f"{BUCKET}/globex/old.csv"
    copying = {"Bucket": BUCKET, "Key": "acme/stolen.csv", "CopySource": source}
    assert refused(ours.copy_object, **copying) == "AccessDenied"
    ours.delete_object(Bucket=BUCKET, Key="acme/new.csv")
    roles.revoke(roles.handle(other))


def test_a_lease_takes_on_no_other_clients_role_though_one_broker_for_all_would_let_it(
    store: ObjectStore, roles: S3Roles, lease: Connection
) -> None:
    other = purpose("globex")
    roles.issue(other, 900)
    sts = as_task(store, lease, "sts")
    role = roles.handle(other)["role"]
    wanted = {"RoleArn": f"arn:aws:iam:::role{PATH}{role}", "RoleSessionName": "escalation"}
    assert refused(sts.assume_role, **wanted) == "AccessDenied"

    # The control: were the other's role to trust the user that took ours on, this would work.
    account, secret = store.lessor()
    iam = speaker(store, "iam", account, secret)
    principal = {"AWS": [f"arn:aws:iam:::user/{PREFIX}acme"]}
    statement = {"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole"]}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.update_assume_role_policy(
        RoleName=role, PolicyDocument=json.dumps(document, separators=(",", ":"))
    )
    keys = sts.assume_role(**wanted)["Credentials"]
    stolen = speaker(
        store, "s3", keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
    )
    assert read(stolen, "globex/old.csv") == b"globex"
    roles.revoke(roles.handle(other))


def test_a_lease_administers_nothing(
    store: ObjectStore, roles: S3Roles, lease: Connection, acme: Purpose
) -> None:
    iam = as_task(store, lease, "iam")
    longer = {"RoleName": roles.handle(acme)["role"], "PolicyName": "lease", "PolicyDocument": "{}"}
    assert refused(iam.put_role_policy, **longer) in {"AccessDenied", "MethodNotAllowed"}
    made = {"RoleName": "mine", "AssumeRolePolicyDocument": "{}"}
    assert refused(iam.create_role, **made) in {"AccessDenied", "MethodNotAllowed"}
    roles.renew(roles.handle(acme), 900)


def test_a_lease_reads_nothing_after_its_time_until_it_is_renewed(
    store: ObjectStore, roles: S3Roles
) -> None:
    short = purpose("acme")
    task = as_task(store, roles.issue(short, 2))
    assert read(task, "acme/old.csv") == b"acme"
    time.sleep(2.5)
    assert refused(task.get_object, Bucket=BUCKET, Key="acme/old.csv") == "AccessDenied"
    roles.renew(roles.handle(short), 60)
    assert read(task, "acme/old.csv") == b"acme"
    roles.revoke(roles.handle(short))


def test_a_revoked_lease_is_dead_at_the_next_request_and_its_presigned_urls_too(
    store: ObjectStore, roles: S3Roles, lease: Connection, acme: Purpose
) -> None:
    import httpx

    task = as_task(store, lease)
    where = {"Bucket": BUCKET, "Key": "acme/old.csv"}
    url = task.generate_presigned_url("get_object", Params=where, ExpiresIn=600)
    assert httpx.get(url).content == b"acme"
    assert acme.lease in roles.held()
    for _ in range(2):
        roles.revoke(roles.handle(acme))
    assert refused(task.get_object, **where) in {"AccessDenied", "InvalidAccessKeyId"}
    assert httpx.get(url).status_code == 403
    assert acme.lease not in roles.held()
    with pytest.raises(ResourceUnavailableError):
        roles.renew(roles.handle(acme), 60)


def test_a_store_that_is_away_is_unavailable_soon(store: ObjectStore) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    away = S3Roles(settings_of(store, s3_endpoint=nowhere))
    began = time.monotonic()
    with pytest.raises(ResourceUnavailableError):
        away.issue(purpose("acme"), 900)
    assert time.monotonic() - began < 6
