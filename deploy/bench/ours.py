"""The gateway as shipped, with a real Postgres that syncs and a real OpenLDAP; and its doors."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from deploy.bench import driving, servers
from deploy.bench.driving import STORE, RunError
from deploy.bench.servers import Door, Server, Tus
from deploy.bench.wire import Request
from deploy.local import directory, postgres, programs
from deploy.local.directory import Directory
from deploy.local.postgres import Postgres
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT

CLIENT, PROJECT, ACCOUNT = "acme", "flights", "acme-uploader"
CONTRACT = ROOT / "deploy/demo/flights.odcs.yaml"
SPEC = {
    "client": CLIENT,
    "name": "Bench",
    "limits": {
        "file_bytes": "1TiB",
        "batch_bytes": "100TiB",
        "files_per_batch": 1_000_000,
        "open_batches": 100_000,
        "uploads_in_flight": 1000,
        "requests_per_second": 100_000,
    },
    "projects": {PROJECT: {"contract": CONTRACT.name}},
}
TOKEN_SECONDS = 300
_references = itertools.count(1)


@dataclass
class Gateway(Server):
    """A running gateway, and what its operator would do with it."""

    password: str = ""
    _token: str = ""
    _token_since: float = field(default=float("-inf"))

    @property
    def landing(self) -> Path:
        """The client's folder in the landing zone."""
        return self.folder / CLIENT / PROJECT

    def authorization(self) -> dict[str, str]:
        """Return the header of a signed-in caller."""
        if time.monotonic() - self._token_since > TOKEN_SECONDS:
            basic = base64.b64encode(f"{ACCOUNT}:{self.password}".encode()).decode()
            form = urlencode({"grant_type": "client_credentials"})
            headers = {
                "Authorization": f"Basic {basic}",
                "Content-Type": "application/x-www-form-urlencoded",
            }
            self._token = self._call("POST", "/v1/token", form, headers)["access_token"]
            self._token_since = time.monotonic()
        return {"Authorization": f"Bearer {self._token}"}

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """Call the API and return the answer's document.

        Raises
        ------
        RunError
            The answer is a problem.
        """
        headers = {**self.authorization(), "Content-Type": "application/json"}
        return self._call(method, path, json.dumps(document) if document else "", headers)

    def open_batch(self) -> str:
        """Open a batch and return its id."""
        wanted = {"project": PROJECT, "reference": reference()}
        identity: str = self.ask("POST", "/v1/batches", wanted)["id"]
        return identity

    def _call(self, method: str, path: str, body: str, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RunError(f"{method} {path} answered {answer.status}: {text[:300]}")
        return json.loads(text or "null")


def reference() -> str:
    """Return a name that no delivery had before."""
    return f"bench-{next(_references)}"


@contextmanager
def database() -> Iterator[Postgres]:
    """Start Postgres as shipped: with fsync."""
    with postgres.start(STORE / "postgres", servers.free_port()) as server:
        for name in ("gateway", "peer"):
            server.drop_database(name)
        yield server


@contextmanager
def gateway(store: Postgres) -> Iterator[Gateway]:
    """Start OpenLDAP and a gateway on a new database, with one client onboarded."""
    with ExitStack() as stack:
        people = stack.enter_context(directory.start(STORE / "directory", servers.free_port()))
        port = servers.free_port()
        url = store.create_database("gateway", "gateway", "bench")
        env = _environment(url, people, port)
        for words in (["migrate"], ["keys", "rotate"], ["clients", "apply", str(_spec())]):
            command: programs.Words = [sys.executable, "-m", "gateway", *words]
            programs.run(command, f"gateway {words[0]}", env=env, cwd=ROOT)
        serve = [sys.executable, "-m", "gateway", "serve"]
        server = stack.enter_context(servers.running("gateway", serve, port, env=env, cwd=ROOT))
        yield Gateway(**vars(server), password=people.passwords[ACCOUNT])


def _environment(url: str, people: Directory, port: int) -> dict[str, str]:
    keys = STORE / "keys"
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(mode=0o700)
    landing = servers.files_folder("gateway")
    landing.chmod(0o700)
    given = {
        "DATABASE_URL": url,
        "LDAP_URL": people.url,
        "LDAP_CA_PATH": people.ca_path,
        "LDAP_BIND_DN": people.bind_dn,
        "LDAP_BIND_PASSWORD": people.bind_password,
        "LDAP_BASE_DN": people.base_dn,
        "TOKENS_ISSUER": f"http://{LOOPBACK}:{port}",
        "TOKENS_KEYS_DIR": keys,
        "LANDING_ROOT": landing,
        "AIRFLOW_URL": f"http://{LOOPBACK}:9",
        "AIRFLOW_REGISTRY_PATH": STORE / "registry.json",
        "SERVER_PORT": port,
    }
    return servers.environment(**{f"GATEWAY_{name}": value for name, value in given.items()})


def _spec() -> Path:
    shutil.copy(CONTRACT, STORE)
    path = STORE / "client.yaml"
    path.write_text(json.dumps(SPEC))  # JSON is YAML
    return path


class OurDoor(Door):
    """Files of an open batch."""

    server: Gateway

    def begin(self) -> str:
        """Open a batch."""
        return self.server.open_batch()

    def folder(self, place: str) -> Path:
        """Return the batch's folder."""
        return self.server.landing / place / "files"


class RawPut(OurDoor):
    """``PUT /v1/batches/{id}/files/{name}``."""

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return the one PUT."""
        headers = self.server.authorization()
        return [Request("PUT", f"/v1/batches/{place}/files/{name}", headers, length=size_bytes)]


class Submission(OurDoor):
    """``POST /v1/submissions``: the batch is made and sealed by the request itself."""

    def begin(self) -> str:
        """Choose a reference; there is no batch yet."""
        return reference()

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return the one POST."""
        fields = {"project": PROJECT, "reference": place}
        parts = servers.multipart(name, size_bytes, fields)
        headers = {**self.server.authorization(), "Content-Type": servers.MULTIPART}
        return [Request("POST", "/v1/submissions", headers, expected=202, **parts)]

    def folder(self, place: str) -> Path:
        """Find the batch of this reference."""
        items = self.server.ask("GET", f"/v1/batches?reference={place}")["items"]
        batch = items[0]["id"] if items else "none"
        return self.server.landing / batch / "files"


class OurTus(OurDoor, Tus):
    """``POST /v1/batches/{id}/uploads``, then PATCHes."""

    def creation_path(self, place: str) -> str:
        """Return where an upload of this batch is created."""
        return f"/v1/batches/{place}/uploads"

    def headers(self, name: str, size_bytes: int) -> dict[str, str]:
        """Return the creation's headers, with the file's name."""
        encoded = base64.b64encode(name.encode()).decode()
        named = {"Upload-Metadata": f"filename {encoded}"}
        return {**super().headers(name, size_bytes), **named, **self.server.authorization()}

    def patch_headers(self) -> dict[str, str]:
        """Return a PATCH's headers, with the token."""
        return {**super().patch_headers(), **self.server.authorization()}

    def stored(self, place: str, names: Sequence[str]) -> list[Path]:
        """Return the paths: we keep the names that were given."""
        return Door.stored(self, place, names)

    def end(self, place: str) -> None:
        """Remove the batch's folder."""
        driving.remove(self.folder(place))
