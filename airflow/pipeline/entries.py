"""Names of what lies in archives: which are safe, which are litter, which cannot stand together."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from pipeline.budget import unsafe

if TYPE_CHECKING:
    from collections.abc import Sequence

# With the archive's own name in front, a path still fits where rejects are kept.
MAX_PATH_BYTES = 700
# Of a file within archives within each other, with all their names in front; in characters.
MAX_LABEL_CHARS = 1_000


def is_litter(path: str) -> bool:
    """Whether an entry is what desktop systems add by themselves."""
    parts = path.lower().split("/")
    return parts[0] == "__macosx" or parts[-1] == ".ds_store" or parts[-1].startswith("._")


def is_safe_path(path: str) -> bool:
    """Whether a path leads nowhere but down, and can be shown."""
    parts = path.removesuffix("/").split("/")
    return (
        len(path.encode("utf-8", "replace")) <= MAX_PATH_BYTES
        and not any(part in ("", ".", "..") for part in parts)
        and "\\" not in path
        and ":" not in parts[0]
        and all(unicodedata.category(c)[0] != "C" for c in path)
    )


def check_names(name: str, entries: Sequence[tuple[str, bool]]) -> None:
    """Refuse entries of which one would hide another.

    Parameters
    ----------
    name
        The archive's.
    entries
        Path of each entry, and whether it is a folder.

    Raises
    ------
    DeliveryError
        ``unsafe-archive``.
    """
    keys = [_key(path) for path, _ in entries]
    if len(set(keys)) != len(keys):
        raise unsafe(name, "holds two files of the same name")
    files = {key for key, (_, is_folder) in zip(keys, entries, strict=True) if not is_folder}
    if any(folder in files for key in keys for folder in _folders(key)):
        raise unsafe(name, "holds a file and a folder of the same name")


def _key(path: str) -> str:
    return unicodedata.normalize("NFKC", path.removesuffix("/")).casefold()


def _folders(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
