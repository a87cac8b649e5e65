from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ldap3
import pytest

from deploy.local import directory
from deploy.local.directory import Directory
from deploy.local.programs import StackError
from tests.parts import free_port

pytestmark = pytest.mark.filterwarnings(r"ignore:ssl\.match_hostname:DeprecationWarning")


@contextmanager
def signed_in(server: Directory, dn: str, password: str) -> Iterator[ldap3.Connection | None]:
    tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(server.ca_path))
    host = ldap3.Server(server.url, tls=tls, get_info=ldap3.NONE)
    connection = ldap3.Connection(host, dn, password)
    accepted = connection.bind()
    try:
        yield connection if accepted else None
    finally:
        connection.unbind()  # type: ignore[no-untyped-call]


def accepts(server: Directory, dn: str, password: str) -> bool:
    with signed_in(server, dn, password) as connection:
        return connection is not None


@pytest.fixture
def gateway_account(directory_server: Directory) -> Iterator[ldap3.Connection]:
    account = (directory_server.bind_dn, directory_server.bind_password)
    with signed_in(directory_server, *account) as connection:
        assert connection is not None
        yield connection


def dn_of(uid: str, server: Directory) -> str:
    folder = "services" if uid in directory.SERVICES else "people"
    return f"uid={uid},ou={folder},{server.base_dn}"


def test_everybody_in_the_seed_signs_in(directory_server: Directory) -> None:
    for uid, password in directory_server.passwords.items():
        assert accepts(directory_server, dn_of(uid, directory_server), password), uid
        assert not accepts(directory_server, dn_of(uid, directory_server), "other"), uid


def test_membership_counts_through_a_group_in_a_group(
    directory_server: Directory, gateway_account: ldap3.Connection
) -> None:
    gateway_account.search(directory_server.base_dn, "(uid=acme-viewer)", attributes=["memberOf"])
    groups = gateway_account.entries[0].memberOf.values
    assert any(group.startswith("cn=acme-viewers,") for group in groups)


def test_gateway_account_reads_no_password(
    directory_server: Directory, gateway_account: ldap3.Connection
) -> None:
    asked = ["userPassword", "uid"]
    gateway_account.search(directory_server.base_dn, "(uid=*)", attributes=asked)
    found = [entry.entry_attributes_as_dict for entry in gateway_account.entries]
    assert len(found) == len(directory_server.passwords)
    assert not any(entry.get("userPassword") for entry in found)


@pytest.mark.parametrize("account", [None, "acme-viewer"])
def test_nobody_else_finds_anything(directory_server: Directory, account: str | None) -> None:
    dn = dn_of(account, directory_server) if account else ""
    password = directory_server.passwords[account] if account else ""
    with signed_in(directory_server, dn, password) as connection:
        assert connection is not None
        assert not connection.search(directory_server.base_dn, "(objectClass=*)")
        assert connection.entries == []


def test_killed_directory_comes_back_with_its_accounts(tmp_path: Path) -> None:
    with directory.start(tmp_path, free_port()) as first:
        with signed_in(first, first.admin_dn, first.admin_password) as root:
            assert root is not None
            assert root.delete(dn_of("auditor", first))  # type: ignore[no-untyped-call]
        first.kill()
    with directory.start(tmp_path, free_port()) as second:
        assert second.passwords == first.passwords
        assert accepts(second, dn_of("admin", second), first.passwords["admin"])
        assert not accepts(second, dn_of("auditor", second), first.passwords["auditor"])


def test_no_password_lies_in_the_clear_but_in_its_closed_file(tmp_path: Path) -> None:
    with directory.start(tmp_path, free_port()) as server:
        secrets = [*server.passwords.values(), server.bind_password, server.admin_password]
        holders = [
            path
            for path in tmp_path.rglob("*")
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
        ]
    assert [path.name for path in holders] == ["passwords.json"]
    assert holders[0].stat().st_mode & 0o077 == 0


def test_taken_port_is_named(directory_server: Directory, tmp_path: Path) -> None:
    port = int(directory_server.url.rsplit(":", 1)[1])
    with pytest.raises(StackError, match=f"port {port} is taken"):
        directory.start(tmp_path, port)
