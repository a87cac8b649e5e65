"""The pipeline's three steps over one landed delivery, as a job's tasks carry them out.

Run in Airflow's environment: ``python pipeline_ours.py FOLDER CONTRACT WORKERS``; ``FOLDER`` has the
delivery's files in ``landing/acme/flights/<batch>/files``. Airflow itself takes no part: what its
scheduling costs is another figure. Prints what each step took, in seconds.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey

from pipeline.delivery import Delivery
from pipeline.plan import make_plan
from pipeline.process import process_group
from pipeline.publish import publish_batch
from pipeline.staging import Plan

BATCH = "bat_00000000000000000000000001"
JOB = "job_00000000000000000000000001"


def main() -> int:
    """Seal the delivery, then measure."""
    folder, contract, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    roots = [folder / name for name in ("landing", "staged", "curated")]
    for root in roots:
        root.mkdir(exist_ok=True)
    delivery = Delivery(JOB, BATCH, "acme", "flights", 1, *roots)
    jwks = _sealed(roots[0].joinpath(*delivery.landed))
    with _workers(workers, threads=1) as wide, _workers(1, threads=workers) as one:
        print(json.dumps(_measured(delivery, json.loads(contract.read_text()), jwks, wide, one)))
    return 0


def _workers(count: int, *, threads: int) -> ProcessPoolExecutor:
    """Start processes that wait for work; those of a wide step have a core each."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    list(pool.map(_warm, range(count * 4)))
    return pool


def _warm(_: int) -> None:
    time.sleep(0.2)  # so that every worker takes one


def _measured(
    delivery: Delivery,
    contract: dict[str, Any],
    jwks: dict[str, Any],
    wide: ProcessPoolExecutor,
    one: ProcessPoolExecutor,
) -> dict[str, float]:
    tolerance = {"policy": "reject-rows", "max_rows": 0, "max_percent": 100}
    began = time.perf_counter()
    groups = one.submit(_plan, delivery, contract, tolerance, jwks).result()
    planned = time.perf_counter()
    list(wide.map(_process, [delivery] * groups, range(groups)))
    processed = time.perf_counter()
    rows = one.submit(_publish, delivery).result()
    ended = time.perf_counter()
    return {
        "seconds": ended - began,
        "plan": planned - began,
        "process": processed - planned,
        "publish": ended - processed,
        "tasks": groups,
        "rows": rows,
    }


def _plan(
    delivery: Delivery, contract: dict[str, Any], tolerance: dict[str, Any], jwks: dict[str, Any]
) -> int:
    return len(make_plan(delivery, contract, tolerance, jwks).groups)


def _process(delivery: Delivery, index: int) -> None:
    process_group(delivery, Plan.read(delivery), index)


def _publish(delivery: Delivery) -> int:
    return int(publish_batch(delivery, Plan.read(delivery)).loaded)


def _sealed(batch: Path) -> dict[str, Any]:
    """Write manifest and receipt as the gateway does; return the keys that verify them."""
    key = ECKey.generate_key("P-256", {"kid": "bench", "use": "sig", "alg": "ES256"})
    golden = Path(__file__).parents[3] / "airflow/contract/manifest.json"
    files = [
        {"name": each.name, "sha256": _digest(each), "size_bytes": each.stat().st_size}
        for each in sorted((batch / "files").iterdir())
    ]
    document = {**json.loads(golden.read_text()), "batch": BATCH, "files": files}
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    (batch / "manifest.json").write_bytes(content)
    header = {"alg": "ES256", "kid": "bench", "typ": "receipt+jws"}
    receipt = jws.serialize_compact(header, content, key, algorithms=["ES256"])
    (batch / "receipt.jws").write_text(receipt)
    return {"keys": [key.as_dict(private=False)]}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
