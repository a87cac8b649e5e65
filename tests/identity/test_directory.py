"""The directory: who is let in, which groups count, what is refused at the start."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from deploy.local import certificates, openldap, processes
from deploy.local import directory as local_directory
from deploy.local.directory import Directory as DirectoryServer
from gateway import settings
from gateway.identity import groups
from gateway.identity.accounts import DirectoryUnavailableError, WrongCredentialsError
from gateway.identity.directory import Directory
from gateway.settings import SettingsError
from tests.identity.conftest import DirectoryAdmin
from tests.parts import free_port

ROLES = settings.Roles()


def config_of(server: DirectoryServer, **changed: object) -> settings.Ldap:
    values = {
        "url": server.url,
        "ca_path": server.ca_path,
        "bind_dn": server.bind_dn,
        "bind_password": SecretStr(server.bind_password),
        "base_dn": server.base_dn,
        "timeout_seconds": 2,
        **changed,
    }
    return settings.Ldap.model_validate(values)


@pytest.fixture
def directory(directory_server: DirectoryServer) -> Iterator[Directory]:
    found = Directory(config_of(directory_server), ROLES)
    yield found
    found.close()


def refuses(directory: Directory, name: str, password: str) -> None:
    for kind in ("person", "service"):
        with pytest.raises(WrongCredentialsError):
            directory.authenticate(name, password, kind)


def test_the_right_password_opens(directory: Directory, directory_server: DirectoryServer) -> None:
    password = directory_server.passwords["admin"]
    account = directory.authenticate("admin", password, "person")
    assert (account.name, account.kind, account.group_names) == (
        "admin",
        "person",
        ("gateway-admins",),
    )


@pytest.mark.parametrize(
    "password",
    [
        "",
        " ",
        "\t",
        "\u200b",
        "\u200b\u200b",
        "\u00ad",
        "\0",
        "x\0",
        "\u3000",
        "*",
        "wrong",
        "a" * 2000,
    ],
)
def test_no_password_but_the_right_one_opens(directory: Directory, password: str) -> None:
    refuses(directory, "admin", password)


def test_a_password_with_something_behind_it_is_wrong(
    directory: Directory, directory_server: DirectoryServer
) -> None:
    password = directory_server.passwords["admin"]
    for other in (f"{password}\0", f"{password} ", password[:-1], password.swapcase()):
        refuses(directory, "admin", other)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u200b",
        "\0",
        "*",
        "adm*",
        "a)(uid=*",
        "admin)(objectClass=*",
        "*)(uid=admin",
        "admin\\2a",
        "\\61dmin",
        "uid=admin",
        "uid=admin,ou=people,dc=gateway,dc=test",
        "admin,ou=people,dc=gateway,dc=test",
        "admin\0",
        "gateway",
        "a" * 200,
        "nobody",
        ".nobody.",
    ],
)
def test_names_are_taken_literally(
    directory: Directory, directory_server: DirectoryServer, name: str
) -> None:
    for password in (directory_server.passwords["admin"], directory_server.bind_password):
        refuses(directory, name, password)
    assert directory.account(name) is None


def test_a_name_that_needs_escaping_is_an_ordinary_name(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    dn = directory_admin.person("o'brien (x)* \\+#")
    team = directory_admin.group("odd (group)* #1, a+b", dn)
    directory_admin.group("acme-and-odd", team)
    directory_admin.group("plain", team)
    account = directory.authenticate("o'brien (x)* \\+#", "right password", "person")
    assert account.group_names[1:] == ("acme-and-odd", "plain")
    assert account.group_names[0].startswith("odd (group)* #1")


def test_an_account_called_as_the_gateway_itself_is_not_let_in(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.person("Gateway")
    refuses(directory, "Gateway", "right password")
    assert directory.account("gateway") is None


def test_a_name_borne_by_a_person_and_a_service_is_nobodys(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.person("double", "one")
    directory_admin.service("double", "two")
    refuses(directory, "double", "one")
    refuses(directory, "double", "two")
    assert directory.account("double") is None


def test_an_entry_with_a_second_name_is_not_let_in_under_either(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.person("first", uid=["first", "second"])
    refuses(directory, "first", "right password")
    refuses(directory, "second", "right password")


def test_a_name_has_one_spelling_afterwards(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.person("spelled")
    for spelling in ("SPELLED", " spelled ", "ｓpelled", "spel\u00adled"):
        account = directory.authenticate(spelling, "right password", "person")
        assert account.name == "spelled"


def test_circles_of_groups_end(directory: Directory, directory_admin: DirectoryAdmin) -> None:
    member = directory_admin.person("circler")
    directory_admin.group("circle-a", member)
    b = directory_admin.group("circle-b", f"cn=circle-a,ou=groups,{directory_admin.base}")
    directory_admin.add_member("circle-a", b)
    directory_admin.add_member("circle-b", b)
    account = directory.account("circler")
    assert account is not None
    assert [(group.name, group.via) for group in account.groups] == [
        ("circle-a", ()),
        ("circle-b", ("circle-a",)),
    ]


def test_only_the_value_that_names_a_group_counts(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    member = directory_admin.person("climber")
    directory_admin.group("harmless", member, cn=["harmless", "gateway-admins-too"])
    directory_admin.unit("outside")
    directory_admin.group("gateway-auditors", member, below="ou=outside,")
    account = directory.account("climber")
    assert account is not None
    assert account.group_names == ("harmless",)


def test_groups_nested_too_deeply_do_not_count(
    directory: Directory, directory_admin: DirectoryAdmin
) -> None:
    member = directory_admin.person("diver")
    for number in range(groups.DEPTH + 2):
        member = directory_admin.group(f"depth-{number}", member)
    account = directory.account("diver")
    assert account is not None
    assert len(account.groups) == groups.DEPTH


@given(st.dictionaries(st.integers(0, 9), st.sets(st.integers(0, 9)), max_size=10))
def test_every_graph_of_groups_ends_and_lists_each_once(graph: dict[int, set[int]]) -> None:
    def holding(dn: str) -> list[tuple[str, str]]:
        return [(f"cn={n}", str(n)) for n in graph.get(int(dn.removeprefix("cn=")), ())]

    found = groups.walk("cn=0", holding)
    names = [group.name for group in found]
    assert len(names) == len(set(names))
    reachable, edge = set(), {0}
    while edge:
        edge = {n for m in edge for n in graph.get(m, ())} - reachable - {0}
        reachable |= edge
    assert {int(name) for name in names} == reachable


def test_a_directory_with_another_authority_is_not_spoken_to(
    directory_server: DirectoryServer, tmp_path: Path
) -> None:
    certificates.ensure(tmp_path / "other")
    config = config_of(directory_server, ca_path=tmp_path / "other" / "ca.pem")
    with pytest.raises(DirectoryUnavailableError):
        Directory(config, ROLES).check()


def test_a_directory_under_another_name_is_not_spoken_to(
    directory_server: DirectoryServer,
) -> None:
    url = directory_server.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(DirectoryUnavailableError):
        Directory(config_of(directory_server, url=url), ROLES).check()


def test_the_wrong_password_of_the_gateway_itself_is_no_answer_about_others(
    directory_server: DirectoryServer,
) -> None:
    directory = Directory(config_of(directory_server, bind_password=SecretStr("wrong")), ROLES)
    with pytest.raises(DirectoryUnavailableError):
        directory.authenticate("admin", directory_server.passwords["admin"], "person")


def test_a_base_that_is_not_there_is_not_ready(directory_server: DirectoryServer) -> None:
    directory = Directory(config_of(directory_server, base_dn="dc=elsewhere"), ROLES)
    with pytest.raises(DirectoryUnavailableError):
        directory.check()
    directory.close()


def test_a_connection_cut_while_idle_is_replaced(
    directory: Directory, directory_server: DirectoryServer
) -> None:
    directory.check()
    (connection,) = directory._idle
    connection.socket.shutdown(socket.SHUT_RDWR)
    directory.check()


def test_many_questions_at_once_share_a_few_connections(
    directory_server: DirectoryServer,
) -> None:
    directory = Directory(config_of(directory_server, pool_size=2), ROLES)
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(5):
            account = directory.account("acme-viewer")
            if account is None or account.group_names != ("acme-staff", "acme-viewers"):
                wrong.append(account)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(directory._idle) <= 2
    directory.close()


@pytest.fixture
def start_tls_server(tmp_path: Path) -> Iterator[DirectoryServer]:
    """A directory on the plain port, with a password policy that can lock accounts."""
    server = local_directory.start(tmp_path / "directory", free_port())
    server.stop()
    settings_path = tmp_path / "directory" / "slapd.conf"
    with settings_path.open("a") as file:
        file.write("moduleload ppolicy\noverlay ppolicy\n")
    url = f"ldap://127.0.0.1:{free_port()}"
    software = openldap.find()
    argv = [str(software.slapd), "-f", str(settings_path), "-h", f"{url}/", "-d", "none"]
    process = processes.start(argv, server.log, env=software.environment, cwd=tmp_path)
    changed = dataclasses.replace(server, url=url, process=process)
    port = int(url.rpartition(":")[2])
    processes.wait_until(lambda: _listens(port), process, name="slapd", log=server.log)
    yield changed
    changed.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_start_tls_is_spoken_and_a_locked_account_is_gone(
    start_tls_server: DirectoryServer,
) -> None:
    directory = Directory(config_of(start_tls_server, start_tls=True), ROLES)
    admin = DirectoryAdmin(start_tls_server)
    dn = admin.person("lockable")
    assert directory.authenticate("lockable", "right password", "person").dn == dn
    admin.lock(dn)
    assert directory.account("lockable") is None
    refuses(directory, "lockable", "right password")
    directory.close()
    admin.restore()


def test_start_tls_with_another_authority_stops_before_any_password(
    start_tls_server: DirectoryServer, tmp_path: Path
) -> None:
    certificates.ensure(tmp_path / "other")
    ca_path = tmp_path / "other" / "ca.pem"
    directory = Directory(config_of(start_tls_server, start_tls=True, ca_path=ca_path), ROLES)
    with pytest.raises(DirectoryUnavailableError):
        directory.check()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"url": "ldap://127.0.0.1:389"}, "encrypted"),
        ({"start_tls": True}, "encrypted"),
        ({"url": "http://127.0.0.1"}, "ldaps://"),
        ({"url": "ldaps://"}, "ldaps://"),
        ({"url": "ldaps://h:99999"}, "ldaps://"),
        ({"bind_dn": ""}, "BIND_DN"),
        ({"bind_password": ""}, "BIND_PASSWORD"),
        ({"login_attribute": "uid=*)(a"}, "LOGIN_ATTRIBUTE"),
        ({"ca_path": "/none"}, "CA_PATH"),
        ({"ca_path": "/etc/hostname"}, "CA_PATH"),
    ],
)
def test_weak_or_impossible_settings_are_refused_at_the_start(
    directory_server: DirectoryServer, changed: dict[str, object], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Directory(config_of(directory_server, **changed), ROLES)


@pytest.mark.parametrize(
    ("role", "name"),
    [("uploaders", "uploaders"), ("viewers", "{client}{client}"), ("admins", "{client}-admins")],
)
def test_roles_that_do_not_tell_clients_apart_are_refused_at_the_start(
    directory_server: DirectoryServer, role: str, name: str
) -> None:
    roles = settings.Roles.model_validate({role: name})
    with pytest.raises(SettingsError, match=f"GATEWAY_ROLES_{role.upper()}"):
        Directory(config_of(directory_server), roles)
