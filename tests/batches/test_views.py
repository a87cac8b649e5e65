from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.batches.views import BatchRequest, SealRequest

GOOD: dict[str, Any] = {"project": "flights", "reference": "2013"}


def accepted(**fields: Any) -> BatchRequest:
    return BatchRequest.model_validate({**GOOD, **fields})


@pytest.mark.parametrize("reference", ["x", "März 2013", "日本", "a b/c:d", "r" * 200])
def test_a_reference_is_any_printable_text(reference: str) -> None:
    assert accepted(reference=reference).reference == reference


@pytest.mark.parametrize(
    "reference",
    ["", "r" * 201, "a\nb", "a\x00b", "a\x7fb", "a\u200bb", "a\u202eb", "\ud800", "Ma\u0308rz"],
)
def test_a_reference_with_hidden_characters_is_refused(reference: str) -> None:
    with pytest.raises(ValidationError):
        accepted(reference=reference)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2013-01-01", "2013-12-31"),
        ("2013-01-01", "2013-01-01"),
        ("2013-01-01T00:00:00Z", "2013-01-01T00:00:00.5+00:00"),
        ("2013-01-01t05:00:00+05:00", "2013-01-01T00:00:00z"),
    ],
)
def test_a_period_is_kept_as_it_was_written(start: str, end: str) -> None:
    found = accepted(period={"start": start, "end": end}).period
    assert found is not None
    assert found.model_dump() == {"start": start, "end": end}


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2013-12-31", "2013-01-01"),
        ("2013-02-30", "2013-03-01"),
        ("2013-01-01", "2013-01-02T00:00:00Z"),
        ("2013-01-01T00:00:00", "2013-01-02T00:00:00"),
        ("2013-01-01T00:00:00Z", "2013-01-01T00:59:00+01:00"),
        ("20130101", "20130102"),
        ("yesterday", "today"),
        ("2013-01-01T25:00:00Z", "2013-01-02T00:00:00Z"),
        ("2013-01-01", ""),
    ],
)
def test_a_period_that_makes_no_sense_is_refused(start: str, end: str) -> None:
    with pytest.raises(ValidationError):
        accepted(period={"start": start, "end": end})


@pytest.mark.parametrize(
    "metadata",
    [
        {str(number): 1 for number in range(51)},
        {"text": "x" * (16 * 1024)},
        {"number": float("inf")},
        {"number": 2**60},
        [],
    ],
)
def test_metadata_beyond_its_bounds_is_refused(metadata: Any) -> None:
    with pytest.raises(ValidationError):
        accepted(metadata=metadata)


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "test"},
        {"client": "globex"},
        {"project": ""},
        {"project": "x\x00"},
        {"supersedes": "bat_1"},
        {"period": {"start": "2013-01-01"}},
    ],
)
def test_fields_of_another_shape_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        accepted(**fields)


@pytest.mark.parametrize(
    "files",
    [
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "size_bytes": -1}],
        [{"name": "a", "size_bytes": "1"}],
        [{"name": "a", "size_bytes": True}],
        [{"name": "a", "sha256": "A" * 64}],
        [{"name": ""}],
        [{"size_bytes": 1}],
    ],
)
def test_a_list_of_files_that_makes_no_sense_is_refused(files: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        SealRequest.model_validate({"files": files})
