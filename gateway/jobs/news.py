"""What Airflow tells of a run on its own: a hint to look at it now, never the truth itself.

Nothing is kept. A hint that is lost costs time: whoever looks after runs finds them by asking.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.errors import NotFoundError
from gateway.jobs.model import Job
from gateway.jobs.reading import ENDED, ID, require_own_run
from gateway.jobs.views import RunNews

CHANNEL = "gateway_runs"


def pass_on(session: Session, job_id: str, said: RunNews) -> None:
    """Wake whoever looks after runs, once ``session`` commits; of an ended job nobody is told.

    Raises
    ------
    NotFoundError
        There is no such job.
    InvalidRequestError
        It is another DAG's or run's news.
    """
    job = session.get(Job, job_id) if ID.fullmatch(job_id) else None
    if job is None:
        raise NotFoundError
    require_own_run(job, said.dag_id, said.run_id)
    if job.state not in ENDED:
        session.execute(select(func.pg_notify(CHANNEL, f"{job.id} {said.state}")))
