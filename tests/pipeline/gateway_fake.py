"""A loopback HTTP server that answers as the gateway does: keys, tokens, progress."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jws
from joserfc.jwk import ECKey

USER = "svc-airflow"
PASSWORD = "not-a-real-secret"


class GatewayFake:
    """Holds what was reported; ``faults`` are answers to give first, by path ending."""

    def __init__(self) -> None:
        key = ECKey.generate_key("P-256")
        self.key = ECKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})
        self.reports: list[dict[str, Any]] = []
        self.faults: dict[str, list[int]] = {}
        self.valid_tokens: set[str] = set()
        self.tokens_issued = 0
        handler = type("Handler", (_Handler,), {"gateway": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sign(self, content: bytes, **header: Any) -> bytes:
        given = {"alg": "ES256", "kid": self.key.kid, "typ": "receipt+jws", **header}
        rules = jws.JWSRegistry(algorithms=["ES256"])
        rules.max_payload_length = 1 << 30
        return jws.serialize_compact(given, content, self.key, registry=rules).encode()

    def ended(self) -> list[dict[str, Any]]:
        """Give the final reports, one per step and map index, as the gateway would keep them."""
        final = {(r["step"], r["map_index"]): r for r in self.reports if r["state"] != "running"}
        return list(final.values())

    def rows(self) -> dict[str, int]:
        names = ("read", "loaded", "rejected")
        return {name: sum(r["rows"][name] for r in self.ended()) for name in names}

    def rejects(self) -> list[dict[str, Any]]:
        return [reject for report in self.ended() for reject in report["rejects"]]

    def error(self) -> dict[str, str] | None:
        return next((r["error"] for r in self.ended() if r["error"]), None)


class _Handler(BaseHTTPRequestHandler):
    gateway: GatewayFake
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self._fault():
            return
        public = self.gateway.key.as_dict(private=False)
        self._answer(200, {"keys": [{**public, "use": "sig", "alg": "ES256"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._fault():
            return
        if self.path == "/v1/token":
            self._token(parse_qs(body.decode()))
        else:
            self._progress(body)

    def _token(self, form: dict[str, list[str]]) -> None:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        right = {"grant_type": ["client_credentials"], "scope": ["jobs:progress"]}
        if self.headers["Authorization"] != f"Basic {wanted}" or form != right:
            self._answer(401, {"error": "invalid_client"})
            return
        self.gateway.tokens_issued += 1
        token = f"token-{self.gateway.tokens_issued}"
        self.gateway.valid_tokens.add(token)
        self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": 900})

    def _progress(self, body: bytes) -> None:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        if token not in self.gateway.valid_tokens:
            self._answer(401, {"type": "/problems/invalid-token"})
            return
        report = json.loads(body)
        if "\0" in "".join(_texts(report)):  # no text that Postgres could keep
            self._answer(422, {"type": "/problems/invalid-request"})
            return
        self.gateway.reports.append({**report, "job_id": self.path.split("/")[3]})
        self._answer(200, {})

    def _fault(self) -> bool:
        for ending, statuses in self.gateway.faults.items():
            if self.path.endswith(ending) and statuses:
                self._answer(statuses.pop(0), {"type": "/problems/unavailable"})
                return True
        return False

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
