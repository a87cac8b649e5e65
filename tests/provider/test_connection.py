from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi
import pytest
from airflow.sdk import Connection

from gateway.provider.connection import Way

PAGE = "https://airflow.example/auth/views/jobs/{job}"


def way(**fields: Any) -> Way:
    given = {"conn_id": "c", "conn_type": "ingestion_gateway", "login": "u", "password": "p"}
    return Way.of(Connection(**{**given, **fields}))


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://gateway.example"}, "https://gateway.example"),
        ({"host": "gateway.example"}, "https://gateway.example"),
        ({"host": "127.0.0.1", "port": 18800, "schema": "http"}, "http://127.0.0.1:18800"),
    ],
)
def test_the_address_is_a_url_or_the_parts_of_one(fields: dict[str, Any], url: str) -> None:
    assert way(**fields).address.url == url


def test_a_uri_says_it_all() -> None:
    uri = "ingestion-gateway://acme:p%40ss@gateway.example:8443/?client=acme&account=person"
    found = Way.of(Connection.from_uri(uri, conn_id="c"))
    assert found.address.url == "https://gateway.example:8443"
    assert (found.account.user, found.account.password) == ("acme", "p@ss")
    assert (found.account.kind, found.account.client) == ("person", "acme")


def test_the_form_says_the_rest() -> None:
    authorities = certifi.where()
    extra = f'{{"ca_file": "{authorities}", "allow_http": true, "page": "{PAGE}"}}'
    found = way(host="http://gateway.example", extra=extra)
    assert (found.address.ca, found.address.allow_http) == (Path(authorities), True)
    assert found.page_of("job_1") == "https://airflow.example/auth/views/jobs/job_1"
    with found.open() as gateway:
        assert gateway.transport.policy.deadline_seconds > 0


def test_where_nobody_said_there_is_no_page() -> None:
    assert way(host="gateway.example").page_of("job_1") == ""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"extra": '{"account": "robot"}'}, "service or person"),
        ({"extra": '{"ca_file": "/nowhere/ca.pem"}'}, "no file /nowhere/ca.pem"),
        ({"password": None}, "no password"),
        ({"login": None}, "no account"),
    ],
)
def test_a_connection_of_no_use_is_one_clear_line(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        way(host="gateway.example", **fields)
