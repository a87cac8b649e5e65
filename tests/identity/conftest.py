"""An application of identity's doors alone, with one small door for each kind of caller."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from ldap3 import MODIFY_ADD, MODIFY_DELETE, NONE, SAFE_SYNC, Connection, Server, Tls
from ldap3.utils.dn import escape_rdn
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from deploy.local.directory import ssha
from gateway import settings, web
from gateway.clients.registry import Client
from gateway.identity import access, api
from gateway.identity.applications import Applications
from gateway.identity.directory import Directory
from gateway.identity.tokens import KeyRing
from gateway.portal import api as portal
from gateway.settings import Settings

CALLERS = {
    "anyone": access.Anyone,
    "reader": access.Reader,
    "writer": access.Writer,
    "operator": access.Operator,
    "auditor": access.Auditor,
    "admin": access.Admin,
    "overseer": access.Overseer,
    "platform": access.Platform,
    "lessor": access.Lessor,
}


def application(config: Settings, sessions: sessionmaker[Session]) -> FastAPI:
    app = FastAPI()
    keys = KeyRing.load(config.tokens.keys_dir)
    directory = Directory(config.ldap, config.roles)
    app.state.settings = config
    app.state.sessions = sessions
    app.state.directory = directory
    app.state.keys = keys
    app.state.access = access.Access(config, sessions, directory, keys)
    app.state.applications = Applications.load(config)
    app.include_router(api.router)
    app.include_router(portal.router)
    for name, kind in CALLERS.items():
        _add_door(app, name, kind)
    web.install(app, idle_seconds=5)
    return app


def _add_door(app: FastAPI, name: str, kind: Any) -> None:
    def door(caller: kind) -> dict[str, Any]:
        return {"subject": caller.subject, "client": caller.client}

    door.__annotations__ = {"caller": kind}
    app.get(f"/doors/{name}")(door)


@pytest.fixture
def two_clients(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        for name in ("acme", "globex"):
            session.add(Client(name=name, title=name.title(), limits={}, spec={}))


Start = Callable[..., TestClient]


@pytest.fixture
def start(
    environment: dict[str, str], sessions: sessionmaker[Session], two_clients: None
) -> Iterator[Start]:
    """Return a function that starts an application with some settings changed."""
    started: list[TestClient] = []

    def begin(**changed: object) -> TestClient:
        variables = {f"GATEWAY_{name}": str(value) for name, value in changed.items()}
        app = application(settings.load({**environment, **variables}), sessions)
        started.append(TestClient(app, raise_server_exceptions=False))
        return started[-1].__enter__()

    yield begin
    for speaker in started:
        speaker.__exit__(None, None, None)
        speaker.app.state.directory.close()


@pytest.fixture
def client(start: Start) -> TestClient:
    return start()


@pytest.fixture
def set_client_state(sessions: sessionmaker[Session]) -> Callable[[str, str], None]:
    def change(name: str, state: str) -> None:
        with sessions.begin() as session:
            found = session.get(Client, name)
            assert found is not None
            found.state = state

    return change


class DirectoryAdmin:
    """Changes the directory and takes every change back at the end."""

    def __init__(self, server: DirectoryServer) -> None:
        self.base = server.base_dn
        # A test's own tool on loopback: that the gateway verifies is tested where it is.
        ldap = Server(server.url, tls=Tls(validate=ssl.CERT_NONE), get_info=NONE)
        self._connection = Connection(
            ldap, server.admin_dn, server.admin_password, client_strategy=SAFE_SYNC
        )
        if server.url.startswith("ldap:"):
            self._connection.start_tls()
        assert self._connection.bind()[0]
        self._undo: list[Callable[[], Any]] = []

    def person(self, name: str, password: str = "right password", **more: Any) -> str:
        dn = f"uid={escape_rdn(name)},ou=people,{self.base}"
        values = {"cn": name, "sn": name, "userPassword": ssha(password), **more}
        return self._add(dn, "inetOrgPerson", values)

    def service(self, name: str, password: str = "right password") -> str:
        dn = f"uid={name},ou=services,{self.base}"
        return self._add(dn, ["account", "simpleSecurityObject"], {"userPassword": ssha(password)})

    def group(self, name: str, *members: str, below: str = "", **more: Any) -> str:
        dn = f"cn={escape_rdn(name)},{below}ou=groups,{self.base}"
        return self._add(dn, "groupOfNames", {"member": list(members), **more})

    def unit(self, name: str) -> str:
        return self._add(f"ou={name},ou=groups,{self.base}", "organizationalUnit", {})

    def add_member(self, group: str, member: str) -> None:
        self._modify(group, MODIFY_ADD, member)
        self._undo.append(lambda: self._try(group, MODIFY_DELETE, member))

    def remove_member(self, group: str, member: str) -> None:
        # groupOfNames must keep one: the group's own name gives nobody anything.
        dn = f"cn={group},ou=groups,{self.base}"
        self._try(group, MODIFY_ADD, dn)
        self._modify(group, MODIFY_DELETE, member)
        self._undo.append(lambda: self._try(group, MODIFY_DELETE, dn))
        self._undo.append(lambda: self._try(group, MODIFY_ADD, member))

    def lock(self, dn: str) -> None:
        change = {"pwdAccountLockedTime": [(MODIFY_ADD, ["000001010000Z"])]}
        done = self._connection.modify(dn, change)
        assert done[0], done[1]

    def delete(self, dn: str) -> None:
        assert self._connection.delete(dn)[0]

    def restore(self) -> None:
        while self._undo:
            self._undo.pop()()
        self._connection.unbind()

    def _add(self, dn: str, classes: Any, values: dict[str, Any]) -> str:
        done = self._connection.add(dn, classes, values)
        assert done[0], done[1]
        self._undo.append(lambda: self._connection.delete(dn))
        return dn

    def _modify(self, group: str, how: str, member: str) -> None:
        done = self._try(group, how, member)
        assert done[0], done[1]

    def _try(self, group: str, how: str, member: str) -> Any:
        dn = f"cn={group},ou=groups,{self.base}"
        return self._connection.modify(dn, {"member": [(how, [member])]})


@pytest.fixture
def directory_admin(directory_server: DirectoryServer) -> Iterator[DirectoryAdmin]:
    admin = DirectoryAdmin(directory_server)
    yield admin
    admin.restore()
