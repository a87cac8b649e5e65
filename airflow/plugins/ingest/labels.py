"""What the views are called in Airflow's menu, in whatever language.

Airflow 3.3 has names for the pages of one auth manager only, and shows the key of any other
(``security.deliveries``) in its place. So its files of words are served with ours put in. Where an
upgrade keeps them elsewhere, the menu shows keys, and nothing else is amiss.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import airflow

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MENU = "Gateway"
NAMES = {"deliveries": "Deliveries", "gateway": "Gateway", "audit": "Audit"}
_FOLDER = Path(str(airflow.__file__)).parent / "ui/dist/i18n/locales"
_COMMON = re.compile(r"[A-Za-z-]{2,12}/common\.json")


class Labels(StaticFiles):
    """Serves Airflow's words, and ours among them."""

    def __init__(self) -> None:
        super().__init__(directory=_FOLDER, check_dir=False)

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        """Answer one request."""
        is_ours = scope["method"] == "GET" and _COMMON.fullmatch(path)
        return _completed(_FOLDER / path) if is_ours else await super().get_response(path, scope)


def _completed(file: Path) -> Response:
    try:
        words = json.loads(file.read_bytes())
        words["security"] = {**words.get("security", {}), **NAMES}
        words["nav"] = {**words.get("nav", {}), "security": MENU}
    except (OSError, ValueError, AttributeError, TypeError):
        return Response(status_code=404)
    headers = {"Cache-Control": "no-cache"}
    return Response(json.dumps(words), media_type="application/json", headers=headers)


LABELS = Labels()
