"""Asking which of many files a batch still needs."""

from __future__ import annotations

from typing import Any

import httpx

from tests.uploads.sending import CONTENT, OTHER, Books, Sender, sha256, slug


def declared(name: str, content: bytes = CONTENT, **other: Any) -> dict[str, Any]:
    return {"name": name, "size_bytes": len(content), "sha256": sha256(content), **other}


def ask(sender: Sender, batch: str, *files: dict[str, Any]) -> httpx.Response:
    return sender.ask("POST", f"/v1/batches/{batch}/files", json={"files": list(files)})


def test_each_file_is_needed_present_or_refused_with_the_reason(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch, "here.csv")
    answer = ask(
        acme,
        batch,
        declared("here.csv"),
        declared("new.csv"),
        declared("new.csv"),
        declared("HERE.csv"),
        declared("../x"),
        declared("huge.csv", size_bytes=2**50),
    )
    assert answer.status_code == 200
    found = [(each["status"], each["reason"]) for each in answer.json()["items"]]
    assert found == [
        ("present", None),
        ("needed", None),
        ("refused", "duplicate-name"),
        ("refused", "duplicate-name"),
        ("refused", "invalid-filename"),
        ("refused", "too-large"),
    ]
    other = ask(acme, batch, declared("here.csv", OTHER)).json()["items"][0]
    assert (other["status"], other["reason"]) == ("refused", "file-exists")
    assert acme.seal(batch).status_code == 202
    sealed = ask(acme, batch, declared("here.csv"), declared("new.csv")).json()["items"]
    assert [each["status"] for each in sealed] == ["present", "refused"]
    assert sealed[1]["reason"] == "batch-sealed"
    books.check()


def test_what_is_no_list_of_files_is_refused(acme: Sender, globex: Sender) -> None:
    batch = acme.batch()
    assert slug(ask(acme, batch)) == "invalid-request"
    assert slug(ask(acme, batch, *[declared(f"{n}") for n in range(1001)])) == "invalid-request"
    assert slug(ask(acme, batch, declared("a", sha256="A" * 64))) == "invalid-request"
    assert slug(ask(acme, batch, declared("a", size_bytes=-1))) == "invalid-request"
    assert slug(ask(globex, batch, declared("a"))) == "not-found"
    acme.ask("DELETE", f"/v1/batches/{batch}")
    assert slug(ask(acme, batch, declared("a"))) == "batch-closed"
