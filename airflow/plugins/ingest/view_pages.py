"""Pages of the views: rendering, what stands beside them, and the headers that every one carries.

Whatever is put into a page is escaped. A page may load the style sheet and the script that lie
beside its templates, and nothing else; Airflow, and nobody else, may show it in a frame.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import API_ROOT_PATH
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from ingest import login_pages

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = f"{login_pages.AUTH_PATH}/views"
_FOLDER = Path(__file__).parent / "templates"
_MEDIA = {"views.css": "text/css; charset=utf-8", "views.js": "text/javascript; charset=utf-8"}
# Their names change with them, so that browsers may keep them for ever.
_BESIDE = {
    f"{hashlib.sha256((_FOLDER / name).read_bytes()).hexdigest()[:16]}.{name.partition('.')[2]}": name
    for name in _MEDIA
}

NOTHING = "\N{EN DASH}"
GATEWAY_TABS = (
    ("overview", "Overview", f"{PATH}/gateway"),
    ("jobs", "Jobs", f"{PATH}/gateway/jobs"),
    ("leases", "Leases", f"{PATH}/gateway/leases"),
    ("audit", "Audit trail", f"{PATH}/audit"),
)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return NOTHING
    size, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007 - the last one is wanted
        if size < 1000:  # noqa: PLR2004 - SI prefixes
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _moment(at: datetime | None) -> str:
    return NOTHING if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(size=_size, moment=_moment, words=_words)
    names = {kept.rpartition(".")[2]: f"{PATH}/static/{kept}" for kept in _BESIDE}
    found.globals.update(views=PATH, home=API_ROOT_PATH, beside=names, login=login_pages.LOGIN_PATH)
    return found


_PAGES = _environment()


def page(
    template: str,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    **shown: Any,
) -> HTMLResponse:
    """Render a page."""
    html = _PAGES.get_template(template).render(**shown)
    return HTMLResponse(html, status_code=status_code, headers={**HEADERS, **(headers or {})})


def message(status_code: int, title: str, text: str, *, sign_in: str = "") -> HTMLResponse:
    """Render a page that only says something; ``sign_in``: where to go after signing in."""
    wait = {"Retry-After": "30"} if status_code in {429, 503} else {}
    return page(
        "view_message.html",
        status_code=status_code,
        headers=wait,
        title=title,
        message=text,
        sign_in=sign_in,
        tabs=(),
        tab="",
    )


def beside(name: str) -> Response:
    """Return the style sheet or the script; nothing else can be named."""
    if name not in _BESIDE:
        return Response(status_code=404)
    kept = _BESIDE[name]
    forever = {"Cache-Control": "public, max-age=31536000, immutable"}
    headers = {**HEADERS, **forever, "Content-Type": _MEDIA[kept]}
    return Response((_FOLDER / kept).read_bytes(), headers=headers)
