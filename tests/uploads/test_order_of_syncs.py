"""What the kernel was asked to do, in which order: an acknowledgement comes after everything else.

Killing the process cannot show this, for the page cache survives it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.tracing import traced
from tests.parts import GatewayServer
from tests.uploads.sending import CONTENT, OTHER, Books, Sender, digest

CALLS = "fsync,fdatasync,renameat2,linkat,write,writev,sendto,sendmsg,recvfrom,read"
LINE = re.compile(r"^(\d+) +(.*)$")


@dataclass(frozen=True)
class Call:
    """One system call; the numbers are those of the lines at which it began and ended."""

    text: str
    began: int
    ended: int


def parsed(log: Path) -> list[Call]:
    """Put together what strace tore apart because another thread was at it too."""
    calls: list[Call] = []
    pending: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(log.read_text(errors="replace").splitlines()):
        found = LINE.match(line)
        if found is None:
            continue
        thread, text = found.groups()
        if text.endswith("<unfinished ...>"):
            pending[thread] = (text.removesuffix("<unfinished ...>"), number)
        elif text.startswith("<... "):
            head, began = pending.pop(thread, ("", number))
            calls.append(Call(head + text.partition("resumed>")[2], began, number))
        else:
            calls.append(Call(text, number, number))
    return calls


def the(calls: list[Call], pattern: str) -> Call:
    """Return the only call that looks like this."""
    found = [call for call in calls if re.search(pattern, call.text)]
    assert len(found) == 1, (pattern, [call.text for call in found])
    return found[0]


# By its text where the connection sends it for the first time, else by the values it is given.
INSERTED = r"(INSERT INTO file |EXECUTE gateway_\d+\('\[\{\\\"batch_id)"


@pytest.mark.parametrize(
    ("body", "record"),
    [(CONTENT, INSERTED), (CONTENT * 10_000, "UPDATE file SET state")],
    ids=["small", "large"],
)
def test_bytes_name_and_record_are_durable_in_this_order_before_the_201(
    server: GatewayServer, wired: Sender, tmp_path: Path, body: bytes, record: str
) -> None:
    batch = wired.batch()
    assert wired.put(batch, "first.csv", content=OTHER).status_code == 201
    with traced(server.pid, tmp_path / "strace.log", CALLS):
        assert wired.put(batch, content=body).status_code == 201
    calls = parsed(tmp_path / "strace.log")
    synced = the(calls, r"^f(data)?sync\(\d+</[^>]*/\.parts/upl_\w+>\) *= 0")
    written = [call for call in calls if re.match(r"^writev?\(\d+</[^>]*/\.parts/upl_", call.text)]
    published = the(calls, r"^renameat2\(.*\"upl_\w+\".*\"a\.csv\", RENAME_NOREPLACE\) *= 0")
    directory = the(calls, r"^fsync\(\d+</[^>]*/files>\) *= 0")
    recorded = the(calls, rf"^sendto\(.*{record}")
    asked = [call for call in calls if re.match(r"^sendto\(.*\"Q.*COMMIT", call.text)]
    commit = next(call for call in asked if call.began > recorded.ended)
    committed = next(
        call for call in calls if call.ended > commit.ended and "COMMIT\\0Z" in call.text
    )
    answered = the(calls, r"^(write|writev|sendto|sendmsg)\(.*HTTP/1\.1 201")
    steps = [written[-1], synced, published, directory, recorded, commit, committed, answered]
    for earlier, later in itertools.pairwise(steps):
        assert earlier.ended < later.began, (earlier, later)


def test_what_is_refused_for_its_digest_is_never_published(
    server: GatewayServer, wired: Sender, books: Books, tmp_path: Path
) -> None:
    batch = wired.batch()
    with traced(server.pid, tmp_path / "strace.log", CALLS):
        answer = wired.put(batch, repr_digest=digest(OTHER))
        assert answer.status_code == 422
    calls = parsed(tmp_path / "strace.log")
    assert not [call for call in calls if re.match(r"renameat2|linkat", call.text)]
    assert [call for call in calls if re.match(r"^writev?\(\d+</[^>]*/\.parts/upl_", call.text)]
    books.check_nothing(batch)


def test_a_directory_that_is_new_is_made_durable_from_the_top(
    server: GatewayServer, wired: Sender, tmp_path: Path
) -> None:
    batch = wired.batch()
    with traced(server.pid, tmp_path / "strace.log", CALLS):
        assert wired.put(batch).status_code == 201
    calls = parsed(tmp_path / "strace.log")
    answered = the(calls, r"^(write|writev|sendto|sendmsg)\(.*HTTP/1\.1 201")
    last = -1
    for place in ("landing", "landing/acme", "landing/acme/flights", f"flights/{batch}", "files"):
        found = the(calls, rf"^fsync\(\d+</[^>]*{place}>\) *= 0")
        assert last < found.began
        last = found.ended
    assert last < answered.began
