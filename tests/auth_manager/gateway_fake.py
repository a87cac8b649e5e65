"""A loopback HTTP server that answers as the gateway does: key set and token endpoint."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

from tests.auth_manager import minting

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Account:
    """Somebody in the directory."""

    password: str
    claims: dict[str, Any]
    clients: tuple[str, ...] = ()


@dataclass
class Gateway:
    """What the fake knows and what it has been asked."""

    keys: list[ECKey] = field(default_factory=lambda: [minting.new_key()])
    accounts: dict[str, Account] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fault: Answer | None = None
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def key(self) -> ECKey:
        """The key it signs with."""
        return self.keys[0]

    def count(self, path: str) -> int:
        """Say how often a path was asked for."""
        return sum(1 for asked, _ in self.asked if asked == path)

    def token(self, kind: str, **changes: Any) -> str:
        """Mint a token of one of the golden kinds."""
        return minting.sign(self.key, minting.claims(kind, **changes))

    def answer(self, path: str, form: dict[str, str]) -> Answer:
        """Answer one request."""
        self.asked.append((path, form))
        if self.fault is not None:
            return self.fault
        if path == "/.well-known/jwks.json":
            return _json(200, {"keys": [minting.public(key) for key in self.keys]})
        if path == "/v1/token":
            return self._token(form)
        return _json(404, {"type": "/problems/not-found", "status": 404})

    def _token(self, form: dict[str, str]) -> Answer:
        if form.get("grant_type") != "password" or form.get("audience") != "airflow":
            return _json(400, {"error": "unsupported_grant_type"})
        account = self.accounts.get(form.get("username", ""))
        if account is None or account.password != form.get("password"):
            return _json(400, {"error": "invalid_grant"})
        if len(account.clients) > 1 and form.get("client") not in account.clients:
            return _json(400, {"error": "invalid_request", "error_description": "which client?"})
        wanted = {"client": form["client"]} if form.get("client") else {}
        token = minting.sign(self.key, {**minting.claims("person", **account.claims), **wanted})
        return _json(200, {"access_token": token, "token_type": "Bearer", "expires_in": 900})

    def __enter__(self) -> Self:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(gateway.answer(self.path, {}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                form = {name: values[-1] for name, values in parse_qs(body).items()}
                self._reply(gateway.answer(self.path, form))

            def _reply(self, answer: Answer) -> None:
                status, headers, body = answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Keep the test output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serve = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()


def _json(status: int, body: dict[str, Any]) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()
