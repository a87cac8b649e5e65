"""The errand ``client.pool``: a client's share of Airflow's workers has the size it should."""

from __future__ import annotations

from gateway.dispatch import setbacks
from gateway.dispatch.messenger import Messenger
from gateway.dispatch.setbacks import Setback
from gateway.outbox import queue
from gateway.outbox.queue import Claim

TOPIC = "client.pool"


def carry(parts: Messenger, claim: Claim) -> Setback | None:
    """Make or resize a client's pool.

    Returns
    -------
    Setback or None
        Why it was put off; None when there is nothing left to do.
    """
    wanted = claim.payload
    try:
        token = parts.pools_token(wanted["client"])
        parts.airflow_api.ensure_pool(token, wanted["pool"], wanted["slots"])
        with parts.sessions.begin() as session:
            queue.settle(session, claim)
    except Exception as error:  # noqa: BLE001 - every failure is judged in one place
        return setbacks.apply(parts, claim, error)
    return None
