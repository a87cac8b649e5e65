"""Over a real socket: what is answered before a body, and bodies that end too soon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.nursery import Nursery
from tests.parts import GatewayServer, serve
from tests.uploads.sending import CONTENT, OTHER, Books, Line, Sender, address, eventually, sha256

Lines = Callable[[], Line]


def test_refusals_come_before_the_first_byte_of_the_body(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    assert wired.put(batch, "taken").status_code == 201
    huge = str(60 * 1024**3)
    table = {
        ("PUT", address(batch, "a"), huge): 413,
        ("PUT", address(batch, "a"), "9" * 19): 413,
        ("PUT", address(batch, ".a"), "10"): 422,
        ("PUT", address("bat_" + "0" * 26, "a"), "10"): 404,
        ("PUT", address(batch, "TAKEN"), "10"): 409,
        ("PUT", address(batch, "taken"), "10"): 409,
        ("POST", "/v1/submissions", huge): 415,
    }
    for (method, path, length), expected in table.items():
        begun = line().begin(method, path, Content_Length=length)
        status, headers, problem = begun.answer()
        assert (status, problem["status"]) == (expected, expected), path
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/problem+json"
    form = {"Content_Type": "multipart/form-data; boundary=x"}
    begun = line().begin("POST", "/v1/submissions", Content_Length=str(2**50), **form)
    assert begun.answer()[0] == 413
    assert books.rows(batch) == {"taken": "complete"}
    books.check()


def test_a_body_that_ends_too_soon_is_no_file_and_the_next_attempt_works(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    path = address(batch, "a.csv")
    announced = line().begin("PUT", path, Content_Length="5000000")
    announced.send(b"x" * 3_000_000)
    eventually(lambda: books.rows(batch) == {"a.csv": "pending"})
    assert books.on_disk(batch) == {}
    announced.cut()
    eventually(lambda: books.rows(batch) == {})
    books.check_nothing(batch)
    chunked = line().begin("PUT", path, Transfer_Encoding="chunked")
    chunked.chunk(b"x" * 100_000)
    eventually(lambda: books.rows(batch) == {"a.csv": "pending"})
    chunked.cut()
    eventually(lambda: books.rows(batch) == {})
    books.check_nothing(batch)
    assert wired.put(batch).status_code == 201
    books.check()


def test_an_upload_that_is_alive_is_not_taken_over(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    first = line().begin("PUT", address(batch, "a.csv"), Content_Length=str(len(CONTENT)))
    first.send(CONTENT[:5])
    eventually(lambda: books.rows(batch) == {"a.csv": "pending"})
    for content in (CONTENT, OTHER):
        answer = wired.put(batch, content=content)
        assert answer.status_code == 409
        assert answer.json()["type"] == "/problems/upload-conflict"
        assert answer.json()["retryable"]
    sealed = wired.seal(batch)
    assert sealed.json()["type"] == "/problems/batch-incomplete"
    assert sealed.json()["errors"][0]["code"] == "unfinished"
    first.send(CONTENT[5:])
    status, _, body = first.answer()
    assert (status, body["sha256"]) == (201, sha256(CONTENT))
    assert wired.put(batch).status_code == 200
    books.check()


def test_of_parallel_uploads_of_one_name_exactly_one_is_stored(wired: Sender, books: Books) -> None:
    batch = wired.batch()
    for attempt in range(5):
        name = f"{attempt}.csv"
        bodies = [bytes([65 + number]) * 300_000 for number in range(4)]
        gate = threading.Barrier(len(bodies))

        def put(body: bytes, gate: threading.Barrier = gate, name: str = name) -> int:
            gate.wait()
            return wired.put(batch, name, content=body).status_code

        with ThreadPoolExecutor(len(bodies)) as crowd:
            found = list(crowd.map(put, bodies))
        assert sorted(found) == [201, 409, 409, 409]
        assert books.on_disk(batch)[name] == bodies[found.index(201)]
    books.check()


def test_a_batch_that_ends_while_a_file_is_on_its_way_does_not_get_it(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    first = line().begin("PUT", address(batch, "a.csv"), Content_Length=str(len(CONTENT)))
    first.send(CONTENT[:5])
    eventually(lambda: books.rows(batch) == {"a.csv": "pending"})
    assert wired.ask("DELETE", f"/v1/batches/{batch}").status_code == 204
    first.send(CONTENT[5:])
    status, _, problem = first.answer()
    assert (status, problem["type"]) == (409, "/problems/batch-closed")
    eventually(lambda: books.parts() == [])
    books.check_nothing(batch)


def test_a_file_that_is_deleted_while_on_its_way_is_not_stored(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    wired.put(batch, "b.csv")
    first = line().begin("PUT", address(batch, "a.csv"), Content_Length=str(len(CONTENT)))
    first.send(CONTENT[:5])
    eventually(lambda: books.rows(batch).get("a.csv") == "pending")
    assert wired.ask("DELETE", address(batch, "a.csv")).status_code == 204
    assert wired.seal(batch).status_code == 202
    first.send(CONTENT[5:])
    status, _, problem = first.answer()
    assert (status, problem["type"]) == (409, "/problems/batch-sealed")
    eventually(lambda: books.parts() == [])
    assert books.on_disk(batch) == {"b.csv": CONTENT}
    books.check()


def test_the_connection_stays_usable_after_a_stored_file(wired: Sender, line: Lines) -> None:
    batch = wired.batch()
    begun = line()
    for name in ("a", "b"):
        begun.begin("PUT", address(batch, name), Transfer_Encoding="chunked")
        begun.chunk(CONTENT)
        begun.send(b"0\r\n\r\n")
        found = begun.connection.getresponse()
        assert found.status == 201
        assert found.headers.get("connection", "keep-alive") == "keep-alive"
        found.read()
    begun.cut()


def test_a_refusal_reaches_a_sender_who_looks_up_only_after_200_mib(
    wired: Sender, server: GatewayServer, books: Books
) -> None:
    batch = wired.batch()
    block = b"x" * 1024**2
    table = [({}, 200 * len(block), 401), (wired.headers, 60 * 1024**3, 413)]
    for headers, length, expected in table:
        begun = Line(server.port, headers).begin(
            "PUT", address(batch, "a"), Content_Length=str(length)
        )
        for _ in range(200):
            begun.send(block)
        status, found, problem = begun.answer()
        assert (status, problem["status"]) == (expected, expected)
        assert found["connection"] == "close"
    books.check_nothing(batch)


def test_nobody_is_told_to_continue_whose_file_is_refused(
    wired: Sender, server: GatewayServer
) -> None:
    batch = wired.batch()
    shown = "".join(f"\r\n{name}: {value}" for name, value in wired.headers.items())
    for name, length, head, expected in (
        ("a", 5, "", 401),
        ("a", 60 * 1024**3, shown, 413),
        (".a", 5, shown, 422),
        ("a", 5, shown, 100),
    ):
        with socket.create_connection(("127.0.0.1", server.port), 20) as wire:
            line = f"PUT {address(batch, name)} HTTP/1.1\r\nHost: g{head}"
            wire.sendall(
                f"{line}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            assert int(wire.recv(65_536).split()[1]) == expected


def test_large_and_small_files_take_turns_on_one_connection(
    wired: Sender, line: Lines, books: Books
) -> None:
    batch = wired.batch()
    begun = line()
    sizes = (3 * 1024**2 + 1, 7, 1024**2, 300_000, 0)
    for number, size in enumerate(sizes):
        begun.begin("PUT", address(batch, f"{number}"), Content_Length=str(size))
        begun.send(bytes([65 + number]) * size)
        found = begun.connection.getresponse()
        assert (found.status, found.headers.get("connection")) == (201, None)
        found.read()
    begun.cut()
    assert [len(books.on_disk(batch)[f"{number}"]) for number in range(5)] == list(sizes)
    books.check()


def test_the_stock_protocol_stores_the_same(
    nursery: Nursery,
    environment: dict[str, str],
    tmp_path: Path,
    wired: Sender,
    books: Books,
) -> None:
    batch, content = wired.batch(), b"x" * 3_000_000
    stock = serve(nursery, {**environment, "GATEWAY_SERVER_PROTOCOL": "stock"}, tmp_path)
    begun = Line(stock.port, wired.headers)
    begun.begin("PUT", address(batch, "a"), Content_Length=str(len(content))).send(content)
    status, _, body = begun.answer()
    assert (status, body["sha256"]) == (201, sha256(content))
    stock.stop()
    books.check()
