"""Encodings, delimiters and headings, found and read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import DeliveryError
from pipeline.text import EncodingScan

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

TEXT = "flight,carrier,delay\n1,Ü€,2\n2,é,\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_text_in_any_of_these_encodings_is_loaded_alike(stage: Stage, encoding: str) -> None:
    assert stage.load({"a.csv": TEXT.encode(encoding)})["loaded"] == 2
    assert stage.curated()["carrier"].to_list() == ["Ü€", "é"]


def test_bytes_that_1252_leaves_open_make_it_latin_1(stage: Stage) -> None:
    stage.load({"a.csv": b"flight,carrier,delay\n1,\xe9\x81,2\n"})
    assert stage.curated()["carrier"].to_list() == ["é\x81"]


def test_a_late_byte_decides_the_encoding_of_the_whole_file(stage: Stage) -> None:
    rows = b"".join(b"%d,AA,1\n" % i for i in range(300_000))
    stage.load({"a.csv": b"flight,carrier,delay\n" + rows + b"7,\xdc,1\n"})
    assert stage.curated()["carrier"].to_list()[-1] == "Ü"


def test_rows_with_broken_bytes_in_utf_8_text_are_rejected_alone(stage: Stage) -> None:
    content = "flight,carrier,delay\n1,Üé,2\n".encode() + b"2,\xff,3\n"
    assert stage.load({"a.csv": content})["loaded"] == 1
    (reject,) = stage.gateway.rejects()
    assert (reject["line"], reject["column"], reject["rule"]) == (3, "carrier", "encoding")


def test_rows_with_nul_bytes_are_rejected_and_shown_as_an_escape(stage: Stage) -> None:
    content = b"flight,carrier,delay\n1,A\x00,2\n2\x00,AA,3\n3,AA,1\n"
    assert stage.load({"a.csv": content}) == {"read": 3, "loaded": 1, "rejected": 2}
    got = [(r["line"], r["rule"], r["value"]) for r in stage.gateway.rejects()]
    assert got == [(2, "nul-byte", "A\\x00"), (3, "type", "2\\x00")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(stage: Stage, delimiter: str) -> None:
    content = "flight,carrier,delay\n1,AA,2\n".replace(",", delimiter).encode()
    assert stage.load({"a.csv": content})["loaded"] == 1


def test_quoted_and_reordered_headings_are_matched(stage: Stage) -> None:
    content = b'\n"delay","flight"\n'
    with pytest.raises(DeliveryError, match="missing-columns"):
        stage.load({"a.csv": content + b"1,2\n"})
    content = b'\r\n"delay",flight,"carrier"\r\n1,2,AA\r\n'
    assert stage.load({"a.csv": content}, batch=2)["loaded"] == 1
    assert stage.curated()["_line"].to_list() == [3]


def test_lines_may_end_in_a_bare_carriage_return(stage: Stage) -> None:
    assert stage.load({"a.csv": b"flight,carrier,delay\r1,AA,2\r2,AA,3\r"})["loaded"] == 2
    assert stage.curated()["_line"].to_list() == [2, 3]


def test_line_numbers_after_quoted_newlines_are_those_of_the_file(stage: Stage) -> None:
    stage.properties[1] = {"name": "carrier", "logicalType": "string"}
    content = b'flight,carrier,delay\n1,"A\nA\n",2\nx,AA,3\n3,AA\n4,AA,4\n'
    assert stage.load({"a.csv": content}) == {"read": 4, "loaded": 2, "rejected": 2}
    assert stage.curated()["_line"].to_list() == [2, 7]
    got = [(r["line"], r["column"], r["rule"], r["value"]) for r in stage.gateway.rejects()]
    assert got == [(5, "flight", "type", "x"), (6, None, "row-shape", "3,AA")]


def test_a_file_that_is_no_text_fits_no_table(stage: Stage) -> None:
    with pytest.raises(DeliveryError, match="unknown-columns"):
        stage.load({"a.csv": bytes(range(256)) * 5000})
    error = stage.gateway.error()
    assert error is not None
    assert len(error["detail"]) <= 1000


def test_the_scan_finds_a_sequence_cut_between_two_chunks() -> None:
    scan = EncodingScan()
    encoded = "ü".encode()
    scan.write(encoded[:1])
    scan.write(encoded[1:])
    assert scan.encoding() == ("utf-8", False)
