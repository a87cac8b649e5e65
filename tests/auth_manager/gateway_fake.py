"""A loopback HTTP server that answers as the gateway does: keys, tokens, what they are worth."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

from tests.auth_manager import minting, view_fake

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Account:
    """Somebody in the directory."""

    password: str
    claims: dict[str, Any]
    clients: tuple[str, ...] = ()


APPLICATION = ("airflow", "the secret that this Airflow shares with the gateway")
CONTRACT = json.loads((minting.ROOT / "airflow/contract/introspection.json").read_text())


@dataclass
class Gateway:
    """What the fake knows and what it has been asked.

    Attributes
    ----------
    ended
        Ids of tokens and sessions that are worth nothing any more.
    scopes
        What the directory grants now, by session, where it is not what the session was given.
    scripts
        Sessions that no browser began.
    identity
        Changes to the next identity tokens.
    """

    keys: list[ECKey] = field(default_factory=lambda: [minting.new_key()])
    accounts: dict[str, Account] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fault: Answer | None = None
    slow_seconds: float = 0.0
    fresh_seconds: float = 0.0
    session_seconds: int = 28_800
    ended: set[str] = field(default_factory=set)
    scopes: dict[str, str] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, tuple[dict[str, str], Account]] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    scripts: set[str] = field(default_factory=set)
    shown: view_fake.Shown = field(default_factory=view_fake.Shown)
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
        return self._issued(minting.claims(kind, **changes))

    def signed_on(self, address: str, name: str) -> dict[str, str]:
        """Do what the gateway's page does: sign an account on; return the answer's parameters."""
        query = dict(parse_qsl(urlsplit(address).query))
        code = f"gwc_{len(self.codes)}"
        self.codes[code] = (query, self.accounts[name])
        return {"code": code, "state": query["state"], "iss": minting.ISSUER}

    def answer(self, path: str, form: dict[str, str], authorization: str | None = None) -> Answer:
        """Answer one request."""
        self.asked.append((path, form))
        time.sleep(self.slow_seconds)
        if self.fault is not None:
            return self.fault
        if path == "/.well-known/jwks.json":
            return _json(200, {"keys": [minting.public(key) for key in self.keys]})
        if path == "/healthz":
            return _json(200, {"status": "alive"})
        if path == "/v1/token" and form.get("grant_type") == "password":
            return self._token(form)
        if path.startswith(("/v1/batches", "/v1/jobs", "/v1/admin", "/readyz")):
            return _json(*self.shown.answer(path, authorization))
        return self._for_application(path, form, authorization)

    def _for_application(
        self, path: str, form: dict[str, str], authorization: str | None
    ) -> Answer:
        if authorization != _basic(*APPLICATION):
            return _json(401, {"error": "invalid_client"})
        if path == "/v1/token" and form.get("grant_type", "").endswith("token-exchange"):
            return self._exchange(form)
        if path == "/v1/token":
            return self._code(form)
        if path == "/v1/token/introspect":
            return self._worth(form)
        if path == "/v1/token/revoke":
            self.ended.add(form["token"])
            return 200, {}, b""
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
        token = self._issued({**minting.claims("operator", **account.claims), **wanted})
        self.scripts.add(minting.claims_of(token)["jti"].partition(".")[0])
        return _json(200, {"access_token": token, "token_type": "Bearer", "expires_in": 900})

    def _issued(self, claims: dict[str, Any]) -> str:
        self.sessions[claims["jti"].partition(".")[0]] = claims
        return minting.sign(self.key, claims)

    def _exchange(self, form: dict[str, str]) -> Answer:
        named = form["subject_token"]
        session = self.sessions.get(named)
        if session is None or named in self.ended | self.scripts:
            return _json(400, {"error": "invalid_request"})
        granted = self.scopes.get(named, session["scope"])
        return _json(*self.shown.exchange(session, granted, form))

    def _code(self, form: dict[str, str]) -> Answer:
        query, account = self.codes.pop(form.get("code", ""), ({}, None))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        is_right = (
            account is not None
            and query["code_challenge"] == minting.b64(digest)
            and query["redirect_uri"] == form.get("redirect_uri")
        )
        if account is None or not is_right:
            return _json(400, {"error": "invalid_grant"})
        token = self._issued(minting.claims("operator", **account.claims))
        subject = minting.claims_of(token)["sub"]
        claims = minting.identity(**{"sub": subject, "nonce": query["nonce"], **self.identity})
        header = {"typ": "JWT"}
        identity = minting.sign(self.key, claims, **header)
        body = {"access_token": token, "id_token": identity, "token_type": "Bearer"}
        return _json(200, {**body, "expires_in": 900})

    def _worth(self, form: dict[str, str]) -> Answer:
        token = form["token"]
        if form.get("token_type_hint") == "session":
            found = self.sessions.get(token)
            claims = found and {**found, "exp": int(time.time()) + self.session_seconds}
        else:
            claims = minting.claims_of(token)
        if not claims or {token, claims["jti"], claims["jti"].partition(".")[0]} & self.ended:
            return _json(200, CONTRACT["ended"])
        scope = self.scopes.get(claims["jti"].partition(".")[0], claims["scope"])
        worth = {name: claims[name] for name in ("sub", "client", "exp") if name in claims}
        extra = {"scope": scope, "fresh_seconds": self.fresh_seconds}
        return _json(200, {"active": True, **worth, **extra})

    def __enter__(self) -> Self:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(gateway.answer(self.path, {}, self.headers.get("authorization")))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                form = {name: values[-1] for name, values in parse_qs(body).items()}
                self._reply(gateway.answer(self.path, form, self.headers.get("authorization")))

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


def _basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _json(status: int, body: Any) -> Answer:
    if isinstance(body, list):
        lines = "".join(json.dumps(each) + "\n" for each in body)
        return status, {"Content-Type": "application/x-ndjson"}, lines.encode()
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()
