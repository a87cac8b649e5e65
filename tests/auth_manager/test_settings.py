"""Airflow does not start with an incomplete or unsafe environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import settings

SECRET = Path(__file__).parent / "__init__.py"
GOOD = {
    "INGEST_GATEWAY_URL": "https://gateway.example/",
    "INGEST_GATEWAY_ISSUER": "https://gateway.example",
    "INGEST_REGISTRY_PATH": "/srv/registry.json",
    "INGEST_SIGNON_SECRET_FILE": str(SECRET),
}


def test_complete_environment_is_read() -> None:
    read = settings.from_environment(GOOD)
    assert read.gateway_url == "https://gateway.example"
    assert read.issuer == "https://gateway.example"
    assert str(read.registry_path) == "/srv/registry.json"
    assert read.application == ("airflow", SECRET.read_text().strip())
    assert SECRET.read_text().strip() not in repr(read)


def test_a_secret_that_cannot_be_read_or_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(settings.SettingsError, match="INGEST_SIGNON_SECRET_FILE"):
            settings.from_environment({**GOOD, "INGEST_SIGNON_SECRET_FILE": str(path)})


@pytest.mark.parametrize("name", GOOD)
def test_missing_variable_is_named(name: str) -> None:
    for environment in ({**GOOD, name: " "}, {k: v for k, v in GOOD.items() if k != name}):
        with pytest.raises(settings.SettingsError, match=name):
            settings.from_environment(environment)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_plain_http_is_fine_on_this_machine(host: str) -> None:
    url = f"http://{host}"
    assert settings.from_environment({**GOOD, "INGEST_GATEWAY_URL": url}).gateway_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway:8000",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://gateway",
        "gateway:8000",
        "https://",
        "https://user:password@gateway",
    ],
)
def test_address_passwords_should_not_travel_to_is_refused(url: str) -> None:
    with pytest.raises(settings.SettingsError, match="INGEST_GATEWAY_URL"):
        settings.from_environment({**GOOD, "INGEST_GATEWAY_URL": url})


def test_plain_http_inside_a_trusted_network_has_to_be_asked_for() -> None:
    url = "http://gateway:8000"
    trusted = {**GOOD, "INGEST_GATEWAY_URL": url, "INGEST_GATEWAY_ALLOW_HTTP": "1"}
    assert settings.from_environment(trusted).gateway_url == url
