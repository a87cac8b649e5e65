"""Pages of Airflow's side of signing in: what to say when there is nothing to do but to say it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.api_fastapi.app import API_ROOT_PATH, AUTH_MANAGER_FASTAPI_APP_PREFIX
from airflow.configuration import conf
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

AUTH_PATH = AUTH_MANAGER_FASTAPI_APP_PREFIX
LOGIN_PATH = f"{AUTH_PATH}/login"
CALLBACK_PATH = f"{AUTH_PATH}/callback"
SIGNED_OUT_PATH = f"{AUTH_PATH}/signed-out"
_NEXT_LIMIT = 2000

_FOLDER = Path(__file__).parent / "templates"
# The style sheet is a file of this package, so it needs no escaping; its hash allows it and no other.
_STYLE = Markup((_FOLDER / "page.css").read_text())  # noqa: S704
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def message(
    title: str,
    text: str,
    *,
    status_code: int = 200,
    link_text: str = "Try again",
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Render a page that says something, with a link to where signing in begins."""
    html = _PAGES.get_template("message.html").render(
        style=_STYLE, title=title, message=text, link=LOGIN_PATH, link_text=link_text
    )
    return HTMLResponse(html, status_code=status_code, headers={**HEADERS, **(headers or {})})


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


def callback_url(request: Request) -> str:
    """Return where the gateway sends people back to: the address registered there, and no other."""
    base = conf.get("api", "base_url", fallback="") or str(request.base_url)
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}{CALLBACK_PATH}"


def is_secure(request: Request) -> bool:
    """Say whether cookies may be marked as for HTTPS only."""
    return request.base_url.scheme == "https" or bool(conf.get("api", "ssl_cert", fallback=""))


def _origins(request: Request) -> set[str]:
    """Return this site's own origins: as addressed, and as configured (behind a proxy)."""
    urls = (str(request.base_url), conf.get("api", "base_url", fallback="") or "")
    parts = (urlsplit(url) for url in urls if url)
    return {f"{each.scheme}://{each.netloc}" for each in parts}
