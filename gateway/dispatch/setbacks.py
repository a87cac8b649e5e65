"""When an errand fails: how long to wait, what its job shows meanwhile, when to give up.

The decision is a value; each errand applies it in a transaction of its own.
"""

from __future__ import annotations

import random
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from gateway import logs
from gateway.audit import actions, trail
from gateway.dispatch import airflow_api
from gateway.dispatch.airflow_api import AirflowError
from gateway.dispatch.messenger import Messenger
from gateway.errors import GatewayError
from gateway.outbox import queue
from gateway.outbox.model import Message
from gateway.outbox.queue import Claim

ACTOR = "gateway"
FIRST_DELAY_SECONDS = 0.5
AWAY_SECONDS = 15.0
BLOCKED_SECONDS = 30.0
UNEXPECTED = "internal-error"

SERVER_ERROR = 500

_BLOCKS: Mapping[type[Exception], str] = MappingProxyType(
    {airflow_api.NotThereError: "dag-missing", airflow_api.BadRequestError: "dag-broken"}
)
_COUNTED = re.compile(r"([a-z-]+), (\d+) in a row")

log = logs.get("dispatch")


class RunTakenError(Exception):
    """Airflow has a run of this job's id that is not this job's."""


@dataclass(frozen=True, slots=True)
class Setback:
    """Why an errand is put off.

    Attributes
    ----------
    reason
        What the job shows as its ``waiting_reason``.
    blocks
        A person has to do something; otherwise time is enough.
    longest_seconds
        Bound of the delay before the next attempt.
    attempts
        How many such failures in a row are borne; None: any number.
    """

    reason: str
    blocks: bool = False
    longest_seconds: float = AWAY_SECONDS
    attempts: int | None = None


def of(error: Exception, max_attempts: int) -> Setback:
    """Judge a failure: what the outside world causes is borne for ever, what we cause is not."""
    if blocked := _BLOCKS.get(type(error)):
        return Setback(blocked, blocks=True, longest_seconds=BLOCKED_SECONDS)
    if isinstance(error, airflow_api.UnavailableError):
        return Setback(error.reason)
    if away := _part_away(error):
        return Setback(away)
    if isinstance(error, RunTakenError):
        return Setback("run-taken", attempts=1)
    reason = error.reason if isinstance(error, AirflowError) else UNEXPECTED
    return Setback(reason, attempts=max_attempts)


def _part_away(error: Exception) -> str | None:
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeoutError)):
        return "database-unavailable"
    if isinstance(error, GatewayError) and error.status >= SERVER_ERROR:
        return "storage-unavailable"
    return None


def delay_seconds(attempts: int, longest_seconds: float) -> float:
    """Return a random delay below a bound that doubles with each attempt (full jitter)."""
    bound = FIRST_DELAY_SECONDS * 2 ** min(attempts, 16)
    return random.uniform(0, min(bound, longest_seconds))  # noqa: S311 - spreads load, no secret


def apply(parts: Messenger, claim: Claim, error: Exception) -> Setback:
    """Judge a failure and put its message off: all there is to do for an errand without a job."""
    setback = of(error, parts.settings.worker.max_attempts)
    with parts.sessions.begin() as session:
        done = put_off(session, claim, setback)
    report(claim, setback, error, done)
    return setback


def report(claim: Claim, setback: Setback, error: Exception, done: str | None) -> None:
    """Log what became of a failure; never its text, which may be another system's."""
    trace = traceback.format_tb(error.__traceback__)[-3:] if setback.reason == UNEXPECTED else None
    log.warning(
        "errand_put_off",
        topic=claim.topic,
        key=claim.key,
        reason=setback.reason,
        kind=type(error).__name__,
        attempts=claim.attempts,
        outcome=done or "claim lapsed",
        trace=trace,
    )


def put_off(session: Session, claim: Claim, setback: Setback) -> str | None:
    """Defer a message, or set it aside once its failures are too many.

    Returns
    -------
    str or None
        ``deferred`` or ``quarantined``; None when the claim lapsed and nothing was changed.
    """
    failures = _failures(session, claim, setback) + 1
    error = setback.reason if setback.attempts is None else f"{setback.reason}, {failures} in a row"
    if setback.attempts is not None and failures >= setback.attempts:
        return _quarantine(session, claim, error)
    delay = delay_seconds(claim.attempts, setback.longest_seconds)
    return "deferred" if queue.defer(session, claim, delay_seconds=delay, error=error) else None


def _quarantine(session: Session, claim: Claim, error: str) -> str | None:
    if not queue.quarantine(session, claim, error=error):
        return None
    trail.record(
        session,
        actor=ACTOR,
        action=actions.MESSAGE_QUARANTINED,
        subject=claim.key,
        client=claim.lane,
        details={"topic": claim.topic, "error": error, "attempts": claim.attempts},
    )
    return "quarantined"


def _failures(session: Session, claim: Claim, setback: Setback) -> int:
    """Return how often the same failure came before; the claim's number counts other ones too."""
    message = session.get(Message, claim.id)
    counted = _COUNTED.fullmatch(message.last_error or "") if message else None
    return int(counted[2]) if counted and counted[1] == setback.reason else 0
