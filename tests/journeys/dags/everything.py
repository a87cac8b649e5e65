"""The factory's DAGs, but for one project's, which uses each connection; and one that is nobody's.

What a task found is written beside the staged files: a finding may hold no secret.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import psycopg2
from airflow.sdk import DAG, BaseHook, get_current_context, task

REPOSITORY = Path(__file__).parents[3]
OWN, SPOOF = "acme__probe", "acme__spoof"
NOT_ITS_OWN = ("client_hdfs", "client_", "globex_postgres", "everybodys", "client_x y")


def others() -> dict[str, DAG]:
    """Return the DAGs that the factory builds of the other projects."""
    given = os.environ["INGEST_REGISTRY_PATH"]
    document = json.loads(Path(given).read_text(encoding="utf-8"))
    document["projects"] = [each for each in document["projects"] if each["dag_id"] != OWN]
    spec = importlib.util.spec_from_file_location("factory", REPOSITORY / "airflow/dags/factory.py")
    assert spec is not None
    assert spec.loader is not None
    factory = importlib.util.module_from_spec(spec)
    # Airflow takes in every DAG that is built while it reads a file: this one must never be.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as registry:
        json.dump(document, registry)
        registry.flush()
        os.environ["INGEST_REGISTRY_PATH"] = registry.name
        try:
            spec.loader.exec_module(factory)
        finally:
            os.environ["INGEST_REGISTRY_PATH"] = given
    return {name: each for name, each in vars(factory).items() if isinstance(each, DAG)}


globals().update(others())


def use_postgres() -> dict[str, Any]:
    """Make a table as the client does, and look who we are."""
    given = BaseHook.get_connection("client_postgres")
    with psycopg2.connect(
        host=given.host,
        port=given.port,
        dbname=given.schema,
        user=given.login,
        password=given.password,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE IF NOT EXISTS probe AS SELECT 42 AS answer")
        cursor.execute("SELECT session_user::text, current_user::text, answer FROM probe")
        session_user, current_user, answer = cursor.fetchone()
    return {"role": session_user, "acts_as": current_user, "answer": answer}


def use_landing() -> list[str]:
    """Look into the batch's folder."""
    given = BaseHook.get_connection("client_landing")
    folder = Path(given.extra_dejson["path"]) / "files"
    return sorted(each.name for each in folder.iterdir())


def use_directory() -> int:
    """Bind; 0 is LDAP's success."""
    given = BaseHook.get_connection("client_directory")
    # This is about the account; that the directory is who it says is tested elsewhere.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wanted = _element(0x02, b"\x03") + _element(0x04, str(given.login).encode())
    wanted += _element(0x80, str(given.password).encode())
    request = _element(0x30, _element(0x02, b"\x01") + _element(0x60, wanted))
    with (
        socket.create_connection((given.host, given.port), timeout=5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(request)
        answer = connection.recv(200)
    # SEQUENCE, messageID, then BindResponse, whose first element is the result code.
    return answer[answer.index(b"\x61") + 4]


def use_s3() -> dict[str, Any]:
    """Write and read in the client's part of the bucket; look into another's, and into all."""
    given = BaseHook.get_connection("client_s3")
    extra = given.extra_dejson
    options = {
        "aws_access_key_id": str(given.login),
        "aws_secret_access_key": str(given.password),
        "aws_session_token": extra["aws_session_token"],
        "aws_endpoint_url": extra["endpoint_url"],
        "aws_region": extra["region_name"],
        "aws_allow_http": "true",
    }
    bucket = f"s3://{extra['bucket']}"
    own = f"{bucket}/{extra['prefix']}probe.parquet"
    pl.DataFrame({"answer": [42]}).write_parquet(own, storage_options=options)

    def answers(place: str) -> Any:
        return pl.read_parquet(place, storage_options=options)["answer"].to_list()

    return {
        "own": answers(own),
        "listed": answers(f"{bucket}/{extra['prefix']}*.parquet"),
        "all": _told(lambda: answers(f"{bucket}/*/probe.parquet")),
        "foreign": _told(lambda: answers(f"{bucket}/globex/probe.parquet")),
    }


def _told(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (OSError, pl.exceptions.PolarsError) as error:
        return "denied" if "403" in str(error) else str(error)
    return "given"


def _element(tag: int, content: bytes) -> bytes:
    if len(content) > 127:
        return bytes([tag, 0x81, len(content)]) + content
    return bytes([tag, len(content)]) + content


USES: dict[str, Callable[[], Any]] = {
    "client_postgres": use_postgres,
    "client_landing": use_landing,
    "client_directory": use_directory,
    "client_s3": use_s3,
}


def look() -> None:
    """Use everything, and write down what came of it."""
    context = get_current_context()
    findings: dict[str, Any] = {}
    for name in (*USES, *NOT_ITS_OWN):
        try:
            findings[name] = USES[name]() if name in USES else _taken(name)
        except Exception as error:  # noqa: BLE001 - which one it is, is what is looked at
            findings[name] = type(error).__name__
    instance = context["ti"]
    text = json.dumps(findings, indent=1)
    name = f"{instance.dag_id}.{instance.run_id}.{instance.try_number}.json"
    path = Path(os.environ["INGEST_STAGED_DIR"]) / name
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.replace(path)


def _taken(name: str) -> str:
    BaseHook.get_connection(name)
    return "given"


for dag_id in (OWN, SPOOF):
    with DAG(dag_id, schedule=None, is_paused_upon_creation=False, tags=["client:acme"]) as dag:
        task(task_id="process")(look)()
    globals()[dag_id] = dag
