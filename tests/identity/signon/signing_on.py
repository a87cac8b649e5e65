"""A browser and an application, as the tests of the sign-on play them."""

from __future__ import annotations

import html
import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from starlette.testclient import TestClient

from gateway.identity import codes
from tests.identity.conftest import Start

CONTRACT = Path(__file__).parents[3] / "airflow" / "contract"
ISSUER = "https://gateway.test"
CALLBACK = "https://airflow.test/auth/callback"
SECRETS = {"airflow": "s" * 40, "grafana": "g" * 40, "console": "c" * 40}
APPLICATIONS = [
    {
        "client_id": name,
        "name": name.title(),
        "audience": "gateway" if name == "console" else "airflow",
        "secret": secret,
        "redirect_uris": [CALLBACK.replace("airflow.", f"{name}."), f"https://{name}.test/b?x=1"],
    }
    for name, secret in SECRETS.items()
]


def served(start: Start, **changed: object) -> TestClient:
    """Start an application of identity's doors and pages that browsers reach over https."""
    given = {"SIGNON_APPLICATIONS": json.dumps(APPLICATIONS), "TOKENS_ISSUER": ISSUER}
    client = start(**{**given, **changed})
    client.base_url = ISSUER
    client.follow_redirects = False
    return client


@dataclass
class Attempt:
    """One sign-on, from an application's side."""

    client: TestClient
    application: str = "airflow"
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def redirect_uri(self) -> str:
        return CALLBACK.replace("airflow.", f"{self.application}.")

    def query(self, **changed: str | None) -> dict[str, str]:
        asked = {
            "response_type": "code",
            "client_id": self.application,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": codes.challenge_of(self.verifier),
            "code_challenge_method": "S256",
            **changed,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def open(self, **changed: str | None) -> Any:
        """Follow the application's link."""
        return self.client.get("/v1/authorize", params=self.query(**changed))

    def post(self, user: str, password: str, page: Any = None, **options: Any) -> Any:
        """Send the page's form as a browser does."""
        page = page or self.open(**options.pop("changed", {}))
        form = {"username": user, "password": password, "form_token": field_of(page, "form_token")}
        headers = {"origin": ISSUER, **options.pop("headers", {})}
        given = {**form, **options.pop("form", {})}
        return self.client.post(action_of(page), data=given, headers=headers, **options)

    def redeem(self, code: str, /, **changed: str | None) -> Any:
        """Exchange a code as the application does."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            "client_id": self.application,
            "client_secret": SECRETS[self.application],
            **changed,
        }
        sent = {name: value for name, value in form.items() if value is not None}
        return self.client.post("/v1/token", data=sent)

    def introspect(self, token: str, **more: str) -> dict[str, Any]:
        auth = (self.application, SECRETS[self.application])
        data = {"token": token, **more}
        answer = self.client.post("/v1/token/introspect", data=data, auth=auth)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def answered(response: Any) -> dict[str, str]:
    """Return the parameters that an answer carries back to the application."""
    assert response.status_code == 303, response.text
    return dict(parse_qsl(urlsplit(response.headers["location"]).query))


def field_of(page: Any, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return html.unescape(found[1])


def action_of(page: Any) -> str:
    found = re.search(r'action="([^"]*)"', page.text)
    assert found, page.text
    return html.unescape(found[1])


def signed_on(client: TestClient, who: tuple[str, str], application: str = "airflow") -> Attempt:
    """Sign somebody in on the way to an application."""
    attempt = Attempt(client, application)
    attempt.post(*who)
    return attempt


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token says; nothing of it is checked."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def family_of(access_token: str) -> str:
    """Return the session that a token came of."""
    return str(claims_of(access_token)["jti"].partition(".")[0])


def end_session(client: TestClient, identity: str, application: str = "airflow") -> Any:
    """Have an application end a session."""
    form = {"token": identity, "token_type_hint": "session"}
    auth = (application, SECRETS[application])
    return client.post("/v1/token/revoke", data=form, auth=auth)
