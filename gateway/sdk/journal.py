"""What a delivery leaves on this machine while it is under way, so that it survives its sender.

One small file for each delivery, in ``$XDG_STATE_HOME/ingestion-gateway`` (by default
``~/.local/state/ingestion-gateway``): a line of JSON for each thing learnt, later ones before
earlier ones. It holds digests that took long to compute, and the ids of uploads under way; no
password, no token, no data. It is removed once the receipt is verified. Whatever is wrong with
it, the delivery goes on without.

Notes
-----
A digest is believed only while the file has the same device, inode, size and times. Should that
deceive, the gateway's own digest of what arrives will differ, and the file is not stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.sdk import files
from gateway.sdk.files import LocalFile

try:
    import fcntl
except ImportError:  # a system without such locks: two senders of one delivery share the file
    fcntl = None  # type: ignore[assignment]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's digest, and the stamp it had."""

    sha256: str
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way, and which bytes of which batch."""

    id: str
    batch: str
    sha256: str


class Journal:
    """Remembers how far a delivery has come; safe to share between threads.

    Parameters
    ----------
    place
        The file; None remembers nothing beyond the process.
    warn
        Told when the file is of no use.
    """

    def __init__(
        self, place: Path | None = None, warn: Callable[[str], None] | None = None
    ) -> None:
        self._place = place
        self._warn = warn or (lambda _: None)
        self._lock = threading.Lock()
        self._fd = -1
        self._digests: dict[str, Digest] = {}
        self._uploads: dict[str, Upload] = {}
        self._open(os.O_RDWR)

    def inspect(self, path: Path, pulse: Callable[[], None] | None = None) -> LocalFile:
        """Return a file with its digest, as :func:`files.inspect`, which reads it only once.

        Raises
        ------
        FileChangedError
        """
        stamp = files.stamp(path)
        name = files.name_of(path)
        with self._lock:
            known = self._digests.get(name)
        if known and known.stamp == stamp:
            return files.known(path, known.sha256, stamp)
        found = files.inspect(path, pulse)
        if found.size_bytes > files.LARGE_BYTES and files.stamp(path) == stamp:
            self._note({"name": name, "sha256": found.sha256, "stamp": list(stamp)})
        return found

    def upload(self, batch: str, file: LocalFile) -> str:
        """Return the id of the upload of this file that is under way, if any."""
        with self._lock:
            found = self._uploads.get(file.name)
        is_same = found is not None and (found.batch, found.sha256) == (batch, file.sha256)
        return found.id if found is not None and is_same else ""

    def note_upload(self, batch: str, file: LocalFile, upload: str) -> None:
        """Remember an upload; an empty id forgets it."""
        self._note({"name": file.name, "batch": batch, "sha256": file.sha256, "upload": upload})

    def forget(self, file: LocalFile) -> None:
        """Forget all about a file."""
        self._note({"name": file.name})

    def remove(self) -> None:
        """Remove the file: the delivery is complete."""
        with self._lock, contextlib.suppress(OSError):
            if self._fd >= 0 and self._place:
                self._place.unlink()
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._let_go()

    def _note(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if self._fd < 0:
                self._open(os.O_RDWR | os.O_CREAT)
            self._apply(entry)
            if self._fd >= 0:
                with self._forgoing():
                    os.write(self._fd, _line(entry))

    def _let_go(self) -> None:
        fd, self._fd, self._place = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _open(self, flags: int) -> None:
        """Open the file and read it, unless another sender of the same delivery has it."""
        if self._place is None:
            return
        with self._forgoing():
            if flags & os.O_CREAT:
                self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = _opened(self._place, flags)
            if self._fd < 0:
                return
            if not _is_ours(self._fd, self._place):
                raise BlockingIOError("another gateway send of this delivery uses it")
            self._read(self._place.read_bytes())

    def _read(self, content: bytes) -> None:
        *lines, torn = content.split(b"\n")
        entries = [entry for line in lines if (entry := _entry(line))]
        for entry in entries:
            self._apply(entry)
        if torn or len(entries) < len(lines):
            self._warn(f"{self._place} is damaged: what it held may be sent again")
        if torn:
            os.write(self._fd, b"\n")

    def _apply(self, entry: dict[str, Any]) -> None:
        match entry:
            case {"name": name, "sha256": sha256, "stamp": stamp}:
                self._digests[name] = Digest(sha256, tuple(stamp))
            case {"name": name, "sha256": sha256, "batch": batch, "upload": upload}:
                self._uploads[name] = Upload(upload, batch, sha256)
            case {"name": name}:
                self._digests.pop(name, None)
                self._uploads.pop(name, None)

    @contextlib.contextmanager
    def _forgoing(self) -> Iterator[None]:
        """Go on without the file when it cannot be used."""
        try:
            yield
        except OSError as error:
            self._warn(f"this delivery keeps no notes: {self._place}: {error}")
            self._let_go()


def place_of(*delivery: str) -> Path | None:
    """Return where the notes of a delivery are, told apart by all of these words.

    Notes
    -----
    XDG Base Directory Specification 0.8; relative paths are to be ignored.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # nobody's home
        return None
    key = hashlib.sha256("\0".join(delivery).encode()).hexdigest()[:32]
    return base / "ingestion-gateway" / f"{key}.jsonl"


def _opened(place: Path, flags: int) -> int:
    """Open the file; -1 when it is not there."""
    plain = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(place, flags | plain | os.O_APPEND, 0o600)
    except FileNotFoundError:
        return -1


def _is_ours(fd: int, place: Path) -> bool:
    """Lock an open file; False when somebody has it, or has just removed it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), place.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps({"version": VERSION, **entry}, ensure_ascii=True).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read one line; None when it is not one of ours."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.pop("version", None) != VERSION:
        return None
    stamp = entry.get("stamp", [])
    texts = [entry.get(key, "") for key in ("name", "sha256", "batch", "upload")]
    is_sound = isinstance(stamp, list) and all(isinstance(each, int) for each in stamp)
    return entry if is_sound and all(isinstance(each, str) for each in texts) else None
