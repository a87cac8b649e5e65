"""One attempt to sign on, kept in the browser between leaving for the gateway and coming back.

A signed cookie holds what the answer will be measured by: ``state`` (that this browser asked),
``nonce`` (that the identity was made for this question) and the PKCE verifier (that whoever took
the code on its way can do nothing with it). Nothing is kept on this side.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from airflow.api_fastapi.auth.tokens import get_signing_key
from itsdangerous import BadSignature, URLSafeTimedSerializer

from ingest import login_pages

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.responses import Response

SECONDS = 900
COOKIE_PREFIX = "_ingest_signon_"
# Each tab has its own; more than that are left-overs.
AT_MOST = 8
_NAME_CHARACTERS = 12


@dataclass(frozen=True)
class Flow:
    """What was asked, and where the person wanted to go."""

    state: str
    nonce: str
    verifier: str
    next_path: str

    @classmethod
    def begin(cls, next_path: str) -> Self:
        """Make one that nobody can guess."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)), next_path)

    @classmethod
    def found(cls, request: Request, state: str) -> Self | None:
        """Return the one that an answer belongs to, if this browser began it here, lately."""
        text = request.cookies.get(COOKIE_PREFIX + state[:_NAME_CHARACTERS], "")
        try:
            flow = cls(**_serializer().loads(text, max_age=SECONDS))
        except (BadSignature, TypeError):
            return None
        return flow if hmac.compare_digest(flow.state.encode(), state.encode()) else None

    def keep(self, request: Request, response: Response) -> None:
        """Put it into the browser. Lax: the answer comes by a link from the gateway."""
        others = [name for name in request.cookies if name.startswith(COOKIE_PREFIX)]
        for name in others if len(others) >= AT_MOST else ():
            response.delete_cookie(name, path=login_pages.AUTH_PATH)
        response.set_cookie(
            self._cookie,
            _serializer().dumps(asdict(self)),
            max_age=SECONDS,
            path=login_pages.AUTH_PATH,
            secure=login_pages.is_secure(request),
            httponly=True,
            samesite="lax",
        )

    def forget(self, response: Response) -> None:
        """Take it away: an answer is taken once."""
        response.delete_cookie(self._cookie, path=login_pages.AUTH_PATH)

    def address(self, issuer: str, application: str, redirect_uri: str) -> str:
        """Return where to send the person (RFC 6749 §4.1.1, RFC 7636 §4.3)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": application,
            "redirect_uri": redirect_uri,
            "scope": "openid",
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{issuer.rstrip('/')}/v1/authorize?{urlencode(query)}"

    @property
    def _cookie(self) -> str:
        return COOKIE_PREFIX + self.state[:_NAME_CHARACTERS]


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_signing_key("api", "secret_key"), salt="ingest.signon")
