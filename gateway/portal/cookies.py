"""The portal's two cookies, and what proves that a form was ours and this browser's.

A cookie named ``__Host-…`` can only have been set by this very host over https: not by a
neighbour, not for a path, not in plain text. On loopback there is no https; there the names differ.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response

FORM_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Cookies:
    """Reads and sets them.

    Parameters
    ----------
    issuer
        The gateway's public address: what browsers know it by.
    """

    issuer: str

    def session(self, request: Request) -> str:
        """Return what stands for the browser's sign-in, or nothing."""
        return request.cookies.get(self._name("session"), "")

    def set_session(self, response: Response, value: str, life_seconds: int) -> None:
        """Keep a sign-in. Lax: a link from an application brings it along, a form does not."""
        name = self._name("session")
        response.set_cookie(name, value, max_age=life_seconds, samesite="lax", **self._common())
        response.delete_cookie(self._name("form"), samesite="strict", **self._common())

    def forget_session(self, response: Response) -> None:
        """Take a sign-in's cookie away."""
        response.delete_cookie(self._name("session"), samesite="lax", **self._common())

    def new_form(self, response: Response, request: Request) -> str:
        """Return what a form has to carry, and make sure of the cookie that belongs to it.

        A cookie that is there is kept: several tabs may show a form.
        """
        nonce = request.cookies.get(self._name("form"), "") or secrets.token_urlsafe(32)
        name = self._name("form")
        response.set_cookie(name, nonce, max_age=FORM_SECONDS, samesite="strict", **self._common())
        return _token(nonce)

    def is_genuine(self, request: Request, form_token: str) -> bool:
        """Say whether a form was made here, for this browser, and sent from a page of ours.

        The ``Origin`` that browsers send with every form has to be ours, and the form has to hold
        what belongs to the cookie. Signing in needs this too: without it a stranger can sign
        somebody in as himself.
        """
        parts = urlsplit(self.issuer)
        nonce = request.cookies.get(self._name("form"), "")
        if not nonce or request.headers.get("origin") != f"{parts.scheme}://{parts.netloc}":
            return False
        return hmac.compare_digest(_token(nonce).encode(), form_token.encode())

    def _name(self, kind: str) -> str:
        return f"__Host-gateway-{kind}" if self._is_secure else f"gateway_{kind}"

    def _common(self) -> dict[str, Any]:
        return {"path": "/", "secure": self._is_secure, "httponly": True}

    @property
    def _is_secure(self) -> bool:
        return self.issuer.startswith("https:")


def _token(nonce: str) -> str:
    # Not the cookie itself: what stands in a page may be seen by more eyes.
    return hashlib.sha256(f"form\0{nonce}".encode()).hexdigest()
