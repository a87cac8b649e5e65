import json
import socket
import threading
from pathlib import Path

import pytest

from deploy.bench import client, driving, large, rounds, servers, small, table
from deploy.bench.rounds import Case, Results
from deploy.bench.servers import BOUNDARY, multipart
from deploy.bench.wire import Request

MORE_THAN_A_CHUNK = 3 * 2**20 + 17


def test_a_ratio_is_that_of_the_medians() -> None:
    row = table.compare("m", "MB/s", [10.0, 30.0, 20.0], [10.0, 100.0, 5.0], "peer", 1.5)
    assert (row.ours, row.peer, row.ratio, row.rounds) == (20.0, 10.0, 2.0, 3)
    assert row.verdict == "pass"


def test_where_less_is_better_a_ratio_above_one_still_means_ahead() -> None:
    ahead = table.compare("m", "MiB", [20.0], [40.0], "limit", 1.0, less_is_better=True)
    behind = table.compare("m", "MiB", [80.0], [40.0], "limit", 1.0, less_is_better=True)
    assert (ahead.ratio, ahead.verdict) == (2.0, "pass")
    assert (behind.ratio, behind.verdict) == (0.5, "miss")


@pytest.mark.parametrize("grown", [0.0, -3.0])
def test_memory_that_did_not_grow_is_no_division_by_zero(grown: float) -> None:
    row = table.compare("m", "MiB", [grown], [40.0], "limit", 1.0, less_is_better=True)
    assert row.verdict == "pass"


def test_a_ratio_just_below_its_target_is_not_rounded_up_to_a_pass() -> None:
    row = table.compare("m", "MB/s", [1.1999], [1.0], "peer", 1.2)
    assert row.verdict == "miss"


def test_what_could_not_be_measured_stays_in_the_table_with_its_reason(tmp_path: Path) -> None:
    row = table.compare("m", "MB/s", [1.0], "sftp: it is not installed", "sftp", 2.5)
    assert (row.peer, row.ratio, row.rounds, row.verdict) == (None, None, 0, "n/a")
    assert "it is not installed" in table.render([row])
    table.write([row], tmp_path / "new/rows.json")
    [written] = json.loads((tmp_path / "new/rows.json").read_text())
    wanted = {"metric", "unit", "ours", "peer", "peer_name", "ratio", "target", "rounds"}
    assert wanted <= written.keys()
    assert written["ratio"] is None


def test_a_comparison_without_a_target_is_for_information() -> None:
    assert table.compare("m", "MB/s", [1.0], [2.0], "peer", None).verdict == "-"


@pytest.mark.parametrize(("percent", "found"), [(50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, found: float) -> None:
    assert small.percentile([float(n) for n in range(100, 0, -1)], percent) == found


def test_cases_are_interleaved_and_one_that_fails_is_left_out_from_then_on() -> None:
    order: list[str] = []

    def run(name: str, fails_at: int | None = None) -> dict[str, float]:
        order.append(name)
        if fails_at is not None and order.count(name) == fails_at:
            raise driving.RunError("stored nothing")
        return {"rate": 1.0}

    cases = [Case("a", lambda: run("a")), Case("b", lambda: run("b", fails_at=2))]
    results = Results()
    rounds.measure(cases, 3, results)
    assert order == ["a", "b", "a", "b", "a"]
    assert results.of("a") == [1.0, 1.0, 1.0]
    assert results.of("b") == "b: stored nothing"
    assert results.of("c") == "c: not measured"


def test_a_file_that_differs_in_its_last_byte_is_found_out(tmp_path: Path) -> None:
    sent, kept = tmp_path / "sent", tmp_path / "kept"
    sent.write_bytes(bytes(MORE_THAN_A_CHUNK))
    kept.write_bytes(bytes(MORE_THAN_A_CHUNK))
    driving.require_same(sent, kept, MORE_THAN_A_CHUNK)
    kept.write_bytes(bytes(MORE_THAN_A_CHUNK - 1) + b"x")
    with pytest.raises(driving.RunError):
        driving.require_same(sent, kept, MORE_THAN_A_CHUNK)
    with pytest.raises(driving.RunError):
        driving.require_same(sent, kept, MORE_THAN_A_CHUNK + 1)


def test_a_small_file_that_is_missing_or_damaged_is_found_out(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(client.content(number, small.SIZE_BYTES))
    driving.require_all(tmp_path, 3, small.SIZE_BYTES)
    with pytest.raises(driving.RunError):
        driving.require_all(tmp_path, 4, small.SIZE_BYTES)
    damaged = bytearray(client.content(1, small.SIZE_BYTES))
    damaged[-1] ^= 1
    (tmp_path / "1").write_bytes(damaged)
    with pytest.raises(driving.RunError):
        driving.require_all(tmp_path, 3, small.SIZE_BYTES)


class Listener:
    """A server of one connection that keeps what it is sent and gives prepared answers."""

    def __init__(self, *answers: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.received: list[bytes] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, self._socket:
            for answer in self._answers:
                self.received.append(_request(connection))
                connection.sendall(answer)

    def end(self) -> list[bytes]:
        self._thread.join(10)
        return self.received


def _request(connection: socket.socket) -> bytes:
    held = b""
    while b"\r\n\r\n" not in held:
        held += connection.recv(65536)
    head, _, body = held.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    assert len(body) == length
    return head + b"\r\n\r\n" + body


CREATED = b"HTTP/1.1 201 Created\r\nLocation: http://host/up/7\r\nContent-Length: 0\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def test_a_large_file_goes_to_where_the_creation_has_sent_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 64)
    listener = Listener(CREATED, DONE, DONE)
    size = source.stat().st_size
    requests = [
        Request("POST", "/files"),
        Request("PATCH", "{location}", length=size - 10, expected=204),
        # A file that is longer than the prepared one is that one again and again.
        Request("PATCH", "{location}", offset=size - 10, length=20, expected=204),
    ]
    client.send_large(listener.port, str(source), [requests])
    created, first, second = listener.end()
    whole = source.read_bytes()
    assert created.startswith(b"POST /files HTTP/1.1")
    assert first.startswith(b"PATCH /up/7 HTTP/1.1")
    assert first.endswith(b"\r\n\r\n" + whole[:-10])
    assert second.endswith(b"\r\n\r\n" + whole[-10:] + whole[:10])


def test_small_files_share_a_connection_and_each_has_its_own_content() -> None:
    answer = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    listener = Listener(answer, answer, answer)
    form = multipart("a.csv", small.SIZE_BYTES)
    files = [[Request("POST", f"/{n}", **form)] for n in range(3)]
    measured = client.send_small(listener.port, 1, small.SIZE_BYTES, files)
    for number, request in enumerate(listener.end()):
        assert request.startswith(b"POST /%d " % number)
        assert client.content(number, small.SIZE_BYTES) in request
        assert request.endswith(f"\r\n--{BOUNDARY}--\r\n".encode())
    assert len(measured["latencies"]) == 3


def test_an_answer_that_was_not_expected_fails_the_run(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    listener = Listener(b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull")
    job = {
        "kind": "large",
        "port": listener.port,
        "source": str(source),
        "streams": [client.as_json([Request("PUT", "/a", length=10)])],
    }
    with pytest.raises(driving.RunError, match=r"PUT /a answered 507.*full"):
        driving.run(job)
    listener.end()


def test_storing_without_a_server_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(2**20))
    assert large.Storing(source, 2**20).run()["rate"] > 0
    assert not (servers.files_folder("alone") / "part").exists()


def test_the_rate_of_hashing_alone_is_measured_in_the_clients_own_process(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(2**20))
    sample = large.Hashing(Path(source), 2**20).run()
    assert sample["rate"] > 0
    assert sample["cpu"] >= 0
