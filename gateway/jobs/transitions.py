"""The one table of a job's allowed transitions, and what goes with each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.audit import actions
from gateway.jobs.reading import ACTIVE, ENDED

# What a job may become, and from what. A task may report before the trigger is settled, so a
# queued job can be found running; a run whose every report was lost is dispatched to its end.
FROM: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "queued": frozenset({"blocked"}),
        "blocked": frozenset({"queued"}),
        "dispatched": frozenset({"queued", "blocked"}),
        "running": frozenset({"queued", "blocked", "dispatched"}),
        "succeeded": frozenset({"dispatched", "running"}),
        "partially_succeeded": frozenset({"dispatched", "running"}),
        "failed": ACTIVE,
        "canceled": ACTIVE,
    }
)

# What each move is called in the audit trail; an end that is none of these is "finished".
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "queued": actions.JOB_QUEUED,
        "blocked": actions.JOB_BLOCKED,
        "dispatched": actions.JOB_DISPATCHED,
        "running": actions.JOB_STARTED,
        "canceled": actions.JOB_CANCELED,
    }
)

# The columns that a move sets to now, unless they are set.
TIMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dispatched": ("dispatched_at",),
        "running": ("dispatched_at", "started_at"),
        **dict.fromkeys(ENDED, ("finished_at",)),
    }
)
