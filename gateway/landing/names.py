"""Names of delivered files: validated once, by one type; nothing else becomes a path."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Self

from gateway.errors import Fault, GatewayError

MAX_BYTES = 255
_SIGNS = " ._-+@()=,#~&'!"
# Names that Windows gives to devices, whatever their extension: a client's people may download.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?")
_PLAIN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_-])?")
# Letters and marks that are not seen: two names that differ by them alone look the same.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class InvalidFilenameError(GatewayError):
    """A name that cannot be a delivered file's."""

    slug = "invalid-filename"
    status = 422
    title = "The file name cannot be taken"


class ReservedNameError(GatewayError):
    """A name that means something else to some system."""

    slug = "reserved-name"
    status = 422
    title = "The file name is reserved"


@dataclass(frozen=True, slots=True)
class FileName:
    """A file's name.

    Attributes
    ----------
    text
        As given: NFC, at most 255 bytes of UTF-8, letters, digits, marks and a few signs, no
        leading dot or dash or space, no trailing dot or space.
    collision_key
        NFKC and case-folded: two names of one key would be taken for each other somewhere.
    """

    text: str
    collision_key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Validate a name.

        Raises
        ------
        InvalidFilenameError, ReservedNameError
        """
        # What nearly all names look like, and none of the rules below is about.
        problem = None if _PLAIN.fullmatch(text) else _problem(text)
        if problem:
            raise InvalidFilenameError(errors=[Fault("name", problem)])
        key = _folded(text)
        if _DEVICES.fullmatch(key):
            raise ReservedNameError(errors=[Fault("name", "is a device's name on some systems")])
        return cls(text, key)


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Folding case can undo the normal form: once more, as Unicode's own NFKC_Casefold does.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _problem(text: str) -> str | None:
    if not text:
        return "is empty"
    if not all(map(_is_allowed, text)):
        return f"has a sign other than letters, digits and {_SIGNS.strip()!r}"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode normal form C"
    if len(text.encode()) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    return _harm(text)


def _harm(text: str) -> str | None:
    if text[0] in ".- ~#" or text[-1] in ". ":
        return "begins with a dot, dash, tilde, hash or space, or ends with a dot or space"
    # What compatibility forms turn into must be harmless too: U+FF0F becomes a slash.
    folded = unicodedata.normalize("NFKC", text)
    if not all(map(_is_allowed, folded)):
        return "has a sign that stands for a forbidden one"
    return None


def _is_allowed(sign: str) -> bool:
    if sign in _SIGNS:
        return True
    category = unicodedata.category(sign)
    return (category[0] in "LN" or category in {"Mn", "Mc"}) and not _INVISIBLE.match(sign)
