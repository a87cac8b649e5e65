"""Date patterns as contracts write them (``yyyy-MM-dd``) in the form the parser reads."""

from __future__ import annotations

import re

_TOKENS = {
    "yyyy": "%Y", "yy": "%y", "MMM": "%b", "MM": "%m", "dd": "%d", "HH": "%H", "hh": "%I",
    "mm": "%M", "ss": "%S", "SSS": "%3f", "SSSSSS": "%6f", "SSSSSSSSS": "%9f", "a": "%p",
    "XXX": "%:z", "XX": "%z", "xxx": "%:z", "xx": "%z",
}  # fmt: skip
_PART = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|(.)", re.DOTALL)
_CLOCK = {"HH", "hh", "mm", "ss"}


class FormatError(Exception):
    """The pattern cannot be read, or does not tell a date (or a time)."""


def strftime_of(pattern: object, kind: str) -> str:
    """Translate a ``java.time`` pattern.

    Raises
    ------
    FormatError
        If a letter has no counterpart, or the pattern does not fit ``kind``.
    """
    if not isinstance(pattern, str) or not pattern:
        msg = "must be a date pattern such as yyyy-MM-dd"
        raise FormatError(msg)
    translated, seen = [], set()
    for part in _PART.finditer(pattern):
        text = part.group()
        if text.startswith("'"):
            translated.append((part.group(1).replace("''", "'") or "'").replace("%", "%%"))
        elif text.isascii() and text.isalpha():
            translated.append(_token(text))
            seen.add(text)
        else:
            translated.append(text.replace("%", "%%"))
    _check(seen, kind)
    return "".join(translated)


def _token(text: str) -> str:
    if text not in _TOKENS:
        msg = f"{text} is not a supported part of a date pattern"
        raise FormatError(msg)
    return _TOKENS[text]


def _check(seen: set[str], kind: str) -> None:
    if not (seen & {"yyyy", "yy"} and seen & {"MM", "MMM"} and "dd" in seen):
        msg = "must tell year, month and day"
        raise FormatError(msg)
    if kind == "date" and seen & _CLOCK:
        msg = "tells a time of day: use timestamp"
        raise FormatError(msg)
    if kind == "timestamp" and not seen & {"HH", "hh"}:
        msg = "tells no time of day: use date"
        raise FormatError(msg)


def fixed_length(strftime: str) -> int | None:
    """How many characters a text of this form has, or None if that varies."""
    widths = {"%Y": 4, "%y": 2, "%b": 3, "%m": 2, "%d": 2, "%H": 2, "%I": 2, "%M": 2, "%S": 2,
              "%3f": 3, "%6f": 6, "%9f": 9, "%p": 2, "%%": 1}  # fmt: skip
    total = 0
    for part in re.findall(r"%:?\d?[A-Za-z%]|.", strftime):
        if len(part) > 1 and part not in widths:
            return None
        total += widths.get(part, 1)
    return total
