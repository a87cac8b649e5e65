"""Rows out of bytes: shapes, quotes, line numbers."""

from __future__ import annotations

import csv
import io
import random

import pytest

from pipeline import records
from pipeline.records import LineTooLongError, read_rows


def rows_of(text: bytes, width: int = 2, **options: object) -> tuple[list[tuple], list[tuple]]:
    good: list[tuple] = []
    bad: list[tuple] = []
    for rows in read_rows([text], ",", width, heading=False, **options):
        good += rows.frame.rows()
        bad += [(b.line, b.text) for b in rows.bad]
    return good, bad


def test_lines_are_counted_through_quoted_newlines() -> None:
    good, bad = rows_of(b'a,b\n"x\ny\n",1\nc,d\n')
    assert good == [("a", "b", 1), ("x\ny\n", "1", 2), ("c", "d", 5)]
    assert bad == []


def test_ragged_rows_cost_only_themselves() -> None:
    good, bad = rows_of(b'a,b\nc\n1,2,3\n"q,r",s\n\n,\nlast,one')
    assert good == [("a", "b", 1), ("q,r", "s", 4), (None, None, 6), ("last", "one", 7)]
    assert bad == [(2, "c"), (3, "1,2,3")]


def test_windows_line_ends_and_empty_lines_do_not_shift_the_count() -> None:
    good, bad = rows_of(b'a,b\r\n\r\n"x\r\ny",1\r\n\r\nc,d\r\n')
    assert good == [("a", "b", 1), ("x\r\ny", "1", 3), ("c", "d", 6)]
    assert bad == []


def test_doubled_quotes_are_one_quote() -> None:
    assert rows_of(b'"a ""b""",""\n"""",x\n')[0] == [('a "b"', None, 1), ('"', "x", 2)]


def test_a_quote_inside_a_bare_field_is_a_character() -> None:
    good, bad = rows_of(b'5" pipe,b\nc,d\n')
    assert good == [('5" pipe', "b", 1), ("c", "d", 2)]
    assert bad == []


def test_text_after_a_closing_quote_costs_that_row_alone() -> None:
    good, bad = rows_of(b'a,b\n"x"y,1\nc,d\n')
    assert good == [("a", "b", 1), ("c", "d", 3)]
    assert bad == [(2, '"x"y,1')]


def test_a_quote_that_never_closes_costs_its_line_alone() -> None:
    good, bad = rows_of(b'a,b\n"x,1\nc,d\ne,f\n')
    assert good == [("a", "b", 1), ("c", "d", 3), ("e", "f", 4)]
    assert bad == [(2, '"x,1')]


def test_a_single_column_keeps_its_rows() -> None:
    assert rows_of(b"a\n\nb\n\n", 1) == ([("a", 1), ("b", 3)], [])


def test_nothing_gives_nothing() -> None:
    assert rows_of(b"") == ([], [])
    assert rows_of(b"\n\n") == ([], [])


def test_the_heading_is_left_out_whatever_its_shape() -> None:
    for heading in (b"x,y\n", b'"x\nx",y\n', b"x\n", b'x"x,y\n'):
        lines = heading.count(b"\n")
        got = [r for rows in read_rows([heading + b"1,2\n"], ",", 2) for r in rows.frame.rows()]
        assert got == [("1", "2", lines + 1)]


def test_a_line_without_end_is_refused_before_it_fills_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "BLOCK_BYTES", 1000)
    endless = (b"x" * 500 for _ in range(1000))
    with pytest.raises(LineTooLongError):
        list(read_rows(endless, ",", 2, line_bytes=4000))


def _field(chance: random.Random) -> str:
    alphabet = ["a", "ü", " ", ",", "\n", '"', "\r\n", "1", ""]
    return "".join(chance.choice(alphabet) for _ in range(chance.randrange(5)))


@pytest.mark.parametrize("seed", range(40))
def test_any_well_formed_file_reads_as_python_reads_it_however_it_is_cut(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    width, written = chance.randrange(2, 5), []
    buffer = io.StringIO()
    ending = chance.choice(["\n", "\r\n"])
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(buffer, lineterminator=ending, quoting=quoting)
    for _ in range(chance.randrange(1, 60)):
        line = buffer.getvalue().count("\n") + 1
        fields = [_field(chance) for _ in range(width)]
        writer.writerow(fields)
        written.append((*(field or None for field in fields), line))
    text = buffer.getvalue().encode()
    monkeypatch.setattr(records, "BLOCK_BYTES", chance.randrange(1, 200))
    step = chance.randrange(1, 50)
    blocks = [text[i : i + step] for i in range(0, len(text), step)]
    got = [r for rows in read_rows(blocks, ",", width, heading=False) for r in rows.frame.rows()]
    assert got == written


@pytest.mark.parametrize("seed", range(40))
def test_any_text_at_all_gives_the_same_rows_however_it_is_cut(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    pieces = ["a", ",", "\n", '"', '""', "\r\n", "b,c\n", '"x",y\n', "ü"]
    text = "".join(chance.choice(pieces) for _ in range(300)).encode()
    whole = rows_of(text)
    monkeypatch.setattr(records, "BLOCK_BYTES", chance.randrange(1, 400))
    step = chance.randrange(1, 50)
    good: list[tuple] = []
    bad: list[int] = []
    blocks = [text[i : i + step] for i in range(0, len(text), step)]
    for rows in read_rows(blocks, ",", 2, heading=False):
        good += rows.frame.rows()
        bad += [b.line for b in rows.bad]
    assert (good, sorted(bad)) == (whole[0], sorted(line for line, _ in whole[1]))
    assert len({row[-1] for row in good} | set(bad)) == len(good) + len(bad)
