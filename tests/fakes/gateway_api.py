"""A gateway on loopback that keeps its public contract in memory, and fails when told to.

It stands in for a deployed gateway where what is under test is the client's side. Tokens lapse,
digests are enforced, sealing checks the list, receipts are really signed.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from tests.fakes.gateway_uploads import RefusalError, Uploads

USER, PASSWORD = "svc-acme", "correct horse"


@dataclass
class Fault:
    """What goes wrong, ``times`` times, with requests of this method and path.

    Parameters
    ----------
    kind
        ``refuse`` (answer ``status`` and do nothing), ``cut`` (reset the connection after
        ``after_bytes`` of the body), ``lose`` (do it, reset instead of answering), ``stall``
        (take ``after_bytes`` of the body, then wait until the server stops). A resumable upload
        keeps the bytes that came before it was cut.
    """

    method: str
    path: str
    kind: str
    times: int = 1
    status: int = 503
    slug: str = "unavailable"
    headers: dict[str, str] = field(default_factory=dict)
    after_bytes: int = 0


@dataclass
class State:
    """What this gateway knows, and what was asked of it."""

    url: str = ""
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    job_script: list[dict[str, Any]] = field(default_factory=lambda: [{"state": "succeeded"}])
    rejects: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    keys_seen: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    mechanisms: list[str] = field(default_factory=lambda: ["put", "multipart", "tus"])
    uploads: Uploads = field(init=False)
    manifest_changes: dict[str, Any] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    kid: str = "key-1"
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopping: threading.Event = field(default_factory=threading.Event)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.contents)

    def jwks(self) -> dict[str, Any]:
        """Return the public half of the signing key."""
        jwk = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [jwk | {"kid": self.kid, "use": "sig", "alg": "ES256"}]}

    def manifest(self, batch: dict[str, Any]) -> bytes:
        """Return the canonical manifest of a batch."""
        files = [{k: f[k] for k in ("name", "sha256", "size_bytes")} for f in batch["files"]]
        body = {
            "batch": batch["id"],
            "client": "acme",
            "contract": 1,
            "files": sorted(files, key=lambda file: file["name"]),
            "metadata": batch["metadata"],
            "mode": batch["mode"],
            "period": batch["period"],
            "project": batch["project"],
            "reference": batch["reference"],
            "sealed_at": "2026-01-01T00:00:00Z",
            "supersedes": None,
        }
        return rfc8785.dumps(body | self.manifest_changes)

    def receipt(self, payload: bytes) -> str:
        """Sign a manifest."""
        headers = {"kid": self.kid, "typ": "receipt+jws"}
        return jwt.PyJWS().encode(payload, self.key, algorithm="ES256", headers=headers)

    def count(self, pattern: str) -> int:
        """Return how many requests were like this ("PUT .*")."""
        return sum(bool(re.fullmatch(pattern, request)) for request in self.requests)

    def put(self, batch: dict[str, Any], name: str, content: bytes) -> bool:
        """Keep a file; return whether it is new."""
        found = {
            "name": name,
            "state": "complete",
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        before = next((file for file in batch["files"] if file["name"] == name), None)
        if before and before.get("sha256") != found["sha256"]:
            raise RefusalError(409, "file-exists")
        if not before:
            batch["files"].append(found)
            self.contents[batch["id"], name] = content
        return not before

    def seal(self, batch: dict[str, Any]) -> str:
        """Seal a batch and return the id of its job."""
        if batch["state"] == "open":
            batch["state"] = "sealed"
            job_id = f"job_{next(self.numbers):026d}"
            batch["jobs"].append({"id": job_id, "state": "queued"})
            self.jobs[job_id] = [
                {"id": job_id, "batch": batch["id"], "steps": [], **told}
                for told in self.job_script
            ]
        return str(batch["jobs"][-1]["id"])


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def serve(self) -> None:
        """Answer one request, or fail as told."""
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        fault = self._fault(url.path)
        with self.state.lock:
            self.state.requests.append(f"{self.command} {url.path}")
        is_broken = fault is not None and fault.kind in {"cut", "stall"}
        if fault and is_broken and self.command != "PATCH":
            self._break_off(fault)
            return
        try:
            if self.command == "PATCH":
                answer = self._patch(url.path, fault)
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with self.state.lock:
                    self._maybe_refuse(fault)
                    answer = self._route(url.path, body)
        except RefusalError as problem:
            answer = self._problem(problem)
            self.close_connection |= self.command == "PATCH"  # its body may be left unread
        if fault and is_broken:
            self._break_off(fault, 0)
        elif fault and fault.kind == "lose":
            self._reset()
        else:
            self._send(*answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

    def _fault(self, path: str) -> Fault | None:
        with self.state.lock:
            for fault in self.state.faults:
                matches = fault.method == self.command and re.fullmatch(fault.path, path)
                if matches and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _maybe_refuse(self, fault: Fault | None) -> None:
        if fault and fault.kind == "refuse":
            raise RefusalError(fault.status, fault.slug, headers=fault.headers)

    def _break_off(self, fault: Fault, after_bytes: int | None = None) -> None:
        self.rfile.read(fault.after_bytes if after_bytes is None else after_bytes)
        if fault.kind == "stall":
            self.state.stopping.wait()
        self._reset()

    def _reset(self) -> None:
        """Close with RST, as a dying machine or a cut cable looks."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _problem(self, problem: RefusalError) -> tuple[int, Any, dict[str, str]]:
        retryable = problem.status in {429, 503}
        body = {"type": f"/problems/{problem.slug}", "title": problem.slug, "retryable": retryable}
        body |= {"status": problem.status, "request_id": "req-1", **problem.more}
        return problem.status, body, problem.headers

    def _route(  # noqa: PLR0911
        self, path: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        if path == "/.well-known/jwks.json":
            return 200, self.state.jwks(), {}
        if path == "/v1/token":
            return self._token(dict(urllib.parse.parse_qsl(body.decode())))
        self._authenticate()
        match [urllib.parse.unquote(part) for part in path.split("/")[2:]]:
            case ["batches"] if self.command == "POST":
                return self._create(json.loads(body))
            case ["batches"]:
                return self._list()
            case ["batches", batch_id, *rest] if batch_id in self.state.batches:
                return self._batch(self.state.batches[batch_id], rest, body)
            case []:
                return 200, {"version": "0", "uploads": self.state.mechanisms}, {}
            case ["uploads", upload_id] if self.command == "HEAD":
                upload = self.state.uploads.find(upload_id, self.headers)
                self.state.uploads.finish(upload)
                return 200, b"", {**upload.standing(), "Cache-Control": "no-store"}
            case ["jobs", job_id] if job_id in self.state.jobs:
                told = self.state.jobs[job_id]
                return 200, told.pop(0) if len(told) > 1 else told[0], {}
            case ["jobs", _, "rejects"]:
                lines = [json.dumps(reject) for reject in self.state.rejects]
                return 200, "\n".join(lines).encode(), {"Content-Type": "application/x-ndjson"}
        raise RefusalError(404, "not-found")

    def _authenticate(self) -> None:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.state.tokens:
            raise RefusalError(401, "invalid-token")

    def _patch(self, path: str, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        """Take bytes as they come: no lock is held meanwhile."""
        uploads = self.state.uploads
        with self.state.lock:
            self._maybe_refuse(fault)
            self._authenticate()
            upload = uploads.find(path.rpartition("/")[2], self.headers)
        is_broken = fault is not None and fault.kind in {"cut", "stall"}
        limit = fault.after_bytes if fault and is_broken else upload.length
        uploads.append(upload, self.headers, self.rfile, limit)
        if not is_broken:
            with self.state.lock:
                uploads.finish(upload)
        return 204, b"", {"Upload-Offset": upload.standing()["Upload-Offset"]}

    def _token(self, form: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        self.state.forms.append(form)
        if (form.get("client_id"), form.get("client_secret")) != (USER, PASSWORD):
            return 401, {"error": "invalid_client"}, {}
        token = f"token-{next(self.state.numbers)}"
        self.state.tokens.add(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 900}, {}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        key = self.headers["Idempotency-Key"]
        if key in self.state.keys_seen:
            batch = self.state.batches[self.state.keys_seen[key]]
            return 201, batch, {"Location": f"/v1/batches/{batch['id']}"}
        for other in self.state.batches.values():
            same = (other["project"], other["reference"]) == (asked["project"], asked["reference"])
            if same and other["state"] in {"open", "sealed"}:
                headers = {"Location": f"/v1/batches/{other['id']}"}
                raise RefusalError(409, "batch-exists", headers=headers)
        batch_id = f"bat_{next(self.state.numbers):026d}"
        empty: dict[str, Any] = {
            "mode": "load",
            "period": None,
            "metadata": {},
            "files": [],
            "jobs": [],
        }
        batch = empty | asked | {"id": batch_id, "state": "open"}
        self.state.batches[batch_id] = batch
        self.state.keys_seen[key] = batch_id
        return 201, batch, {"Location": f"/v1/batches/{batch_id}"}

    def _list(self) -> tuple[int, Any, dict[str, str]]:
        """Two a page, so that a reader has to follow ``next``."""
        wanted = {key: value for key, value in self.query.items() if key != "cursor"}
        items = [
            {key: value for key, value in batch.items() if key not in {"files", "jobs"}}
            for batch in self.state.batches.values()
            if all(batch[key] == value for key, value in wanted.items())
        ]
        start = int(self.query.get("cursor", 0))
        following = str(start + 2) if start + 2 < len(items) else None
        return 200, {"items": items[start : start + 2], "next": following}, {}

    def _batch(  # noqa: PLR0911
        self, batch: dict[str, Any], rest: list[str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        match rest:
            case []:
                return 200, batch, {}
            case ["files", name] if self.command == "PUT":
                return self._put(batch, name, body)
            case ["uploads"]:
                upload_id = f"upl_{next(self.state.numbers):026d}"
                upload = self.state.uploads.create(upload_id, batch, self.headers)
                return 201, b"", {"Location": f"/v1/uploads/{upload.id}"}
            case ["files"] if self.command == "POST":
                return self._declare(batch, json.loads(body)["files"])
            case ["files", name] if self.command == "GET":
                return 200, self.state.uploads.look(batch, name), {}
            case ["files", name] if self.command == "DELETE":
                batch["files"] = [file for file in batch["files"] if file["name"] != name]
                return 204, b"", {}
            case ["seal"]:
                return self._seal(batch, json.loads(body)["files"])
            case ["jobs"]:
                return 200, {"items": [self.state.jobs[job["id"]][0] for job in batch["jobs"]]}, {}
            case ["manifest" | "receipt" as kind]:
                manifest = self.state.manifest(batch)
                proof = self.state.receipt(manifest).encode()
                return 200, manifest if kind == "manifest" else proof, {}
        raise RefusalError(404, "not-found")

    def _put(
        self, batch: dict[str, Any], name: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if self.headers["Repr-Digest"] != f"sha-256=:{digest}:":
            raise RefusalError(422, "digest-mismatch")
        if batch["state"] != "open":
            raise RefusalError(409, "batch-sealed")
        is_new = self.state.put(batch, name, body)
        stored = {"name": name, "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        return 201 if is_new else 200, stored, {"Repr-Digest": f"sha-256=:{digest}:"}

    def _declare(
        self, batch: dict[str, Any], declared: list[dict[str, Any]]
    ) -> tuple[int, Any, dict[str, str]]:
        held = {file["name"]: file.get("sha256") for file in batch["files"]}
        items = [
            {
                "name": file["name"],
                "status": "present" if held.get(file["name"]) == file["sha256"] else "needed",
            }
            for file in declared
        ]
        return 200, {"items": items}, {}

    def _seal(
        self, batch: dict[str, Any], listed: list[dict[str, Any]]
    ) -> tuple[int, Any, dict[str, str]]:
        held = {file["name"]: file.get("sha256") for file in batch["files"]}
        if {file["name"]: file["sha256"] for file in listed} != held:
            cause = {"pointer": "/files", "detail": "not the files of this batch"}
            raise RefusalError(409, "batch-incomplete", errors=[cause])
        job = self.state.seal(batch)
        return 202, {"batch": batch["id"], "job": job}, {"Location": f"/v1/jobs/{job}"}


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[State]:
    """Run a gateway on a free loopback port."""
    state = State()
    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05))
    thread.start()
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
