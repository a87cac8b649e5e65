"""What a delivered file may be called, and which names would be taken for each other."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.landing.names import FileName, InvalidFilenameError, ReservedNameError

GOOD = [
    "a",
    "1",
    "_x",
    "a.csv",
    "flights 2013 (1).csv",
    "year=2013,month=01.parquet",
    "it's ~final~ #2 & done!.csv",
    "a..b",
    "été.csv",
    "データ.csv",
    "नमस्ते.csv",
    "تقرير.csv",
    "x" * 255,
    "é" * 127,
    "console.csv",
    "nullable.csv",
]
BAD = [
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    "~root",
    "#a",
    " a",
    "a ",
    "a.",
    "a/b",
    "/etc/passwd",
    "../../etc/passwd",
    "..\\..\\etc",
    "%2e%2e%2fetc",
    "a%00b",
    "C:a.csv",
    "a\x00.csv",
    "a\nb",
    "a\tb",
    "a\x7fb",
    "a\x85b",
    "a\u202egpj.exe",
    "a\u200bb",
    "\ufeffa",
    "a\u2028b",
    "a\u00a0b",
    "a\ud800b",
    "a\ue000b",
    "e\u0301.csv",
    "\u212b.csv",
    "x" * 256,
    "é" * 128,
    "a\uff0fb",
    "\uff0e\uff0e",
    "a\u2044b",
    "a\u2215b",
    "1\u00bd.csv",
    "a\ufe0f.csv",
    "\u3164.csv",
    "a|b",
    "a*b",
    "a?b",
    'a"b',
    "a<b",
    "a;b",
    "a`b",
    "a$b",
    "🙂.csv",
]
RESERVED = [
    "CON",
    "con",
    "nul.txt",
    "Aux.tar.gz",
    "COM1",
    "lpt9.csv",
    "prn .csv",
    "com¹.csv",
    "\uff23\uff2f\uff2e",
]
ALIKE = [
    ("A.csv", "a.csv"),
    ("file.csv", "\ufb01le.csv"),
    ("straße.csv", "STRASSE.csv"),
    ("a.csv", "\uff41.csv"),
    ("ÉTÉ.csv", "été.csv"),
    ("x2.csv", "x².csv"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
]


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_names_are_taken_as_they_are(name: str) -> None:
    assert FileName.parse(name).text == name


@pytest.mark.parametrize("name", BAD)
def test_names_that_do_harm_somewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidFilenameError) as refused:
        FileName.parse(name)
    assert refused.value.errors[0].pointer == "name"


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_devices_are_refused_in_every_disguise(name: str) -> None:
    with pytest.raises(ReservedNameError):
        FileName.parse(name)


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_are_taken_for_each_other_have_one_key(one: str, other: str) -> None:
    assert FileName.parse(one).collision_key == FileName.parse(other).collision_key


def test_different_names_have_different_keys() -> None:
    keys = [FileName.parse(name).collision_key for name in GOOD]
    assert len(set(keys)) == len(GOOD)


@given(st.text(max_size=300) | st.text(alphabet="./\\aA-~ \x00é\u0301\uff0f", max_size=12))
def test_whatever_is_taken_is_one_harmless_component(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    try:
        name = FileName.parse(text)
    except (InvalidFilenameError, ReservedNameError):
        return
    assert name.text == text
    assert len(text.encode()) <= 255
    assert unicodedata.is_normalized("NFC", text)
    assert not set(text) & set('/\\\x00:*?"<>|%')
    assert text[0] not in ".-"
    assert text[-1] not in ". "
    place = tmp_path_factory.getbasetemp()
    assert (place / text).resolve().parent == place.resolve()
    folded = unicodedata.normalize("NFKC", text.casefold())
    assert unicodedata.normalize("NFKC", folded.casefold()) == name.collision_key


@given(st.text(alphabet=st.characters(categories=["L", "M", "N"]), min_size=1, max_size=80))
def test_a_taken_name_makes_a_file_that_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    try:
        name = FileName.parse(text)
    except (InvalidFilenameError, ReservedNameError):
        return
    place: Path = tmp_path_factory.mktemp("names")
    (place / name.text).write_bytes(b"")
    assert [each.name for each in place.iterdir()] == [text]
