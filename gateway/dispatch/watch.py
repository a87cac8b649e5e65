"""Looking after active runs: what Airflow says of a run becomes what the gateway says of its job.

Each round asks Airflow one question: which of our runs changed lately? The answer's own ``Date``,
less an overlap, is where the next question begins, so the two hosts' clocks need not agree. Runs
are asked for by their ids when they are new to this watcher, and all of them now and then: that
finds what the short question cannot, such as a run that somebody deleted.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from gateway import logs
from gateway.dispatch import messenger, waiting
from gateway.dispatch.airflow_api import IDS_PER_REQUEST, AirflowError, Run
from gateway.dispatch.messenger import Messenger
from gateway.jobs import states
from gateway.jobs.model import Job
from gateway.jobs.states import ACTIVE
from gateway.jobs.transitions import FROM

# A change is written at one moment and visible at a later one; hosts' clocks differ a little.
OVERLAP = timedelta(seconds=5)
FULL_CHECK_SECONDS = 30.0
# A run must be gone for this long, seen twice, before its job is given up.
LOST_AFTER_SECONDS = 5.0
ABSENT_PER_ROUND = 20
# A run that is queued for longer than this has a reason worth telling, looked up this often.
WAITING_LONG_SECONDS = 5.0
EXPLAIN_SECONDS = 10.0

# States of a run that has ended.
OVER = ("success", "failed")

log = logs.get("dispatch")


@dataclass(slots=True)
class Watcher:
    """One watcher; what it remembers between rounds may be lost without harm."""

    parts: Messenger
    full_check_seconds: float = FULL_CHECK_SECONDS
    lost_after_seconds: float = LOST_AFTER_SECONDS
    waiting_long_seconds: float = WAITING_LONG_SECONDS
    explain_seconds: float = EXPLAIN_SECONDS
    _since: datetime | None = None
    _checked_at: float = 0.0
    _seen: set[str] = field(default_factory=set)
    _missed: dict[str, float] = field(default_factory=dict)
    _explained_at: float = 0.0

    def run_once(self) -> int:
        """Look once and move jobs forward.

        Returns
        -------
        int
            How many jobs have runs to look after.

        Raises
        ------
        AirflowError
            Airflow did not answer; nothing was forgotten.
        """
        active = self._active()
        self._forget_all_but(active)
        if active:
            token = self.parts.watcher_token()
            for run in self._look(token, active):
                self._follow(token, active[run.run_id], run)
            self._explain()
        return len(active)

    def look_at(self, hinted: Mapping[str, str]) -> set[str]:
        """Look at single jobs' runs now, because Airflow says that they have changed.

        Parameters
        ----------
        hinted
            Ids of jobs, and the state that each one's run is said to be in.

        Returns
        -------
        set of str
            The jobs whose runs are not there yet: Airflow tells before it commits.

        Raises
        ------
        AirflowError
        """
        query = select(Job).where(Job.id.in_(hinted), Job.state.in_(ACTIVE))
        with self.parts.sessions.begin() as session:
            jobs = {messenger.run_id(job.id): job for job in session.scalars(query)}
        late = {job.id for job in jobs.values()}
        token = self.parts.watcher_token() if jobs else ""
        for ids in _portions(list(jobs)):
            for run in self.parts.airflow_api.runs_by_id(token, ids).found:
                job = jobs[run.run_id]
                self._follow(token, job, run)
                if run.state in (hinted[job.id], *OVER):
                    late.discard(job.id)
        return late

    def _active(self) -> dict[str, Job]:
        query = select(Job).where(Job.state.in_(("dispatched", "running")))
        with self.parts.sessions.begin() as session:
            return {messenger.run_id(job.id): job for job in session.scalars(query)}

    def _forget_all_but(self, active: dict[str, Job]) -> None:
        self._seen &= active.keys()
        self._missed = {key: at for key, at in self._missed.items() if key in active}
        if not active:
            self._since = None

    def _explain(self) -> None:
        if time.monotonic() - self._explained_at >= self.explain_seconds:
            self._explained_at = time.monotonic()
            waiting.explain(self.parts, self.waiting_long_seconds)

    # --- asking -----------------------------------------------------------------------------

    def _look(self, token: str, active: dict[str, Job]) -> list[Run]:
        """Return what is known now of active runs."""
        api, first_at = self.parts.airflow_api, None
        since, due = self._since, self._due(active)
        found: dict[str, Run] = {}
        if since is not None and len(due) < len(active):
            changed = api.runs_updated_since(token, since - OVERLAP)
            first_at = changed.at
            found = {run.run_id: run for run in changed.found if run.run_id in active}
        for ids in _portions(due):
            named = api.runs_by_id(token, ids)
            first_at = first_at or named.at
            found |= {run.run_id: run for run in named.found}
            self._seen.update(run.run_id for run in named.found)
        self._since = first_at or since
        self._miss(token, [active[each] for each in due if each not in found], found)
        self._missed = {each: at for each, at in self._missed.items() if each not in found}
        return list(found.values())

    def _due(self, active: dict[str, Job]) -> list[str]:
        """Return the runs to ask for by id: all of them now and then, else those never seen."""
        now = time.monotonic()
        if self._since is None or now - self._checked_at >= self.full_check_seconds:
            self._checked_at = now
            return list(active)
        recent = {
            run_id for run_id, at in self._missed.items() if now - at < self.lost_after_seconds
        }
        return [each for each in active if each not in self._seen and each not in recent]

    def _miss(self, token: str, absent: Iterable[Job], found: dict[str, Run]) -> None:
        """Ask for absent runs one by one, and give those up that stay away."""
        for job in itertools.islice(absent, ABSENT_PER_ROUND):
            run_id = messenger.run_id(job.id)
            dag = messenger.dag_id(job.client, job.project)
            try:
                run = self.parts.airflow_api.get_run(token, dag, run_id)
            except AirflowError as error:
                # What was found of other runs counts all the same.
                log.warning("run_not_asked", job_id=job.id, kind=type(error).__name__)
                return
            if run is None:
                self._count_missed(job, run_id)
            else:
                found[run_id] = run
                self._seen.add(run_id)

    def _count_missed(self, job: Job, run_id: str) -> None:
        # Not seen any more, hence asked for again after a while.
        self._seen.discard(run_id)
        first_missed = self._missed.setdefault(run_id, time.monotonic())
        if time.monotonic() - first_missed >= self.lost_after_seconds:
            self._give_up(job)

    # --- telling ----------------------------------------------------------------------------

    def _follow(self, token: str, job: Job, run: Run) -> None:
        """Move one job to where its run stands. Another job's trouble is not this one's."""
        try:
            # A run may be heard of before its trigger is settled here.
            if run.state == "running" and job.state in FROM["running"]:
                with self.parts.sessions.begin() as session:
                    states.move(session, job.id, "running")
            elif run.state == "success":
                self._finish(job, "success")
            elif run.state == "failed":
                self._finish(job, "failed", self._failed_step(token, job, run))
        except Exception as error:  # noqa: BLE001 - asked for by id again in the next round
            self._seen.discard(run.run_id)
            log.warning("run_not_followed", job_id=job.id, kind=type(error).__name__)

    def _failed_step(self, token: str, job: Job, run: Run) -> str | None:
        """Return the task Airflow knows to have failed, where no task said so itself."""
        if job.error_code is not None or job.cancel_requested_at is not None:
            return None
        failed = self.parts.airflow_api.failed_tasks(token, run.dag_id, run.run_id)
        return failed[0] if failed else None

    def _finish(self, job: Job, state: states.RunState, failed_step: str | None = None) -> None:
        with self.parts.sessions.begin() as session:
            moved = states.finish(session, job.id, state, failed_step)
        if moved is not None:
            log.info("job_finished", job_id=job.id, state=moved.state)

    def _give_up(self, job: Job) -> None:
        with self.parts.sessions.begin() as session:
            states.finish(session, job.id, "lost")
        log.warning("run_lost", job_id=job.id)


def _portions(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(ids), IDS_PER_REQUEST):
        yield ids[start : start + IDS_PER_REQUEST]
