"""How a file comes in: its part is opened, then its place reserved, and no one waits for a store.

The landing zone may be far away, so it is never asked while a transaction is open. The part comes
first: whoever sees the row can see that its upload is alive. And what stands in the way is looked
at between two transactions; it gives way only if it is the very upload that was looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.errors import GatewayError
from gateway.landing.zone import Part, Zone
from gateway.uploads.slots import OccupiedError

Result = TypeVar("Result")
Admit = Callable[[Session, frozenset[str]], Result]


class Opened:
    """A part of a new upload, opened before it is known whether it will be wanted.

    Where it cannot be opened, that is the answer only for who would have needed it.

    Parameters
    ----------
    is_lasting
        Whether the part is to be durable at once, for later requests.
    """

    def __init__(self, zone: Zone, expected_bytes: int | None, *, is_lasting: bool = False) -> None:
        self.upload = database.new_id("upl")
        self._part: Part | None = None
        self._failure: GatewayError | None = None
        try:
            self._part = zone.open_part(self.upload, expected_bytes)
            if is_lasting:
                self._part.checkpoint()
        except GatewayError as error:
            self._failure = error

    def require(self) -> None:
        """Say by raising that the part could not be opened.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        if self._failure is not None:
            raise self._failure

    @property
    def part(self) -> Part:
        """The part.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            It could not be opened.
        """
        self.require()
        assert self._part is not None  # noqa: S101 - opened, or failed
        return self._part

    def discard(self) -> None:
        """Remove the part; again is harmless."""
        if self._part is not None:
            self._part.abort()


def admitted(sessions: sessionmaker[Session], zone: Zone, admit: Admit[Result]) -> Result:
    """Admit in one transaction; where that is refused for dead uploads, in another without them.

    Parameters
    ----------
    admit
        Takes the uploads that are known to be dead.

    Raises
    ------
    GatewayError
        As ``admit``; the landing zone's.
    """
    dead: frozenset[str] = frozenset()
    while True:
        try:
            with sessions.begin() as session:
                return admit(session, dead)
        except OccupiedError as refusal:
            found = {
                each.upload
                for each in refusal.suspects
                if not zone.is_receiving(each.upload, each.batch, each.name)
            }
            if not found:
                raise
            dead |= found
