"""The gateway's public contract, one method for each call.

Example::

    with GatewayClient("https://gateway.example", "svc-acme", password) as gateway:
        batch = gateway.create_batch("flights", "2013-01")
        file = files.inspect(Path("flights.csv"))
        gateway.put_file(batch.id, file)
        sealed = gateway.seal(batch.id, [file])
        print(gateway.get_job(sealed.job).state)
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import httpx

from gateway.sdk import files, problems, receipt, records
from gateway.sdk.files import LocalFile, OnSent
from gateway.sdk.login import Account, Kind, Login
from gateway.sdk.problems import ReceiptError
from gateway.sdk.receipt import Receipt
from gateway.sdk.transport import Exchange, RetryPolicy, Transport, v1


class GatewayClient:
    """A logged-in connection to one gateway; safe to share between threads.

    Every method repeats what may pass (no answer, 429, 503) within the retry policy, asks for
    a new token once when one is refused, and raises
    :class:`~gateway.sdk.problems.GatewayProblem` for the rest.

    Parameters
    ----------
    url
        Base URL of the gateway: https, or http on this machine (elsewhere: ``allow_http``).
    user, password
        The account. The password is used for ``POST /v1/token`` only.
    ca
        PEM file of the authorities that may vouch for the gateway; default: the system's.
    kind
        ``service`` for a machine's account, ``person`` for a person's.
    client
        Which client to act for, when the account belongs to several.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        ca: Path | None = None,
        *,
        kind: Kind = "service",
        client: str = "",
        policy: RetryPolicy | None = None,
        allow_http: bool = False,
    ) -> None:
        self.transport = Transport(url, ca=ca, policy=policy, allow_http=allow_http)
        self._login = Login(self.transport, Account(user, password, kind, client))

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the connections back."""
        self.transport.close()

    def capabilities(self) -> records.Capabilities:
        """Return what this gateway can do."""
        return records.capabilities(self._json("GET", "v1"))

    def create_batch(
        self,
        project: str,
        reference: str,
        *,
        mode: str = "load",
        period: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        supersedes: str = "",
        idempotency_key: str = "",
    ) -> records.Batch:
        """Open a delivery.

        Raises
        ------
        GatewayProblem
            ``batch-exists``: the reference is taken; the problem's ``location`` names by whom.
        """
        optional = {"period": period, "metadata": metadata, "supersedes": supersedes}
        body = {"project": project, "reference": reference, "mode": mode}
        body |= {key: value for key, value in optional.items() if value}  # type: ignore[misc]
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return records.batch(self._json("POST", "v1/batches", json=body, headers=headers))

    def get_batch(self, batch_id: str) -> records.Batch:
        """Return a batch with its files and jobs."""
        return records.batch(self._json("GET", v1("batches", batch_id)))

    def iter_batches(
        self, project: str = "", reference: str = "", state: str = ""
    ) -> Iterator[records.Batch]:
        """Yield the caller's batches, page after page."""
        wanted = {"project": project, "reference": reference, "state": state}
        params = {key: value for key, value in wanted.items() if value}
        while True:
            page = records.page(self._json("GET", "v1/batches", params=params))
            yield from page.items
            if not page.next:
                return
            params["cursor"] = page.next

    def put_file(
        self, batch_id: str, file: LocalFile, on_sent: OnSent | None = None
    ) -> records.StoredFile:
        """Send one file, streamed from disk; sending the same bytes again is harmless.

        Raises
        ------
        FileChangedError
            The file is not what it was when it was inspected.
        GatewayProblem
            ``file-exists``: the batch holds other bytes under this name.
        """
        files.check_unchanged(file)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.size_bytes),
            "Repr-Digest": file.repr_digest,
        }
        exchange = Exchange(
            "PUT",
            v1("batches", batch_id, "files", file.name),
            headers=headers,
            body=lambda: files.read_chunks(file, on_sent),
        )
        response = self._call(exchange)
        is_new = response.status_code == httpx.codes.CREATED
        stored = records.stored_file(records.json_object(response), file.name, is_new=is_new)
        if stored.sha256 != file.sha256:
            raise records.unexpected(f"{file.name} was stored with another digest")
        return stored

    def declare(self, batch_id: str, wanted: Sequence[LocalFile]) -> frozenset[str]:
        """Return the names of those of up to 1000 files that a batch has; nothing is reserved."""
        listed = [_listed(file) for file in wanted]
        body = self._json("POST", v1("batches", batch_id, "files"), json={"files": listed})
        return records.present(body)

    def delete_file(self, batch_id: str, name: str) -> None:
        """Remove a file from an open batch."""
        self._call(Exchange("DELETE", v1("batches", batch_id, "files", name)))

    def seal(self, batch_id: str, sent: Sequence[LocalFile]) -> records.Sealed:
        """Close a delivery that consists of exactly these files; repeating it is harmless.

        Raises
        ------
        GatewayProblem
            ``batch-incomplete``: files are missing, surplus or different; ``errors`` names each.
        """
        listed = [_listed(file) for file in sent]
        path = v1("batches", batch_id, "seal")
        return records.sealed(self._json("POST", path, json={"files": listed}))

    def get_job(self, job_id: str) -> records.Job:
        """Return a job as it stands."""
        return self.poll_job(job_id)[0]

    def poll_job(self, job_id: str) -> tuple[records.Job, float | None]:
        """Return a job, and in how many seconds the gateway wants to be asked again."""
        response = self._call(Exchange("GET", v1("jobs", job_id)))
        return records.job(records.json_object(response)), problems.retry_after_seconds(
            response.headers
        )

    def iter_jobs(self, batch_id: str) -> Iterator[records.Job]:
        """Yield a batch's jobs."""
        body = self._json("GET", v1("batches", batch_id, "jobs"))
        yield from (records.job(item) for item in body.get("items") or ())

    def cancel_job(self, job_id: str) -> records.Job:
        """End a job; the account must be an operator's.

        Raises
        ------
        GatewayProblem
            ``forbidden``, or the job has ended already.
        """
        return records.job(self._json("POST", v1("jobs", job_id, "cancel")))

    def replay(self, batch_id: str, reason: str) -> records.Job:
        """Have a sealed batch processed once more; the account must be an operator's."""
        path = v1("batches", batch_id, "replays")
        return records.job(self._json("POST", path, json={"reason": reason}))

    def iter_rejects(self, job_id: str) -> Iterator[records.Reject]:
        """Yield the rows that failed validation, as they arrive."""
        headers = {"Accept": "application/x-ndjson"}
        exchange = Exchange("GET", v1("jobs", job_id, "rejects"), headers=headers)
        response = self._authorized(lambda token: self.transport.open(exchange, token))
        with closing(response):
            try:
                for line in response.iter_lines():
                    if line:
                        yield records.reject(json.loads(line))
            except httpx.TransportError as error:
                raise problems.unreachable(error) from error

    def manifest(self, batch_id: str) -> bytes:
        """Return the manifest of a sealed batch: exactly the bytes its receipt signs."""
        return self._call(Exchange("GET", v1("batches", batch_id, "manifest"))).content

    def receipt(self, batch_id: str) -> str:
        """Return the receipt of a sealed batch: a JWS in compact form."""
        return self._call(Exchange("GET", v1("batches", batch_id, "receipt"))).text.strip()

    def jwks(self) -> Mapping[str, Any]:
        """Return the gateway's public keys (RFC 7517)."""
        return records.json_object(self.transport.call(Exchange("GET", ".well-known/jwks.json")))

    def verified_receipt(self, batch_id: str) -> Receipt:
        """Return what a sealed batch's receipt says, its signature and manifest verified.

        Raises
        ------
        ReceiptError
            It proves nothing, or something about another batch.
        """
        proof = receipt.verify(self.receipt(batch_id), self.jwks(), self.manifest(batch_id))
        if proof.batch != batch_id:
            raise ReceiptError(f"The gateway gave the receipt of {proof.batch} for {batch_id}")
        return proof

    def attempt(self, exchange: Exchange) -> httpx.Response:
        """Send an exchange without repeating it, for those who repeat it in a way of their own."""
        return self._authorized(lambda token: self.transport.once(exchange, token))

    def _json(self, method: str, path: str, **parts: Any) -> Mapping[str, Any]:
        return records.json_object(self._call(Exchange(method, path, **parts)))

    def _call(self, exchange: Exchange) -> httpx.Response:
        return self._authorized(lambda token: self.transport.call(exchange, token))

    def _authorized(self, ask: Callable[[str], httpx.Response]) -> httpx.Response:
        token = self._login.token()
        try:
            return ask(token)
        except problems.GatewayProblem as problem:
            if problem.status != httpx.codes.UNAUTHORIZED:
                raise
        return ask(self._login.renewed(token))


def _listed(file: LocalFile) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
