"""Waiting for a job without a worker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from gateway.provider.hooks import GatewayHook
from gateway.sdk.display import describe
from gateway.sdk.problems import ClientError, FollowTimeoutError
from gateway.sdk.records import Job


class GatewayJobTrigger(BaseTrigger):
    """Fires when a job has ended, when the time is up, or when the gateway refuses to say.

    Parameters
    ----------
    until
        When the time is up, in seconds since 1970: another triggerer, which takes over, is not to
        begin to count anew.
    cancel_on_kill
        Whether the job is to be ended when a person ends the task.
    """

    def __init__(
        self, *, gateway_conn_id: str, job_id: str, until: float, cancel_on_kill: bool = True
    ) -> None:
        super().__init__()
        self.gateway_conn_id = gateway_conn_id
        self.job_id = job_id
        self.until = until
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process needs to wait in this one's place; no secret is in it."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "gateway_conn_id": self.gateway_conn_id,
                "job_id": self.job_id,
                "until": self.until,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and say once what came of it."""
        left_seconds = max(0.0, self.until - time.time())
        try:
            async with await GatewayHook(self.gateway_conn_id).watch() as watch:
                job = await watch.follow(self.job_id, self._tell, timeout_seconds=left_seconds)
        except FollowTimeoutError as error:
            yield self._event(outcome="timeout", reason=str(error))
        except (ClientError, ValueError) as error:
            yield self._event(outcome="unknown", reason=str(error))
        else:
            yield self._event(outcome=job.state, reason=job.error)

    async def on_kill(self) -> None:
        """Cancel the job, for a person has ended the task: not for a triggerer that stops."""
        if not self.cancel_on_kill:
            return
        try:
            async with await GatewayHook(self.gateway_conn_id).watch() as watch:
                job = await watch.cancel(self.job_id)
        except (ClientError, ValueError) as error:
            self.log.warning("%s could not be canceled: %s", self.job_id, error)
        else:
            self._tell(job)

    def _event(self, *, outcome: str, reason: str) -> TriggerEvent:
        return TriggerEvent({"job_id": self.job_id, "outcome": outcome, "reason": reason})

    def _tell(self, job: Job) -> None:
        self.log.info("%s", describe(job))
