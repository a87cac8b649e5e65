"""Three clients' DAGs in miniature, and one that only looks as if it were a client's.

The other client's DAG carries marks (``xq-…``) wherever Airflow keeps text of its own about a DAG.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, Param


def own(dag_id: str) -> None:
    with DAG(dag_id, schedule=None, is_paused_upon_creation=False, tags=["client:acme"]):
        EmptyOperator(task_id="process") >> EmptyOperator(task_id="publish")


for name in ("acme__flights", "acme__hotels", "acme__stray"):
    own(name)

with DAG(
    "globex__orders",
    dag_display_name="xq-display",
    description="xq-description",
    doc_md="xq-doc",
    schedule="@daily",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    is_paused_upon_creation=True,
    tags=["client:globex", "xq-tag"],
    default_args={"owner": "xq-owner"},
    params={"secret": Param("xq-param", type="string")},
):
    EmptyOperator(task_id="globex_process", doc_md="xq-taskdoc") >> EmptyOperator(
        task_id="globex_publish", outlets=[Asset("xq-asset://globex/orders")], pool="client-globex"
    )
