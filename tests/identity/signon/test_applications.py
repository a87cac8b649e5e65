"""Applications are registered by the operator."""

from __future__ import annotations

import json
import re

import pytest

from gateway import settings
from gateway.identity.applications import Applications
from gateway.settings import SettingsError
from tests.identity.signon.signing_on import (
    APPLICATIONS,
    ISSUER,
    SECRETS,
)


def registered(environment: dict[str, str], applications: object, issuer: str = ISSUER) -> None:
    given = applications if isinstance(applications, str) else json.dumps(applications)
    changed = {"GATEWAY_SIGNON_APPLICATIONS": given, "GATEWAY_TOKENS_ISSUER": issuer}
    Applications.load(settings.load({**environment, **changed}))


def test_applications_that_are_well_described_are_taken(environment: dict[str, str]) -> None:
    registered(environment, APPLICATIONS)
    local = {**APPLICATIONS[0], "redirect_uris": ["http://127.0.0.1:8081/auth/callback"]}
    registered(environment, [local], "http://127.0.0.1:8080")


BADLY_DESCRIBED: list[tuple[dict[str, object], str]] = [
    ({"secret": "short"}, "0.secret"),
    ({"client_id": "Air flow"}, "0.client_id"),
    ({"audience": "elsewhere"}, "audience must be one of"),
    ({"redirect_uris": []}, "0.redirect_uris"),
    ({"redirect_uris": ["http://airflow.test/callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://airflow.test/callback#x"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://user@airflow.test/callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https:///callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://*.airflow.test\\callback"]}, "0.redirect_uris.0"),
    ({"surprise": 1}, "0.surprise"),
]


def test_an_application_that_is_badly_described_is_refused_by_its_place(
    environment: dict[str, str],
) -> None:
    for changed, says in BADLY_DESCRIBED:
        with pytest.raises(SettingsError, match=re.escape(says)) as refused:
            registered(environment, [{**APPLICATIONS[0], **changed}])
        assert SECRETS["airflow"] not in str(refused.value)


def test_other_weak_registrations_are_refused(environment: dict[str, str]) -> None:
    for text_given in ("{", "{}", "[1]", "null"):
        with pytest.raises(SettingsError, match="GATEWAY_SIGNON_APPLICATIONS"):
            registered(environment, text_given)
    with pytest.raises(SettingsError, match="there twice"):
        registered(environment, [APPLICATIONS[0], APPLICATIONS[0]])
    with pytest.raises(SettingsError, match="GATEWAY_TOKENS_ISSUER: must be https"):
        registered(environment, APPLICATIONS, "http://gateway.test")
