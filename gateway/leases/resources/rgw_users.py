"""The RADOS Gateway's own users, by its administrators' API: one for each client, to take roles on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from gateway.leases.resources.driver import ResourceUnavailableError

PREFIX = "lease-"
SECONDS = (3.0, 10.0)


@dataclass(frozen=True, slots=True)
class Account:
    """Keys, and the user whose they are."""

    access_key: str
    secret_key: str = field(repr=False)
    name: str = ""


class Users:
    """Finds and makes the users that roles trust. They own nothing and may do nothing else."""

    def __init__(self, endpoint: str, region: str, account: Account, verify: str | None) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._region = region
        self._credentials = Credentials(account.access_key, account.secret_key)
        self._http = URLLib3Session(verify=verify or True, timeout=SECONDS)

    def of(self, client: str) -> Account:
        """Return a client's user, made at its first lease.

        Raises
        ------
        ResourceUnavailableError
            The store does not have it and does not make it.
        """
        name = PREFIX + client
        status, found = self._ask("GET", {"uid": name})
        if status == HTTPStatus.NOT_FOUND:
            wanted = {"uid": name, "display-name": name, "max-buckets": "-1"}
            status, found = self._ask("PUT", wanted)
            if status == HTTPStatus.CONFLICT:  # another process was faster
                status, found = self._ask("GET", {"uid": name})
        keys = found.get("keys") if status == HTTPStatus.OK else None
        if not keys:
            raise ResourceUnavailableError(f"user {status}")
        return Account(keys[0]["access_key"], keys[0]["secret_key"], name)

    def _ask(self, method: str, values: dict[str, str]) -> tuple[int, dict[str, Any]]:
        url = f"{self._endpoint}/admin/user?{urlencode(values | {'format': 'json'})}"
        request = AWSRequest(method=method, url=url, data=b"")
        S3SigV4Auth(self._credentials, "s3", self._region).add_auth(request)
        answer = self._http.send(request.prepare())
        body = json.loads(answer.content) if answer.content else {}
        return answer.status_code, body if isinstance(body, dict) else {}


def code_of(error: Exception) -> str:
    """Return the store's own word for a failure."""
    if isinstance(error, ClientError):
        # Where the answer is not in the form of the service that was asked, it stands outside.
        found: dict[str, Any] = {**error.response, **error.response.get("Error", {})}
        return str(found.get("Code", ""))[:100]
    return ""
