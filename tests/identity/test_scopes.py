"""From groups to scopes."""

from __future__ import annotations

import pytest

from gateway import settings
from gateway.identity import scopes

ROLES = settings.Roles()
UPLOADER = frozenset({"batches:read", "batches:write"})


@pytest.mark.parametrize(
    ("group", "client", "given"),
    [
        ("acme-uploaders", "acme", UPLOADER),
        ("acme-viewers", "acme", frozenset({"batches:read"})),
        ("acme-operators", "acme", UPLOADER | {"jobs:write"}),
        ("gateway-auditors", None, frozenset({"audit:read"})),
        ("gateway-admins", None, frozenset({"admin"})),
        ("gateway-platform", None, frozenset({"jobs:progress"})),
        ("gateway-lessors", None, frozenset({"leases"})),
    ],
)
def test_each_role_gives_its_scopes_and_no_more(
    group: str, client: str | None, given: frozenset[str]
) -> None:
    granted = scopes.grants([group], ROLES, ["acme", "globex"])
    assert granted.scopes(client) == given
    assert granted.scopes("globex") == frozenset()
    assert granted.reasons == {group: given}
    assert bool(granted.platform) is (client is None)


@pytest.mark.parametrize(
    "group",
    ["uploaders", "-uploaders", "acme-uploaders2", "x-acme-uploaders", "acme", "acme_uploaders"],
)
def test_other_groups_give_nothing(group: str) -> None:
    assert scopes.grants([group], ROLES, ["acme"]) == scopes.Grants()


def test_a_client_whose_name_begins_as_anothers_is_another_client() -> None:
    granted = scopes.grants(["acme-eu-uploaders"], ROLES, ["acme", "acme-eu"])
    assert granted.clients == {"acme-eu": UPLOADER}


def test_candidates_are_read_off_the_names() -> None:
    names = ["acme-uploaders", "acme-eu-viewers", "gateway-admins", "Acme-uploaders", "staff"]
    assert scopes.candidates(names, ROLES) == {"acme", "acme-eu"}


def test_role_names_have_no_case() -> None:
    roles = settings.Roles(uploaders="GW-{client}-Up", admins="Domain Admins")
    granted = scopes.grants(["gw-acme-up", "domain admins"], roles, ["acme"])
    assert granted.clients == {"acme": UPLOADER}
    assert granted.platform == {"admin"}
    assert scopes.candidates(["gw-acme-up"], roles) == {"acme"}


def test_one_group_may_hold_two_roles() -> None:
    roles = settings.Roles(auditors="platform", admins="platform")
    assert scopes.grants(["platform"], roles, []).platform == {"admin", "audit:read"}


def test_a_suspended_client_keeps_looking() -> None:
    granted = scopes.grants(["acme-operators"], ROLES, ["acme"], ["acme"])
    assert granted.scopes("acme") == {"batches:read"}
