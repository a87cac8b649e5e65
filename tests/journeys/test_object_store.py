"""A task and its client's part of an object store: lent by the real stack, on a real Ceph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.local import ceph
from deploy.local.ceph import ObjectStore
from tests.journeys import borrowing
from tests.journeys.borrowing import until
from tests.journeys.conftest import Stack, started

pytestmark = pytest.mark.s3
BUCKET = "shared"
CONTENT = "a,b\n1,2\n"


@pytest.fixture(scope="module")
def shared(object_store: ObjectStore) -> ObjectStore:
    """A bucket in which two clients have something, of one name."""
    object_store.create_bucket(BUCKET)
    owner = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint,
        region_name=ceph.REGION,
        aws_access_key_id=object_store.access_key_id,
        aws_secret_access_key=object_store.secret_access_key,
    )
    for client in ("acme", "globex"):
        owner.put_object(Bucket=BUCKET, Key=f"{client}/probe.parquet", Body=client.encode())
    return object_store


@pytest.fixture(scope="module")
def lending(shared: ObjectStore, run_dir: Path) -> Iterator[Stack]:
    """A stack that lends parts of that bucket."""
    account, secret = shared.lessor()
    settings = {
        "BUCKET": BUCKET,
        "ENDPOINT": shared.endpoint,
        "REGION": ceph.REGION,
        "ACCESS_KEY_ID": account,
        "SECRET_ACCESS_KEY": secret,
    }
    more = run_dir / "lending.env"
    more.write_text("".join(f"GATEWAY_LEASES_S3_{each}={settings[each]}\n" for each in settings))
    with started(run_dir / "lending", STACK_GATEWAY_ENV=str(more)) as found:
        borrowing.onboard_probe(found)
        yield found


def delivered(stack: Stack, path: Path) -> tuple[str, dict[str, Any]]:
    path.write_text(CONTENT)
    job = borrowing.deliver(stack, path)
    return job, borrowing.findings(stack, borrowing.OWN, f"gw.{job}")


def states(stack: Stack, job: str) -> dict[str, str]:
    return {each["resource"]: each["state"] for each in borrowing.leases(stack, job)}


def test_a_task_is_lent_its_clients_part_of_a_bucket_and_nothing_beside_it(
    lending: Stack, tmp_path: Path
) -> None:
    job, found = delivered(lending, tmp_path / "1.csv")
    assert found["client_s3"] == {
        "own": [42],
        "listed": [42],
        "all": "denied",
        "foreign": "denied",
    }
    until(lambda: set(states(lending, job).values()) == {"revoked"}, seconds=30, pause=1)
    assert "s3" in states(lending, job)


def test_while_the_store_is_away_a_task_is_told_so_and_nothing_is_left_of_its_lease(
    lending: Stack, shared: ObjectStore, tmp_path: Path
) -> None:
    shared.kill()
    try:
        job, found = delivered(lending, tmp_path / "2.csv")
    finally:
        shared.serve()
    assert isinstance(found["client_s3"], str), "it is an error's name"
    assert found["client_postgres"]["answer"] == 42, "the others are lent as ever"
    until(lambda: states(lending, job).get("s3") == "revoked", seconds=90, pause=2)
    _, again = delivered(lending, tmp_path / "3.csv")
    assert again["client_s3"]["own"] == [42]
