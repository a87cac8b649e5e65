"""A real object store for the tests marked ``s3``: Ceph's, started once a session."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import ceph
from deploy.local.ceph import ObjectStore
from gateway.landing.s3.settings import S3Settings
from tests.parts import free_port

BUCKET = "landing"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def object_store(run_dir: Path) -> Iterator[ObjectStore]:
    """A private store with an empty bucket. Tests leave it running and without a quota."""
    with ceph.start(run_dir / "ceph", free_port(), free_port()) as store:
        store.create_bucket(BUCKET)
        yield store


@pytest.fixture
def s3(object_store: ObjectStore) -> S3Settings:
    """A prefix of this test's own."""
    return S3Settings(
        bucket=BUCKET,
        prefix=f"tests/{next(_numbers)}",
        endpoint=object_store.endpoint,
        region=ceph.REGION,
        access_key_id=object_store.access_key_id,
        secret_access_key=object_store.secret_access_key,
        lease_seconds=2,
    )
