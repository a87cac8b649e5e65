"""The sign-in page: its HTML, its headers, its protection against forged forms and redirects."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.api_fastapi.app import API_ROOT_PATH, AUTH_MANAGER_FASTAPI_APP_PREFIX
from airflow.api_fastapi.auth.tokens import get_signing_key
from airflow.configuration import conf
from itsdangerous import BadSignature, URLSafeTimedSerializer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from fastapi import Request

FORM_COOKIE = "_ingest_login"
FORM_SECONDS = 1800
LOGIN_PATH = f"{AUTH_MANAGER_FASTAPI_APP_PREFIX}/login"
_NEXT_LIMIT = 2000

_FOLDER = Path(__file__).parent / "templates"
# The style sheet is a file of this package, so it needs no escaping; its hash allows it and no other.
_STYLE = Markup((_FOLDER / "login.css").read_text())  # noqa: S704
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page(
    request: Request,
    *,
    status_code: int = 200,
    message: str = "",
    next_path: str = "/",
    username: str = "",
    client: str = "",
) -> HTMLResponse:
    """Render the form afresh, with a new form token and the cookie that belongs to it."""
    nonce = secrets.token_urlsafe(32)
    html = _PAGES.get_template("login.html").render(
        style=_STYLE,
        action=LOGIN_PATH,
        form_token=_serializer().dumps(nonce),
        message=message,
        next=next_path,
        username=username,
        client=client,
    )
    response = HTMLResponse(html, status_code=status_code, headers=HEADERS)
    response.set_cookie(
        FORM_COOKIE,
        nonce,
        max_age=FORM_SECONDS,
        path=LOGIN_PATH,
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return response


def form_is_genuine(request: Request, form_token: str) -> bool:
    """Say whether a posted form was made here, for this browser, and sent from this site.

    Notes
    -----
    Three things have to agree: the ``Origin`` every browser sends with a form, a token signed by
    this server, and the cookie that was set together with it. A login form needs this too: without
    it a stranger can sign somebody in as himself.
    """
    if request.headers.get("origin") not in _origins(request):
        return False
    try:
        nonce = _serializer().loads(form_token, max_age=FORM_SECONDS)
    except BadSignature:
        return False
    cookie = request.cookies.get(FORM_COOKIE, "")
    return isinstance(nonce, str) and hmac.compare_digest(nonce.encode(), cookie.encode())


def safe_next(request: Request, wanted: str) -> str:
    """Reduce a wanted address to a path on this site; anything doubtful becomes the start page.

    The answer never has a scheme or a host, so that a redirect to it cannot leave the site.
    """
    start = API_ROOT_PATH or "/"
    if len(wanted) > _NEXT_LIMIT or not wanted.isascii() or not wanted.isprintable():
        return start
    if "\\" in wanted or " " in wanted or wanted.startswith("//"):
        return start
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return start
    if (parts.scheme or parts.netloc) and f"{parts.scheme}://{parts.netloc}" not in _origins(
        request
    ):
        return start
    if not parts.path.startswith(start) or parts.path.startswith("//"):
        return start
    return parts.path + (f"?{parts.query}" if parts.query else "")


def is_secure(request: Request) -> bool:
    """Say whether cookies may be marked as for HTTPS only."""
    return request.base_url.scheme == "https" or bool(conf.get("api", "ssl_cert", fallback=""))


def _origins(request: Request) -> set[str]:
    """Return this site's own origins: as addressed, and as configured (behind a proxy)."""
    urls = (str(request.base_url), conf.get("api", "base_url", fallback="") or "")
    parts = (urlsplit(url) for url in urls if url)
    return {f"{each.scheme}://{each.netloc}" for each in parts}


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_signing_key("api", "secret_key"), salt="ingest.login")
