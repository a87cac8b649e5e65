"""The page that people sign in at: what it takes, what it refuses, what it may show and do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway.clients.registry import Client
from gateway.identity.model import SignIn
from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.signon.signing_on import (
    APPLICATIONS,
    ISSUER,
    Attempt,
    answered,
    field_of,
    served,
)
from tests.parts import Databases

TRY_AGAIN = "Try again in a minute"
WRONG = "The user name or the password is not right."
SESSION = "__Host-gateway-session"
NASTY = '"><script>alert(1)</script>'


def cookie_named(answer: Any, name: str) -> str:
    (found,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(name)]
    return str(found)


def is_asked(client: TestClient) -> bool:
    return "Password" in Attempt(client).open().text


# Who gets in.


WRONG_ONES = [
    ("acme-operator", "wrong"),
    ("acme-operator", ""),
    ("", "x"),
    ("nobody", "x"),
    ("*", "x"),
    ("acme-operator)(uid=*", "x"),
    ("x" * 300, "x"),
    ("acme-operator", "x" * 3000),
    ("acme-operator\u200b", "\u200b"),
]


def test_whatever_is_wrong_the_page_says_the_same(client: TestClient) -> None:
    for name, password in WRONG_ONES:
        answer = Attempt(client).post(name, password)
        assert answer.status_code == 403, name
        assert WRONG in answer.text
    assert is_asked(client)


def test_services_do_not_sign_in_at_a_page(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    answer = Attempt(client).post("acme-uploader", directory_server.passwords["acme-uploader"])
    assert answer.status_code == 403
    assert WRONG in answer.text


def test_guessing_at_the_page_and_at_the_token_door_counts_together(
    start: Start, operator: tuple[str, str]
) -> None:
    client = served(start, THROTTLE_ACCOUNT_FAILURES=3)
    attempt = Attempt(client)
    for _ in range(2):
        attempt.post(operator[0], "wrong")
    form = {"grant_type": "password", "username": operator[0], "password": "wrong"}
    assert client.post("/v1/token", data=form).status_code == 400
    for password in ("wrong", operator[1]):
        answer = attempt.post(operator[0], password)
        assert answer.status_code == 429
        assert "Too many attempts" in answer.text
        assert 1 <= int(answer.headers["retry-after"]) <= 301
    assert is_asked(client)


def test_while_the_directory_is_away_the_page_says_so(
    client: TestClient, operator: tuple[str, str]
) -> None:
    directory = client.app.state.directory  # type: ignore[attr-defined]
    taken = [directory._slots.acquire() for _ in range(8)]
    answer = Attempt(client).post(*operator)
    for _ in taken:
        directory._slots.release()
    assert answer.status_code == 503
    assert "not possible at the moment" in answer.text
    assert answer.headers["retry-after"] == "30"
    assert field_of(answer, "username") == operator[0]


def test_while_the_database_is_away_the_page_says_so_and_nothing_is_lost(
    client: TestClient, operator: tuple[str, str], databases: Databases, database_url: str
) -> None:
    attempt, later = Attempt(client), Attempt(client)
    page = attempt.open()
    with databases.away(database_url):
        refused = attempt.post(*operator, page)
        assert SESSION not in str(refused.headers)
        assert (refused.status_code, TRY_AGAIN in refused.text) == (503, True)
    assert "code" in answered(attempt.post(*operator, page))
    with databases.away(database_url):
        refused = later.open()
        assert (refused.status_code, TRY_AGAIN in refused.text) == (503, True)
    assert "code" in answered(later.open())


def test_an_account_without_rights_there_is_sent_back_with_that_answer(
    client: TestClient, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.person("newcomer", "a password")
    assert answered(Attempt(client).post("newcomer", "a password"))["error"] == "access_denied"


def test_whoever_is_removed_is_signed_in_no_more(
    start: Start, directory_admin: DirectoryAdmin, sessions: sessionmaker[Session]
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    person = directory_admin.person("leaver", "a password")
    directory_admin.add_member("acme-viewers", person)
    assert "code" in answered(Attempt(client).post("leaver", "a password"))
    directory_admin.delete(person)
    assert is_asked(client)
    with sessions.begin() as session:
        assert session.scalar(select(SignIn.ended_at)) is not None


# For which client.


def test_a_person_of_several_clients_chooses_one(
    client: TestClient,
    operator: tuple[str, str],
    directory_admin: DirectoryAdmin,
    sessions: sessionmaker[Session],
) -> None:
    member = f"uid=acme-operator,ou=people,{directory_admin.base}"
    directory_admin.add_member("globex-viewers", member)
    with sessions.begin() as session:
        found = session.get(Client, "globex")
        assert found is not None
        found.title = NASTY
    attempt = Attempt(client)
    page = attempt.post(*operator, changed={"prompt": "login"})
    assert page.status_code == 200
    assert "For which client?" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    hidden = ("client_id", "redirect_uri", "state", "nonce", "code_challenge", "scope")
    query = {name: field_of(page, name) for name in hidden}
    assert 'name="prompt"' not in page.text
    chosen = client.get(
        "/v1/authorize",
        params={
            **query,
            "response_type": "code",
            "code_challenge_method": "S256",
            "client": "globex",
        },
    )
    body = attempt.redeem(answered(chosen)["code"]).json()
    assert body["scope"] == "batches:read"
    silent = answered(Attempt(client).open(prompt="none"))
    assert silent["error"] == "interaction_required"


# Forms from elsewhere.


FOREIGN = ["https://evil.test", "null", "", f"{ISSUER}.evil.test", "http://gateway.test", None]


def test_a_form_from_another_page_is_refused(client: TestClient, operator: tuple[str, str]) -> None:
    attempt = Attempt(client)
    token = field_of(attempt.open(), "form_token")
    form = {"username": operator[0], "password": operator[1], "form_token": token}
    for origin in FOREIGN:
        headers = {} if origin is None else {"origin": origin}
        answer = client.post("/v1/authorize", params=attempt.query(), data=form, headers=headers)
        assert answer.status_code == 403, origin
    assert is_asked(client)


def test_a_form_needs_what_belongs_to_this_browsers_cookie(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    for token in ("", "x", "0" * 64, "ä"):
        assert attempt.post(*operator, form={"form_token": token}).status_code == 403
    theirs = attempt.open()
    client.cookies.clear()
    assert attempt.post(*operator, theirs).status_code == 403
    mine = attempt.open()
    assert attempt.post(*operator, mine).status_code == 303


def test_two_tabs_may_show_the_form(client: TestClient, operator: tuple[str, str]) -> None:
    attempt = Attempt(client)
    first, _ = attempt.open(), attempt.open()
    assert attempt.post(*operator, first).status_code == 303


NO_FORMS = [
    (b"username=" + b"x" * 20_000, "application/x-www-form-urlencoded", 413),
    (b"a=1&a=2", "application/x-www-form-urlencoded", 422),
    (b"a=%00", "application/x-www-form-urlencoded", 422),
    (b"{}", "application/json", 415),
]


def test_a_form_that_is_none_is_answered_by_a_page(client: TestClient) -> None:
    query = Attempt(client).query()
    for content, media, status in NO_FORMS:
        headers = {"content-type": media, "origin": ISSUER}
        answer = client.post("/v1/authorize", params=query, content=content, headers=headers)
        assert answer.status_code == status, content[:20]
        assert answer.headers["content-type"].startswith("text/html")


# Cookies and sessions.


def test_cookies_are_for_this_host_alone_and_out_of_reach_of_scripts(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    page = attempt.open()
    form = cookie_named(page, "__Host-gateway-form")
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=strict"):
        assert attribute in form
    session = cookie_named(attempt.post(*operator, page), SESSION)
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=lax", "Max-Age=28800"):
        assert attribute in session
    assert "Domain" not in session + form


def test_on_loopback_cookies_have_names_that_promise_nothing(
    start: Start, operator: tuple[str, str]
) -> None:
    issuer = "http://127.0.0.1:8080"
    client = served(start, TOKENS_ISSUER=issuer)
    client.base_url = issuer
    attempt = Attempt(client)
    back = attempt.post(*operator, headers={"origin": issuer})
    assert "Secure" not in cookie_named(back, "gateway_session")


def test_a_session_is_new_at_each_sign_in_and_the_one_before_has_ended(
    client: TestClient, operator: tuple[str, str], directory_server: DirectoryServer
) -> None:
    viewer = ("acme-viewer", directory_server.passwords["acme-viewer"])
    strangers = Attempt(client)
    strangers.post(*viewer)
    planted = client.cookies[SESSION]
    answered(strangers.post(*operator, changed={"prompt": "login"}))
    mine = client.cookies[SESSION]
    assert mine != planted
    client.cookies.clear()
    client.cookies.set(SESSION, planted, domain="gateway.test")
    assert is_asked(client)
    client.cookies.clear()
    client.cookies.set(SESSION, mine, domain="gateway.test")
    assert not is_asked(client)


def test_a_cookie_that_is_none_of_ours_is_nobodys(client: TestClient) -> None:
    for value in ("", "gws_", "gws_unknown", "gws_" + "x" * 4000, "x"):
        client.cookies.set(SESSION, value, domain="gateway.test")
        assert is_asked(client), value


def test_only_a_digest_of_the_cookie_is_kept(
    client: TestClient, operator: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    Attempt(client).post(*operator)
    with sessions.begin() as session:
        (kept,) = session.scalars(select(SignIn))
        assert client.cookies[SESSION] not in str(vars(kept))


def test_signing_out_takes_a_form_of_ours(client: TestClient, operator: tuple[str, str]) -> None:
    attempt = Attempt(client)
    token = attempt.redeem(answered(attempt.post(*operator))["code"]).json()["access_token"]
    page = client.get("/sign-out")
    assert "acme-operator" in page.text
    form = {"form_token": field_of(page, "form_token")}
    foreign = client.post("/sign-out", data=form, headers={"origin": "https://evil.test"})
    assert foreign.status_code == 422
    assert not is_asked(client)
    done = client.post("/sign-out", data=form, headers={"origin": ISSUER})
    assert done.status_code == 200
    assert "You are signed out" in done.text
    assert is_asked(client)
    assert attempt.introspect(token) == {"active": False}
    assert "You are signed out" in client.get("/sign-out").text


# What pages may show and do.


def test_pages_run_nothing_load_nothing_foreign_and_stand_in_no_frame(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    pages = {
        "form": attempt.open(),
        "refusal": attempt.post(operator[0], "wrong"),
        "link": attempt.open(client_id="unknown"),
        "out": client.get("/sign-out"),
    }
    for name, page in pages.items():
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; style-src 'self'; form-action 'self'" in policy, name
        assert "base-uri 'none'; frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        for inline in ("<script", "<style", " style=", " onclick", "javascript:"):
            assert inline not in page.text, name


def test_the_form_may_lead_to_the_application_and_nowhere_else(client: TestClient) -> None:
    policy = Attempt(client).open().headers["content-security-policy"]
    assert "form-action 'self' https://airflow.test;" in policy


def test_what_was_typed_or_linked_comes_back_as_text(start: Start) -> None:
    named = [{**APPLICATIONS[0], "name": NASTY}]
    client = served(start, SIGNON_APPLICATIONS=json.dumps(named))
    page = Attempt(client, state='"><script>alert(2)</script>').post(NASTY, "wrong")
    assert page.status_code == 403
    assert "<script" not in page.text
    assert field_of(page, "username") == NASTY


def test_the_form_can_be_used_without_seeing_or_a_mouse(client: TestClient) -> None:
    page = Attempt(client).post("somebody", "wrong").text
    assert '<html lang="en">' in page
    assert '<label for="username">' in page
    assert '<label for="password">' in page
    assert 'role="alert"' in page
    assert 'id="message"' in page
    assert page.count('aria-describedby="message"') == 2
    assert 'autocomplete="current-password"' in page
    assert page.count("autofocus") == 1


def test_the_style_sheet_is_served_under_a_name_that_changes_with_it(client: TestClient) -> None:
    page = Attempt(client).open().text
    path = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    style = client.get(path)
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("text/css")
    assert "immutable" in style.headers["cache-control"]
    assert client.get("/static/other.css").status_code == 404
    assert client.get("/static/..%2fpages.py").status_code == 404


def test_passwords_and_codes_are_not_logged(
    client: TestClient, operator: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    attempt = Attempt(client)
    attempt.post(operator[0], "wr0ng-secret")
    code = answered(attempt.post(*operator))["code"]
    attempt.redeem(code)
    written = "".join(capfd.readouterr())
    for secret in (operator[1], "wr0ng-secret", code, attempt.verifier, client.cookies[SESSION]):
        assert secret not in written
