"""Leases of a real slapd: what an account sees, that it cannot prolong itself, and how it ends."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ldap3 import MODIFY_REPLACE, NONE, SAFE_SYNC, SUBTREE, Server, Tls
from ldap3 import Connection as Bound

from deploy.local.directory import Directory as DirectoryServer
from gateway.identity.binding import drop
from gateway.identity.entries import REFRESH, _refresh_request
from gateway.leases.resources.directory import DirectoryAccounts
from gateway.leases.resources.driver import Connection, Purpose, ResourceUnavailableError
from gateway.settings import Settings
from tests.leases.asking import purpose
from tests.parts import free_port

INSUFFICIENT, INVALID_CREDENTIALS, NO_SUCH_OBJECT = 50, 49, 32


@pytest.fixture
def accounts(config: Settings) -> DirectoryAccounts:
    return DirectoryAccounts(config.ldap, config.leases)


@pytest.fixture
def acme() -> Purpose:
    return purpose("acme")


@pytest.fixture
def lease(accounts: DirectoryAccounts, acme: Purpose) -> Iterator[Connection]:
    yield accounts.issue(acme, 60)
    accounts.revoke(accounts.handle(acme))


SignIn = Callable[[Connection], tuple[Any, int]]


@pytest.fixture
def bound(directory_server: DirectoryServer) -> Iterator[SignIn]:
    """Return a function that binds as a task does, and gives LDAP's result."""
    made = []

    def bind(found: Connection) -> tuple[Any, int]:
        # That the gateway verifies the directory is tested where it does.
        tls = Tls(validate=ssl.CERT_NONE)
        at = Server(directory_server.url, tls=tls, get_info=NONE)
        account = {"user": found.login, "password": found.password}
        connection: Any = Bound(at, **account, client_strategy=SAFE_SYNC, check_names=False)
        made.append(connection)
        _, result, _, _ = connection.bind(read_server_info=False)
        return connection, result["result"]

    yield bind
    for each in made:
        drop(each)


def seen(connection: Any, base: str) -> list[str]:
    _, _, entries, _ = connection.search(base, "(objectClass=*)", SUBTREE, attributes=["member"])
    found = [each for each in entries or [] if each["type"] == "searchResEntry"]
    return sorted(each["dn"].partition(",")[0] for each in found)


def test_an_account_sees_the_groups_of_its_client_and_nothing_else(
    accounts: DirectoryAccounts, bound: SignIn, lease: Connection
) -> None:
    other = purpose("globex")
    theirs = accounts.issue(other, 60)
    groups = lease.extra["groups"]
    for found, client in ((lease, "acme"), (theirs, "globex")):
        connection, code = bound(found)
        assert code == 0
        names = [f"cn={client}-{role}" for role in ("operators", "uploaders", "viewers")]
        assert seen(connection, groups) == names
        assert seen(connection, lease.extra["base"]) == []
        assert seen(connection, f"ou=people,{lease.extra['base']}") == []
        assert seen(connection, f"ou=leases,{lease.extra['base']}") == []
    accounts.revoke(accounts.handle(other))


def test_an_account_cannot_prolong_itself_or_write_anything(
    accounts: DirectoryAccounts,
    bound: SignIn,
    lease: Connection,
    acme: Purpose,
) -> None:
    connection, _ = bound(lease)
    own = lease.login or ""
    _, result, _, _ = connection.extended(REFRESH, _refresh_request(own, 3600))
    assert result["result"] == INSUFFICIENT
    _, result, _, _ = connection.modify(own, {"ou": [(MODIFY_REPLACE, ["globex"])]})
    assert result["result"] in {INSUFFICIENT, NO_SUCH_OBJECT}
    group = f"cn=acme-uploaders,{lease.extra['groups']}"
    _, result, _, _ = connection.modify(group, {"member": [(MODIFY_REPLACE, [own])]})
    assert result["result"] == INSUFFICIENT
    accounts.renew(accounts.handle(acme), 3600)


def test_an_account_ends_with_everything_that_was_bound_as_it(
    accounts: DirectoryAccounts,
    bound: SignIn,
    lease: Connection,
    acme: Purpose,
) -> None:
    connection, _ = bound(lease)
    groups = lease.extra["groups"]
    assert len(seen(connection, groups)) == 3
    assert acme.lease in accounts.held()
    for _ in range(2):
        accounts.revoke(accounts.handle(acme))
    assert seen(connection, groups) == [], "the connection is there, what it could read is not"
    assert bound(lease)[1] == INVALID_CREDENTIALS
    assert acme.lease not in accounts.held()
    with pytest.raises(ResourceUnavailableError):
        accounts.renew(accounts.handle(acme), 60)


def test_the_directory_itself_ends_an_account_at_its_time(
    accounts: DirectoryAccounts, bound: SignIn
) -> None:
    short = purpose("acme")
    lease = accounts.issue(short, 4)
    connection, code = bound(lease)
    assert code == 0
    deadline = time.monotonic() + 30
    while short.lease in accounts.held():
        assert time.monotonic() < deadline, "nobody removed it"
        time.sleep(0.5)
    assert seen(connection, lease.extra["groups"]) == []
    assert bound(lease)[1] == INVALID_CREDENTIALS


def test_a_client_whose_name_begins_another_clients_sees_only_its_own(
    accounts: DirectoryAccounts, bound: SignIn
) -> None:
    for client in ("ac", "acme-uploaders", "acme-x", "me"):
        who = purpose(client)
        connection, code = bound(accounts.issue(who, 60))
        assert code == 0
        base = accounts._config.base_dn
        assert seen(connection, f"ou=groups,{base}") == []
        accounts.revoke(accounts.handle(who))


def test_a_directory_that_is_away_is_unavailable_soon(config: Settings) -> None:
    ldap = config.ldap.model_copy(update={"url": f"ldaps://127.0.0.1:{free_port()}"})
    began = time.monotonic()
    with pytest.raises(ResourceUnavailableError):
        DirectoryAccounts(ldap, config.leases).issue(purpose("acme"), 60)
    assert time.monotonic() - began < 6
