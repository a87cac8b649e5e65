"""What a contract says, held against single values and whole tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.contract import ContractError, read_contract
from pipeline.errors import DeliveryError
from tests.pipeline.conftest import GOLDEN, contract

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"logicalType": "integer"}, ["1", "-7", "+5", " 8 ", "007", "NA", ""], ["1.0", "1e3", "x", "9223372036854775808", "1_0"]),
    ({"logicalType": "integer", "logicalTypeOptions": {"format": "i8"}}, ["127", "-128"], ["128", "-129"]),
    ({"logicalType": "number"}, ["1", ".5", "1e3", "-2.5E-3"], ["inf", "NaN", "-inf", "1e999", "1,5", "x"]),
    ({"logicalType": "boolean"}, ["true", "F", "Yes", "0"], ["2", "maybe"]),
    ({"logicalType": "date"}, ["2013-02-28"], ["2013-02-30", "2013-2-1", "13-01-01", "01/02/2013"]),
    ({"logicalType": "date", "logicalTypeOptions": {"format": "dd.MM.yyyy"}}, ["28.02.2013"], ["2013-02-28", "8.2.2013"]),
    ({"logicalType": "date", "logicalTypeOptions": {"minimum": "2013-01-01"}}, ["2013-01-01"], ["2012-12-31"]),
    ({"logicalType": "timestamp"}, ["2013-01-01T05:00:00Z", "2013-01-01 05:00", "2013-01-01T05:00:00.25+02:00"], ["2013-01-01", "2013-13-01T00:00:00Z", "2013-01-01T25:00:00"]),
    ({"logicalType": "timestamp", "logicalTypeOptions": {"format": "yyyy-MM-dd'T'HH:mm:ssXXX"}}, ["2013-01-01T05:00:00+02:00"], ["2013-01-01 05:00:00"]),
    ({"logicalType": "string", "logicalTypeOptions": {"format": "date-time"}}, ["2013-01-01T05:00:00Z"], ["soon"]),
    ({"logicalType": "string", "required": True}, ["x"], ["", "NA"]),
    ({"logicalType": "string", "logicalTypeOptions": {"minLength": 2, "maxLength": 3}}, ["ab", "äöü"], ["a", "abcd"]),
    ({"logicalType": "string", "logicalTypeOptions": {"pattern": "^N[0-9]+$"}}, ["N12", ""], ["12"]),
    ({"logicalType": "string", "logicalTypeOptions": {"format": "uuid"}}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
    ({"logicalType": "string", "logicalTypeOptions": {"format": "ipv4"}}, ["10.0.0.255"], ["10.0.0.256", "1.2.3"]),
    ({"logicalType": "string", "logicalTypeOptions": {"format": "email"}}, ["a@b.test"], ["a@b", "@b.test"]),
    ({"logicalType": "integer", "logicalTypeOptions": {"minimum": 1, "maximum": 3}}, ["1", "3"], ["0", "4"]),
    ({"logicalType": "integer", "logicalTypeOptions": {"exclusiveMinimum": 1, "exclusiveMaximum": 3}}, ["2"], ["1", "3"]),
    ({"logicalType": "integer", "logicalTypeOptions": {"minimum": 1, "exclusiveMinimum": True}}, ["2"], ["1"]),
    ({"logicalType": "integer", "logicalTypeOptions": {"multipleOf": 5}}, ["10"], ["12"]),
    ({"logicalType": "string", "quality": [{"metric": "invalidValues", "arguments": {"validValues": ["JFK", "EWR"]}}]}, ["JFK", ""], ["LGA"]),
    ({"logicalType": "integer", "quality": [{"metric": "invalidValues", "arguments": {"validValues": [1, 2]}, "mustBe": 0}]}, ["1", ""], ["3"]),
    ({"logicalType": "string", "quality": [{"rule": "validValues", "validValues": ["a"], "mustBe": 0}]}, ["a"], ["b"]),
    ({"logicalType": "string", "quality": [{"metric": "nullValues", "mustBe": 0}]}, ["a"], [""]),
    ({"logicalType": "string", "quality": [{"metric": "missingValues", "arguments": {"missingValues": [None, "n/a"]}, "mustBe": 0}]}, ["a"], ["", "n/a"]),
    ({"logicalType": "integer", "quality": [{"type": "sql", "query": "v % 2 = 0 AND v < 100"}]}, ["2", ""], ["3", "100"]),
    ({"logicalType": "string", "customProperties": [{"property": "naTokens", "value": ["", "-"]}], "required": True}, ["NA"], ["-", ""]),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "good", "bad"), CASES, ids=lambda v: json.dumps(v)[:60])
def test_values_are_accepted_or_rejected_as_declared(
    stage: Stage, declared: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    stage.properties = [{"name": "n", "logicalType": "integer"}, {"name": "v", **declared}]
    rows = [f'{i},"{value}"' for i, value in enumerate(good + bad)]
    stage.load({"a.csv": ("\n".join(["n,v", *rows]) + "\n").encode()})
    assert stage.curated()["n"].to_list() == list(range(len(good)))
    assert [(r["line"], r["column"]) for r in stage.gateway.rejects()] == [
        (2 + len(good) + i, "v") for i in range(len(bad))
    ]


def test_instants_are_stored_in_utc(stage: Stage) -> None:
    stage.properties = [{"name": "t", "logicalType": "timestamp"}]
    lines = ["2013-01-01T05:00:00+02:00", "2013-01-01 05:00", "2013-01-01T05:00:00,5Z"]
    stage.load({"a.csv": "\n".join(["t", *(f'"{x}"' for x in lines)]).encode()})
    got = [t.isoformat() for t in stage.curated()["t"]]
    assert got == [
        "2013-01-01T03:00:00+00:00",
        "2013-01-01T05:00:00+00:00",
        "2013-01-01T05:00:00.500000+00:00",
    ]


def test_every_broken_rule_of_a_row_is_told_but_the_row_counts_once(stage: Stage) -> None:
    assert stage.load({"a.csv": b"flight,carrier,delay\nx,LONG,y\n1,AA,1\n"})["rejected"] == 1
    assert [(r["column"], r["rule"]) for r in stage.gateway.rejects()] == [
        ("flight", "type"),
        ("carrier", "maxLength"),
        ("delay", "type"),
    ]


def test_rejects_are_counted_in_full_and_described_up_to_a_cap(stage: Stage) -> None:
    stage.on_reject = {"policy": "reject-rows"}
    content = b"flight,carrier,delay\n" + b"x,AA,1\n" * 1500 + b"1,AA,1\n"
    assert stage.load({"a.csv": content})["rejected"] == 1500
    assert len(stage.gateway.rejects()) == 1000


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"metric": "rowCount", "mustBeGreaterThan": 2}, "rowCount of flights is 2, wanted mustBeGreaterThan 2"),
        ({"type": "sql", "name": "known", "query": "SELECT count(*) FROM ${object} WHERE carrier = 'UA'", "mustBe": 0}, "known of flights is 1"),
        ({"type": "sql", "query": "SELECT count(*) FROM flights WHERE delay > 100", "mustBe": 0}, None),
        ({"metric": "rowCount", "mustBeBetween": [1, 2]}, None),
    ],
)  # fmt: skip
def test_rules_of_a_whole_table_pass_or_fail_the_batch(
    stage: Stage, rule: dict[str, Any], outcome: str | None
) -> None:
    stage.tables = [{"name": "flights", "properties": stage.properties, "quality": [rule]}]
    files = {"a.csv": b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"}
    if outcome is None:
        assert stage.load(files)["loaded"] == 2
        return
    with pytest.raises(DeliveryError, match="quality-failed"):
        stage.load(files)
    error = stage.gateway.error()
    assert error is not None
    assert outcome in error["detail"]
    assert not (stage.root / "curated" / "acme").exists()


@pytest.mark.parametrize(
    ("rule", "fails"),
    [
        ({"metric": "nullValues", "mustBeLessThan": 2}, False),
        ({"metric": "nullValues", "mustBeLessThan": 1}, True),
        ({"metric": "nullValues", "mustBeLessOrEqualTo": 25, "unit": "percent"}, False),
        ({"metric": "duplicateValues", "mustBeLessThan": 2}, False),
        ({"metric": "duplicateValues", "mustBeLessThan": 1}, True),
    ],
)
def test_a_tolerant_rule_judges_the_column_and_rejects_no_row(
    stage: Stage, rule: dict[str, Any], *, fails: bool
) -> None:
    stage.properties[1] = {**stage.properties[1], "quality": [rule]}
    files = {"a.csv": b"flight,carrier,delay\n1,AA,1\n2,AA,2\n3,,3\n4,UA,4\n"}
    if fails:
        with pytest.raises(DeliveryError, match="quality-failed"):
            stage.load(files)
    else:
        assert stage.load(files) == {"read": 4, "loaded": 4, "rejected": 0}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM read_csv('/etc/passwd')",
        "SELECT count(*) FROM '/etc/passwd'",
        "SELECT 'text'",
        "SELECT nonsense FROM flights",
    ],
)
def test_a_query_sees_the_batch_and_nothing_else(stage: Stage, query: str) -> None:
    rule = {"type": "sql", "query": query, "mustBe": 0}
    stage.tables = [{"name": "flights", "properties": stage.properties, "quality": [rule]}]
    with pytest.raises(DeliveryError, match="invalid-contract"):
        stage.load({"a.csv": b"flight,carrier,delay\n1,AA,2.5\n"})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"logicalType": "array"}, "schema[0].properties[0].logicalType"),
        ({"logicalTypeOptions": {"maxLength": 2}}, "schema[0].properties[0].logicalTypeOptions.maxLength"),
        ({"logicalTypeOptions": {"minimum": "low"}}, "schema[0].properties[0].logicalTypeOptions.minimum"),
        ({"logicalType": "string", "logicalTypeOptions": {"pattern": "(?=x)"}}, "pattern: look-around"),
        ({"logicalType": "date", "logicalTypeOptions": {"format": "QQ"}}, "format: QQ"),
        ({"logicalType": "date", "logicalTypeOptions": {"format": "yyyy-MM-dd HH:mm"}}, "use timestamp"),
        ({"name": "_line"}, "_line is reserved"),
        ({"name": "a b"}, "schema[0].properties[0].name"),
        ({"required": "yes"}, "schema[0].properties[0].required"),
        ({"quality": [{"type": "custom", "engine": "soda"}]}, "quality[0].type"),
        ({"quality": [{"metric": "freshness"}]}, "quality[0].metric"),
        ({"quality": [{"type": "sql", "query": "SELECT 1"}]}, "needs a bound"),
    ],
)  # fmt: skip
def test_a_contract_that_cannot_be_honoured_is_refused_with_its_place(
    change: dict[str, Any], place: str
) -> None:
    column = {"name": "x", "logicalType": "integer", **change}
    with pytest.raises(ContractError) as refused:
        read_contract(contract({"name": "t", "properties": [column]}))
    assert any(place in problem for problem in refused.value.problems)


@pytest.mark.parametrize("document", [None, [], {}, {"kind": "DataContract", "schema": [{}]}])
def test_what_is_no_contract_at_all_is_refused(document: object) -> None:
    with pytest.raises(ContractError):
        read_contract(document)


def test_a_pattern_that_polars_cannot_compile_fails_the_plan(stage: Stage) -> None:
    stage.properties[1] = {
        "name": "carrier",
        "logicalType": "string",
        "logicalTypeOptions": {"pattern": "a\\Z"},
    }
    with pytest.raises(
        DeliveryError, match=r"invalid-contract: the rule pattern of flights\.carrier"
    ):
        stage.load({"a.csv": b"flight,carrier,delay\n1,AA,1\n"})


def test_the_golden_registry_holds_a_contract_that_is_honoured() -> None:
    registry = json.loads(Path(GOLDEN / "registry.json").read_text())
    (table,) = read_contract(registry["projects"][0]["contract"]).tables
    assert (table.name, table.files) == ("flights", ("flights_*.csv",))
    assert [(c.name, c.kind, c.required) for c in table.columns] == [
        ("flight", "integer", True),
        ("carrier", "string", True),
    ]
