from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import web
from gateway.errors import InvalidRequestError


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\u0000"}',
        b'{"a\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b"1" * 5000,
        b"\xff\xfe",
        '{"a": "é"}'.encode("latin-1"),
    ],
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        web.loads(body)


def test_ordinary_json_is_understood() -> None:
    assert web.loads('{"a": ["é", 1.5, null, true]}'.encode()) == {"a": ["é", 1.5, None, True]}


@given(st.binary(max_size=200))
def test_no_body_is_an_error_of_ours(body: bytes) -> None:
    try:
        web.loads(body)
    except InvalidRequestError:
        return


def test_a_cursor_gives_back_its_position() -> None:
    assert web.position_of(web.cursor_for("bat_01abc")) == "bat_01abc"
    assert web.cursor_for(None) is None


@given(st.text(max_size=100))
def test_a_made_up_cursor_is_refused_or_harmless(cursor: str) -> None:
    try:
        position = web.position_of(cursor)
    except InvalidRequestError:
        return
    assert position is not None
    assert position.replace("_", "").isalnum()
