"""Whole deliveries: new, interrupted, repeated, contradicted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.sdk import delivery, files
from gateway.sdk.client import GatewayClient
from gateway.sdk.delivery import Order
from gateway.sdk.files import LocalFile
from gateway.sdk.problems import (
    DeliveryError,
    GatewayProblem,
    ReceiptError,
    UnusableFilesError,
)
from gateway.sdk.records import Batch
from tests.fakes.gateway_api import Fault, State

Write = Callable[[str, bytes], Path]


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, bool]] = []
        self.skipped: dict[str, bool] = {}

    def found(self, batch: Batch, *, is_new: bool) -> None:
        self.batches.append((batch.id, is_new))

    def sent(self, path: Path, sent_bytes: int) -> None:
        pass

    def stored(self, file: LocalFile, *, skipped: bool) -> None:
        self.skipped[file.name] = skipped


@pytest.fixture
def order(write: Write) -> Order:
    paths = [write(f"part-{n}.csv", os.urandom(1000 + n)) for n in range(6)]
    return Order("flights", "2013-01", paths)


def _only_batch(api: State) -> dict[str, object]:
    (batch,) = api.batches.values()
    return batch


def test_new_delivery_is_sealed_with_exactly_its_files(
    api: State, gateway: GatewayClient, order: Order
) -> None:
    terms = replace(
        order,
        mode="validate",
        period={"start": "2013-01-01", "end": "2013-01-31"},
        metadata={"source": "crm"},
    )
    delivered = delivery.deliver(gateway, terms, Notes())
    batch = _only_batch(api)
    assert (batch["state"], batch["mode"], batch["period"], batch["metadata"]) == (
        "sealed",
        "validate",
        {"start": "2013-01-01", "end": "2013-01-31"},
        {"source": "crm"},
    )
    assert {name: content for (_, name), content in api.contents.items()} == {
        path.name: path.read_bytes() for path in order.paths
    }
    assert delivered.job in api.jobs
    assert delivered.receipt.files.keys() == {path.name for path in order.paths}


def test_interrupted_delivery_goes_on_where_it_stopped(
    api: State, gateway: GatewayClient, order: Order
) -> None:
    api.faults.append(Fault("PUT", ".*/part-3.csv", "refuse", status=413, slug="too-large"))
    with pytest.raises(GatewayProblem, match="too-large"):
        delivery.deliver(gateway, order, Notes(), parallel=1)
    sent_before = [file["name"] for file in _only_batch(api)["files"]]  # type: ignore[attr-defined]
    assert sent_before == ["part-0.csv", "part-1.csv", "part-2.csv"]

    api.requests.clear()
    notes = Notes()
    delivered = delivery.deliver(gateway, order, notes)
    assert api.count("PUT .*") == 3
    assert delivered.skipped == set(sent_before)
    assert notes.skipped == {path.name: path.name in sent_before for path in order.paths}
    assert notes.batches == [(delivered.batch, False)]


def test_delivery_survives_a_bad_network(api: State, gateway: GatewayClient, order: Order) -> None:
    api.faults += [
        Fault("POST", "/v1/token", "refuse"),
        Fault("POST", "/v1/batches", "lose"),
        Fault("PUT", ".*", "cut", times=3, after_bytes=500),
        Fault("PUT", ".*", "lose", times=2),
        Fault("PUT", ".*", "refuse", times=2, status=429, slug="rate-limited"),
        Fault("POST", ".*/seal", "lose"),
        Fault("GET", ".*/receipt", "refuse"),
        Fault("GET", "/.well-known/jwks.json", "cut"),
    ]
    delivered = delivery.deliver(gateway, order, Notes())
    assert not any(fault.times for fault in api.faults)
    assert list(api.batches) == [delivered.batch]
    assert list(api.jobs) == [delivered.job]
    assert len(api.contents) == 6


def test_repeated_delivery_is_only_verified(
    api: State, gateway: GatewayClient, order: Order
) -> None:
    first = delivery.deliver(gateway, order, Notes())
    api.requests.clear()
    again = delivery.deliver(gateway, order, Notes())
    assert (again.batch, again.job) == (first.batch, first.job)
    assert again.skipped == {path.name for path in order.paths}
    assert api.count("PUT .*|POST .*/seal") == 0
    assert api.count("GET .*/receipt") == 1


def test_other_files_under_a_sealed_reference_are_refused(
    api: State, gateway: GatewayClient, order: Order, write: Write
) -> None:
    delivery.deliver(gateway, order, Notes())
    write("part-0.csv", b"corrected")
    with pytest.raises(DeliveryError, match=r"use another reference(.|\n)*part-0\.csv differs"):
        delivery.deliver(gateway, order, Notes())
    fewer = replace(order, paths=order.paths[1:])
    with pytest.raises(DeliveryError, match=r"part-0\.csv is in the receipt but not here"):
        delivery.deliver(gateway, fewer, Notes())
    assert len(api.batches) == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mode": "validate"}, "mode"),
        ({"metadata": {"source": "other"}}, "metadata"),
        ({"period": {"start": "2013-01-01", "end": "2013-01-31"}}, "period"),
    ],
)
def test_delivery_begun_on_other_terms_is_not_finished(
    api: State, gateway: GatewayClient, order: Order, changes: dict[str, object], word: str
) -> None:
    gateway.create_batch("flights", "2013-01", metadata={"source": "crm"})
    with pytest.raises(DeliveryError, match=f"begun with {word}"):
        delivery.deliver(gateway, replace(order, **changes), Notes())  # type: ignore[arg-type]
    assert api.count("PUT .*") == 0


def test_surplus_and_outdated_files_are_removed_only_when_asked_for(
    api: State, gateway: GatewayClient, order: Order, write: Write
) -> None:
    batch = gateway.create_batch("flights", "2013-01")
    gateway.put_file(batch.id, files.inspect(write("surplus.csv", b"1")))
    with pytest.raises(DeliveryError, match=r"surplus\.csv.*--replace"):
        delivery.deliver(gateway, order, Notes())
    gateway.delete_file(batch.id, "surplus.csv")

    gateway.put_file(batch.id, files.inspect(order.paths[0]))
    write("part-0.csv", b"corrected")
    with pytest.raises(DeliveryError, match=r"part-0\.csv.*--replace"):
        delivery.deliver(gateway, order, Notes())

    write("surplus.csv", b"1")
    gateway.put_file(batch.id, files.inspect(write("surplus.csv", b"1")))
    delivered = delivery.deliver(gateway, replace(order, replace=True), Notes())
    assert delivered.receipt.files.keys() == {path.name for path in order.paths}
    assert api.contents[batch.id, "part-0.csv"] == b"corrected"


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []},
        {"project": "weather"},
        {"reference": "2013-02"},
        {"batch": "bat_other"},
    ],
)
def test_receipt_that_does_not_name_what_was_sent_is_an_error(
    api: State, gateway: GatewayClient, order: Order, changes: dict[str, object]
) -> None:
    api.manifest_changes = changes
    with pytest.raises(ReceiptError):
        delivery.deliver(gateway, order, Notes())


def test_receipt_with_another_digest_is_an_error(
    api: State, gateway: GatewayClient, order: Order
) -> None:
    local = [files.inspect(path) for path in order.paths]
    named = [{"name": f.name, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in local]
    named[2]["sha256"] = "0" * 64
    api.manifest_changes = {"files": named}
    with pytest.raises(ReceiptError, match=r"part-2\.csv differs"):
        delivery.deliver(gateway, order, Notes())


def test_first_refused_file_stops_the_others(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    paths = [write(f"{n:02d}.csv", b"x") for n in range(40)]
    api.faults.append(Fault("PUT", ".*", "refuse", times=99, status=413, slug="too-large"))
    started = time.monotonic()
    with pytest.raises(GatewayProblem, match="too-large"):
        delivery.deliver(gateway, Order("flights", "2013-01", paths), Notes(), parallel=4)
    assert api.count("PUT .*") < 20
    assert time.monotonic() - started < 5.0
    assert gateway.get_batch(next(iter(api.batches))).state == "open"


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["a/x.csv", "b/x.csv"], "same name"),
        (["a/X.csv", "b/x.csv"], "same name"),
        (["a/e\u0301.csv", "b/\u00e9.csv"], "same name"),
        ([], "no files"),
    ],
)
def test_unusable_list_of_files_sends_nothing(
    api: State, gateway: GatewayClient, write: Write, names: list[str], word: str
) -> None:
    paths = [write(name, b"1") for name in names]
    with pytest.raises(UnusableFilesError, match=word):
        delivery.deliver(gateway, Order("flights", "2013-01", paths), Notes())
    assert not api.requests


def test_missing_files_and_folders_are_all_named(
    api: State, gateway: GatewayClient, tmp_path: Path
) -> None:
    order = Order("flights", "2013-01", [tmp_path / "absent.csv", tmp_path])
    with pytest.raises(UnusableFilesError, match=r"absent\.csv(.|\n)*is not a file"):
        delivery.deliver(gateway, order, Notes())
    assert not api.requests


def test_of_many_files_only_those_are_sent_that_are_not_there_by_then(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    paths = [write(f"{n}.csv", b"%d" % n) for n in range(20)]
    order = Order("flights", "many", paths)
    batch = gateway.create_batch("flights", "many")

    class Elsewhere(Notes):
        """Somebody else sends half of them once this one has looked at the batch."""

        def found(self, batch: Batch, *, is_new: bool) -> None:
            super().found(batch, is_new=is_new)
            for path in paths[::2]:
                gateway.put_file(batch.id, files.inspect(path))

    notes = Elsewhere()
    delivered = delivery.deliver(gateway, order, notes)
    assert delivered.batch == batch.id
    assert delivered.skipped == {path.name for path in paths[::2]}
    assert [file.name for file in delivered.files] == [path.name for path in paths]
    assert api.count("PUT .*") == 20
    assert api.count("POST .*/files") == 1


def test_a_few_files_are_sent_without_asking(
    api: State, gateway: GatewayClient, order: Order
) -> None:
    delivery.deliver(gateway, order, Notes())
    assert api.count("POST .*/files") == 0


def test_a_gateway_that_cannot_be_asked_is_sent_all(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    missing = Fault("POST", "/v1/batches/[^/]*/files", "refuse", status=404, slug="not-found")
    api.faults.append(missing)
    paths = [write(f"{n}.csv", b"%d" % n) for n in range(9)]
    delivered = delivery.deliver(gateway, Order("flights", "old", paths), Notes())
    assert len(delivered.files) == api.count("PUT .*") == 9
