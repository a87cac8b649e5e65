"""Which landing zone a configuration opens, and which configuration is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.landing import opening
from gateway.landing.disk import DiskZone
from gateway.settings import Landing

BUCKET: dict[str, Any] = {
    "s3_url": "s3://landing/gateway",
    "s3_endpoint": "https://s3.example",
    "s3_access_key_id": "gateway",
    "s3_secret_access_key": "hunter2",
}


def said(**fields: Any) -> list[str]:
    return [line.removeprefix("GATEWAY_LANDING_") for line in opening.faults(Landing(**fields))]


def test_one_of_a_directory_and_a_bucket_is_wanted(tmp_path: Path) -> None:
    line = "ROOT: give either it or GATEWAY_LANDING_S3_URL"
    assert said() == [line]
    assert said(root=tmp_path, **BUCKET) == [line]
    assert said(root=tmp_path) == said(**BUCKET) == []


def test_a_directory_opens_a_zone_on_it(tmp_path: Path) -> None:
    zone = opening.open_zone(Landing(root=tmp_path))
    assert isinstance(zone, DiskZone)
    zone.close()


def test_a_bucket_without_an_account_is_refused_with_a_line_for_each() -> None:
    assert said(s3_url="s3://landing") == [
        "S3_ACCESS_KEY_ID: must be set",
        "S3_SECRET_ACCESS_KEY: must be set",
    ]
    assert said(**BUCKET | {"s3_secret_access_key": ""}) == ["S3_SECRET_ACCESS_KEY: must be set"]


@pytest.mark.parametrize(
    ("endpoint", "refused"),
    [
        ("http://127.0.0.1:9000", []),
        ("http://[::1]:9000", []),
        ("http://localhost:9000", []),
        ("http://s3.example", ["S3_ENDPOINT: use https://"]),
        ("http://10.0.0.1:9000", ["S3_ENDPOINT: use https://"]),
        ("http://127.0.0.1.example", ["S3_ENDPOINT: use https://"]),
        ("http://localhost@s3.example", ["S3_ENDPOINT: use https://"]),
        (None, []),
    ],
)
def test_bytes_and_signatures_cross_a_network_only_encrypted(
    endpoint: str | None, refused: list[str]
) -> None:
    assert said(**BUCKET | {"s3_endpoint": endpoint}) == refused


def test_a_missing_ca_bundle_is_refused(tmp_path: Path) -> None:
    assert said(**BUCKET, s3_ca_path=tmp_path / "none") == ["S3_CA_PATH: is not a file"]


@pytest.mark.parametrize("url", ["landing", "s3://", "s3://a", "s3://Land", "s3://landing/../x"])
def test_what_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="s3_url"):
        Landing(s3_url=url)


def test_the_secret_is_never_shown() -> None:
    assert "hunter2" not in repr(Landing(**BUCKET))
