"""Sizes and times as people write them: ``50GiB``, ``90d``, ``forever``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB|TiB)?", value)
    if found is None:
        message = "not a size; write bytes, or a number with KiB, MiB, GiB or TiB"
        raise ValueError(message)
    return int(found[1]) * _UNITS[found[2] or ""]


SizeBytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1, le=2**53, strict=True)]
Retention = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,4}[hd]|forever)$")]
