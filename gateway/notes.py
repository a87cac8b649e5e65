"""What a transaction writes last: noted when it happens, written when it commits.

A chain or a feed has one head, which everybody who appends has to lock. Appending as the last step
keeps that lock shortest, however long a transaction's other steps wait, and always in one order: no
two transactions wait for each other in a circle. What happens in a transaction, or savepoint, that
is rolled back did not happen: its notes are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from gateway import database

Write = Callable[[Session, list[Any]], None]

_NOTED = "noted"
_MARKS = "noted_marks"


class Notes:
    """Notes of one kind.

    Parameters
    ----------
    turn
        Kinds are written in the order of their turns.
    write
        Writes a transaction's notes, in the order in which they were taken; never called with none.
    """

    def __init__(self, turn: int, write: Write) -> None:
        self.turn = turn
        self.write = write
        _kinds.append(self)
        _kinds.sort(key=lambda kind: kind.turn)

    def add(self, session: Session, note: Any) -> None:
        """Note what is to be written when ``session`` commits."""
        database.require_writer(session)
        if not session.in_transaction():
            session.begin()
        session.info.setdefault(_NOTED, []).append((self, note))


_kinds: list[Notes] = []


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    if session.in_nested_transaction():
        return
    noted = session.info.pop(_NOTED, [])
    if not noted:
        return
    # What was changed must be written before a head is locked.
    session.flush()
    for kind in _kinds:
        if own := [note for of, note in noted if of is kind]:
            kind.write(session, own)


@event.listens_for(Session, "after_transaction_create")
def _mark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        marks = session.info.setdefault(_MARKS, {})
        marks[transaction] = len(session.info.get(_NOTED, []))


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, ended: SessionTransaction) -> None:
    noted = session.info.get(_NOTED, [])
    del noted[session.info.get(_MARKS, {}).pop(ended, 0) :]


@event.listens_for(Session, "after_transaction_end")
def _unmark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_MARKS, None)
