"""The command line: a client's own commands, and the operators' where the server is installed.

Exit codes: 0 done, 1 failed, 2 usage. The server's modules are imported by the commands that
need them: the light install on a client's machine has none of them.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.sdk import cli as client_commands

if TYPE_CHECKING:
    from gateway.bootstrap import Services
    from gateway.settings import Server

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Deliver batches to an ingestion gateway, and run one.",
)
clients = typer.Typer(no_args_is_help=True, help="Onboard clients from their files.")
audit = typer.Typer(no_args_is_help=True, help="Prove and export the audit trail.")
holds = typer.Typer(no_args_is_help=True, help="Legal holds, which stop retention.")
keys = typer.Typer(no_args_is_help=True, help="Signing keys.")
SpecFiles = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Client files (YAML).")]


def main() -> None:
    """Run the command line."""
    app()


def serve() -> None:
    """Serve the HTTP API.

    Example: gateway serve
    """
    import uvicorn  # noqa: PLC0415

    from gateway import settings  # noqa: PLC0415

    with _failures():
        config = settings.load()
        uvicorn.run(
            "gateway.app:from_environment",
            factory=True,
            host=config.server.host,
            port=config.server.port,
            workers=config.server.workers,
            http=_http_protocol(config.server),
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=20,
            # A process that starts on a busy machine imports for longer than the default of 5 s:
            # it was taken for dead, and begun again, for ever.
            timeout_worker_healthcheck=60,
        )


def worker() -> None:
    """Carry out what was sealed: trigger runs, watch them, sweep.

    Example: gateway worker
    """
    from gateway import worker as loop  # noqa: PLC0415

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _failures(), _services() as services:
        loop.run(services, stop)


def migrate() -> None:
    """Bring the database to the newest schema.

    Example: gateway migrate
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    from gateway import settings  # noqa: PLC0415

    with _failures():
        settings.database()
        command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")


@clients.command("plan")
def clients_plan(files: SpecFiles) -> None:
    """Print what applying would change.

    Example: gateway clients plan acme.yaml
    """
    from gateway.onboarding import plan, spec  # noqa: PLC0415

    with _failures(), _services() as services:
        specs = [spec.read(path) for path in files]
        with services.sessions.begin() as session:
            for each in specs:
                _print_changes(each.client, plan.changes(session, each))


@clients.command("apply")
def clients_apply(files: SpecFiles) -> None:
    """Bring clients to what their files say; a second time changes nothing.

    Example: gateway clients apply acme.yaml globex.yaml
    """
    from gateway.onboarding import apply, spec  # noqa: PLC0415

    with _failures(), _services() as services:
        specs = [spec.read(path) for path in files]
        with services.sessions.begin() as session:
            for each in specs:
                _print_changes(each.client, apply.apply(session, each, actor=_operator()))
        _export(services)


@clients.command("list")
def clients_list() -> None:
    """List clients and their projects.

    Example: gateway clients list
    """
    from gateway.clients import registry  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        for client in registry.clients(session):
            names = [each.name for each in registry.projects_of(session, client.name)]
            typer.echo(f"{client.name}\t{client.state}\t{client.title}\t{', '.join(names)}")


@clients.command("offboard")
def clients_offboard(name: str) -> None:
    """End a client: nobody of it gets in, its DAGs go; what it delivered is kept.

    Example: gateway clients offboard acme
    """
    from gateway.onboarding import apply  # noqa: PLC0415

    with _failures(), _services() as services:
        with services.sessions.begin() as session:
            ended = apply.offboard(session, name, actor=_operator())
        _export(services)
    if not ended:
        _fail(f"there is no client {name}")


@audit.command("verify")
def audit_verify() -> None:
    """Recompute the whole chain; exit code 1 when a record was changed or is missing.

    Example: gateway audit verify
    """
    from gateway.audit import trail  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        verdict = trail.verify(session)
    if verdict.broken_at is not None:
        _fail(f"record {verdict.broken_at}: {verdict.reason}")
    typer.echo(f"{verdict.records} records hold; head {verdict.head}")


@audit.command("export")
def audit_export() -> None:
    """Print every record as NDJSON, oldest first, and a signed head as the last line.

    Example: gateway audit export > audit.ndjson
    """
    from gateway import database  # noqa: PLC0415
    from gateway.audit import trail  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        database.take_time(session)  # whoever reads may be slow
        for line in trail.lines(session):
            sys.stdout.write(line + "\n")
        head = trail.head(session)
        signed = services.keys.sign_bytes(json.dumps(head).encode(), typ="audit-head+jws")
        sys.stdout.write(json.dumps({"head": head, "signed": signed}) + "\n")


@keys.command("rotate")
def keys_rotate(
    now: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--now", help="Sign with it at once: the old key is not to be trusted.")
    ] = False,
) -> None:
    """Make a new signing key, published at once, signing once everybody can know it.

    Old keys verify until every token they signed has expired, and receipts for ever. No process
    has to be started again.

    Example: gateway keys rotate
    """
    from gateway import database, settings  # noqa: PLC0415
    from gateway.identity import rotation  # noqa: PLC0415

    with _failures():
        config = settings.load()
        engine = database.connect(config.database)
        try:
            made = rotation.rotate(
                database.sessions(engine),
                config.tokens.keys_dir,
                wait_seconds=0 if now else config.tokens.publish_seconds,
                actor=_operator(),
            )
        finally:
            engine.dispose()
    typer.echo(f"key {made.kid} signs from {_moment(made.signs_from)}")


@keys.command("list")
def keys_list() -> None:
    """List the keys, oldest first: waiting, signing, verifying, or retired (receipts only).

    Example: gateway keys list
    """
    from gateway import settings  # noqa: PLC0415
    from gateway.identity import keys as signing_keys  # noqa: PLC0415

    with _failures():
        for key in signing_keys.read(settings.load().tokens.keys_dir):
            typer.echo(f"{key.kid}\t{key.state(time.time())}\t{_moment(key.signs_from)}")


def reconcile(
    repair: Annotated[bool, typer.Option("--repair", help="Adopt and quarantine.")] = False,  # noqa: FBT002
) -> None:
    """Compare the landing zone with the ledger; nothing unknown is ever deleted.

    Example: gateway reconcile --repair
    """
    from gateway.admin import reconcile as reconciler  # noqa: PLC0415

    with _failures(), _services() as services:
        report = reconciler.run(services.sessions, services.zone, repair=repair, actor=_operator())
    typer.echo(json.dumps(report.as_json(), indent=1))
    if report.findings and not repair:
        raise typer.Exit(1)


@holds.command("set")
def holds_set(
    client: Annotated[str, typer.Option(help="Whose deliveries are kept.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    project: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    batch: Annotated[str | None, typer.Option(help="This batch alone.")] = None,
) -> None:
    """Keep what a client delivered, whatever retention says, until the hold is lifted.

    Example: gateway holds set --client acme --project flights --reason "case 2026-17"
    """
    from gateway.batches import holds as legal  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        hold = legal.put(
            session, client, project=project, batch_id=batch, reason=reason, actor=_operator()
        )
        typer.echo(hold.id)


@holds.command("lift")
def holds_lift(hold: str) -> None:
    """End a hold: retention goes on with what it covered.

    Example: gateway holds lift hld_01kaz3v4e8m3w5q9r7t2y6x0bc
    """
    from gateway.batches import holds as legal  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        legal.lift(session, hold, actor=_operator())


@holds.command("list")
def holds_list() -> None:
    """List the holds in force.

    Example: gateway holds list
    """
    from gateway.batches import holds as legal  # noqa: PLC0415

    with _failures(), _services() as services, services.sessions.begin() as session:
        for each in legal.in_force(session):
            covered = each.batch_id or each.project or "everything"
            typer.echo(f"{each.id}\t{each.client}\t{covered}\t{each.set_by}\t{each.reason}")


def rebuild(
    project: Annotated[str, typer.Option(metavar="CLIENT/PROJECT", help="Whose tables.")],
    without_purged: Annotated[  # noqa: FBT002
        bool, typer.Option("--without-purged", help="Leave purged batches' rows out.")
    ] = False,
) -> None:
    """Make a project's curated tables again from its retained batches, and swap them in.

    Example: gateway rebuild --project acme/flights
    """
    from gateway.admin import rebuild as rebuilder  # noqa: PLC0415

    client, _, name = project.partition("/")
    with _failures(), _services() as services:
        done = rebuilder.run(
            services.sessions,
            services.keys,
            services.settings.pipeline,
            client,
            name,
            without_purged=without_purged,
            actor=_operator(),
        )
    typer.echo(json.dumps(done, indent=1))


def _http_protocol(server: Server) -> Any:
    # h11 was seen to serve a smuggled request; httptools refuses every such framing.
    if server.protocol == "stock":
        return "httptools"
    from gateway.web.protocol import UploadProtocol  # noqa: PLC0415

    return partial(UploadProtocol, header_seconds=server.header_seconds)


@contextmanager
def _services() -> Iterator[Services]:
    from gateway import bootstrap, settings  # noqa: PLC0415

    services = bootstrap.build(settings.load())
    try:
        yield services
    finally:
        services.close()


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what an operator can mend into clear lines and exit code 1."""
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from gateway.errors import GatewayError  # noqa: PLC0415
    from gateway.settings import SettingsError  # noqa: PLC0415

    try:
        yield
    except SettingsError as error:
        _fail(str(error))
    except GatewayError as error:
        lines = [f"{fault.pointer}: {fault.detail}" for fault in error.errors]
        _fail("\n".join([error.detail or error.title, *lines]))
    except OperationalError:
        _fail("the database does not answer")


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _export(services: Services) -> None:
    from gateway.onboarding import apply  # noqa: PLC0415

    with services.sessions.begin() as session:
        apply.export(session, services.settings.airflow.registry_path)


def _print_changes(client: str, changes: list[Any]) -> None:
    for change in changes or ["nothing to change"]:
        typer.echo(f"{client}: {change}")


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _operator() -> str:
    return f"operator:{getpass.getuser()}"


client_commands.add_commands(app)
if importlib.util.find_spec("sqlalchemy") is not None:
    for command in (serve, worker, migrate, reconcile, rebuild):
        app.command()(command)
    app.add_typer(clients, name="clients")
    app.add_typer(audit, name="audit")
    app.add_typer(keys, name="keys")
    app.add_typer(holds, name="holds")
