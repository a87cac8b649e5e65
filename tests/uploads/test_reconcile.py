"""The reconciler: tells where ledger and landing zone differ, and mends without deleting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from gateway.admin import reconcile
from gateway.batches.model import Batch
from gateway.bootstrap import Services
from tests.uploads.sending import CONTENT, OTHER, Books, Sender, address

Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def looked(services: Services) -> Callable[..., list[tuple[str, str, str | None]]]:
    def run(*, repair: bool = False) -> list[tuple[str, str, str | None]]:
        found = reconcile.run(services.sessions, services.zone, repair=repair, actor="admin")
        return sorted((each.kind, each.subject, each.done) for each in found.findings)

    return run


Looked = Callable[..., list[tuple[str, str, str | None]]]


def test_where_everything_fits_there_is_nothing_to_tell(
    acme: Sender, globex: Sender, books: Books, looked: Looked
) -> None:
    for sender in (acme, globex):
        batch = sender.batch()
        sender.put(batch)
        sender.put(batch, "b.csv", content=OTHER)
        sender.seal(batch)
        sender.put(sender.batch("open"))
    canceled = acme.batch("canceled")
    acme.put(canceled)
    acme.ask("DELETE", f"/v1/batches/{canceled}")
    before = books.actions()
    assert looked() == looked(repair=True) == []
    assert books.actions() == before
    books.check()


def test_a_published_file_that_no_row_knows_is_set_aside(
    acme: Sender, books: Books, looked: Looked
) -> None:
    batch = acme.batch()
    acme.put(batch)
    place = books.root / "acme" / "flights" / batch / "files"
    (place / "orphan.csv").write_bytes(OTHER)
    subject = f"{batch}/orphan.csv"
    assert looked() == [("file-without-row", subject, None)]
    assert books.on_disk(batch).keys() == {"a.csv", "orphan.csv"}
    assert looked(repair=True) == [("file-without-row", subject, "quarantined")]
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    assert books.set_aside() == [OTHER]
    assert looked() == []
    books.check()
    assert books.actions().count("gateway.reconciled") == 2


def test_files_of_no_batch_or_of_another_clients_are_set_aside(
    acme: Sender, books: Books, looked: Looked
) -> None:
    batch = acme.batch()
    acme.put(batch)
    for place in ("acme/flights/bat_nobodys", f"globex/weather/{batch}"):
        (books.root / place / "files").mkdir(parents=True)
        (books.root / place / "files" / "a.csv").write_bytes(OTHER)
    found = looked(repair=True)
    assert [each[0] for each in found] == ["file-without-batch"] * 2
    assert books.set_aside() == [OTHER, OTHER]
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    assert looked() == []


@pytest.mark.parametrize("kind", ["file-lost", "file-changed"])
def test_a_row_whose_bytes_are_not_there_is_marked_and_can_be_sent_again(
    acme: Sender, books: Books, looked: Looked, kind: str
) -> None:
    batch = acme.batch()
    acme.put(batch)
    place = books.root / "acme" / "flights" / batch / "files" / "a.csv"
    place.unlink() if kind == "file-lost" else place.write_bytes(b"cut")
    subject = f"{batch}/a.csv"
    assert looked() == [(kind, subject, None)]
    assert books.rows(batch) == {"a.csv": "complete"}
    assert looked(repair=True) == [(kind, subject, "marked as error")]
    assert books.rows(batch) == {"a.csv": "error"}
    sealed = acme.seal(batch)
    assert sealed.status_code == 409
    assert sealed.json()["errors"][0]["code"] == "damaged"
    assert acme.put(batch).status_code == 201
    assert looked() == []
    books.check()
    assert acme.seal(batch).status_code == 202


def test_rows_are_looked_at_a_page_at_a_time(
    acme: Sender, globex: Sender, books: Books, looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PAGE", 2)
    lost = []
    for sender in (acme, globex):
        batch = sender.batch()
        for name in ("a", "b", "c"):
            assert sender.put(batch, name).status_code == 201
        for name in ("a", "c"):
            next(books.root.glob(f"*/*/{batch}/files/{name}")).unlink()
            lost.append(("file-lost", f"{batch}/{name}", "marked as error"))
    assert looked(repair=True) == sorted(lost)
    assert looked() == []


def test_wrong_counters_are_corrected(
    acme: Sender, services: Services, books: Books, looked: Looked
) -> None:
    batch, empty = acme.batch(), acme.batch("empty")
    acme.put(batch)
    wrong = {"reserved_bytes": 7, "file_count": 3}
    with services.sessions.begin() as session:
        session.execute(update(Batch).where(Batch.id.in_([batch, empty])).values(wrong))
    expected = sorted([batch, empty])
    assert looked() == [("counter-wrong", each, None) for each in expected]
    assert looked(repair=True) == [("counter-wrong", each, "corrected") for each in expected]
    assert looked() == []
    books.check()
    assert books.of(empty).reserved_bytes == 0


def test_a_file_under_way_is_nobodys_orphan(
    acme: Sender, services: Services, books: Books, looked: Looked
) -> None:
    from gateway.database import new_id
    from gateway.landing.names import FileName
    from gateway.uploads.admission import admit
    from tests.batches.making import ACME

    batch = acme.batch()
    with services.sessions.begin() as session:
        admit(
            session,
            ACME,
            batch,
            FileName.parse("a.csv"),
            upload=new_id("upl"),
            expected_bytes=10,
        )
    place = books.root / "acme" / "flights" / batch / "files"
    place.mkdir(parents=True)
    (place / "a.csv").write_bytes(CONTENT)
    assert looked(repair=True) == []
    assert books.on_disk(batch) == {"a.csv": CONTENT}


def test_the_door_reports_and_repairs_for_administrators_only(
    client: TestClient, acme: Sender, books: Books, bearer: Bearer
) -> None:
    batch = acme.batch()
    acme.put(batch)
    (books.root / "acme" / "flights" / batch / "files" / "x").write_bytes(OTHER)
    assert client.post("/v1/admin/reconcile").status_code == 401
    for user in ("acme-operator", "auditor"):
        assert client.post("/v1/admin/reconcile", headers=bearer(user)).status_code == 403
    headers = bearer("admin")
    report = client.post("/v1/admin/reconcile", headers=headers).json()
    assert report["files_checked"] == 2
    assert [each["kind"] for each in report["findings"]] == ["file-without-row"]
    repaired = client.post("/v1/admin/reconcile?repair=true", headers=headers).json()
    assert repaired["findings"][0]["done"] == "quarantined"
    assert client.post("/v1/admin/reconcile", headers=headers).json()["findings"] == []
    assert acme.ask("GET", address(batch, "a.csv")).status_code == 200
    books.check()
