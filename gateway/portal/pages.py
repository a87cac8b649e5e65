"""Rendering: a template, what it shows, and the headers that every page carries."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "static/portal.css").read_bytes()
# Its name changes with it, so that browsers may keep it for ever.
STYLE_PATH = f"/static/{hashlib.sha256(STYLE).hexdigest()[:16]}.css"

_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **shown: Any) -> str:
    """Return a page's HTML."""
    return _templates.get_template(template).render(style_path=STYLE_PATH, **shown)


def headers(form_targets: tuple[str, ...] = ()) -> dict[str, str]:
    """Return a page's headers.

    Parameters
    ----------
    form_targets
        Origins that a form of the page may lead to, through redirects too.
    """
    return {
        "Content-Security-Policy": "; ".join(
            [
                "default-src 'none'",
                "style-src 'self'",
                "form-action " + " ".join(("'self'", *form_targets)),
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ]
        ),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        # Not no-referrer: browsers would then send forms with the Origin null.
        "Referrer-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }
