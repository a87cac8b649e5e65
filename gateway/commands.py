"""Operators' commands about clients, the trail, keys, holds and what is stored."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.console import fail, failures, operator, services

if TYPE_CHECKING:
    from gateway.bootstrap import Services

clients = typer.Typer(no_args_is_help=True, help="Onboard clients from their files.")
audit = typer.Typer(no_args_is_help=True, help="Prove and export the audit trail.")
keys = typer.Typer(no_args_is_help=True, help="Signing keys.")
holds = typer.Typer(no_args_is_help=True, help="Legal holds, which stop retention.")
SpecFiles = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Client files (YAML).")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (reconcile, rebuild):
        app.command()(command)
    for name, group in {"clients": clients, "audit": audit, "keys": keys, "holds": holds}.items():
        app.add_typer(group, name=name)


@clients.command("plan")
def clients_plan(files: SpecFiles) -> None:
    """Print what applying would change.

    Example: gateway clients plan acme.yaml
    """
    from gateway.onboarding import plan, spec  # noqa: PLC0415
    from gateway.onboarding.offer import Offer  # noqa: PLC0415

    with failures(), services() as parts:
        offer = Offer.of(parts.settings)
        specs = [spec.read(path, offer) for path in files]
        with parts.sessions.begin() as session:
            for each in specs:
                _print_changes(each.client, plan.changes(session, each))


@clients.command("apply")
def clients_apply(files: SpecFiles) -> None:
    """Bring clients to what their files say; a second time changes nothing.

    Example: gateway clients apply acme.yaml globex.yaml
    """
    from gateway.onboarding import apply, spec  # noqa: PLC0415
    from gateway.onboarding.offer import Offer  # noqa: PLC0415

    with failures(), services() as parts:
        offer = Offer.of(parts.settings)
        specs = [spec.read(path, offer) for path in files]
        with parts.sessions.begin() as session:
            for each in specs:
                _print_changes(each.client, apply.apply(session, each, actor=operator()))
        _export(parts)


@clients.command("list")
def clients_list() -> None:
    """List clients and their projects.

    Example: gateway clients list
    """
    from gateway.clients import registry  # noqa: PLC0415

    with failures(), services() as parts, parts.sessions.begin() as session:
        for client in registry.clients(session):
            names = [each.name for each in registry.projects_of(session, client.name)]
            typer.echo(f"{client.name}\t{client.state}\t{client.title}\t{', '.join(names)}")


@clients.command("offboard")
def clients_offboard(name: str) -> None:
    """End a client: nobody of it gets in, its DAGs go; what it delivered is kept.

    Example: gateway clients offboard acme
    """
    from gateway.onboarding import apply  # noqa: PLC0415

    with failures(), services() as parts:
        with parts.sessions.begin() as session:
            ended = apply.offboard(session, name, actor=operator())
        _export(parts)
    if not ended:
        fail(f"there is no client {name}")


@audit.command("verify")
def audit_verify() -> None:
    """Recompute the whole chain; exit code 1 when a record was changed or is missing.

    Example: gateway audit verify
    """
    from gateway.audit import trail  # noqa: PLC0415

    with failures(), services() as parts, parts.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        verdict = trail.verify(session)
    if verdict.broken_at is not None:
        fail(f"record {verdict.broken_at}: {verdict.reason}")
    typer.echo(f"{verdict.records} records hold; head {verdict.head}")


@audit.command("export")
def audit_export() -> None:
    """Print every record as NDJSON, oldest first, and a signed head as the last line.

    Example: gateway audit export > audit.ndjson
    """
    from gateway import database  # noqa: PLC0415
    from gateway.audit import trail  # noqa: PLC0415

    with failures(), services() as parts, parts.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        database.take_time(session)  # whoever reads may be slow
        for line in trail.lines(session):
            sys.stdout.write(line + "\n")
        head = trail.head(session)
        signed = parts.keys.sign_bytes(json.dumps(head).encode(), typ="audit-head+jws")
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

    with failures():
        config = settings.load()
        engine = database.connect(config.database)
        try:
            made = rotation.rotate(
                database.sessions(engine),
                config.tokens.keys_dir,
                wait_seconds=0 if now else config.tokens.publish_seconds,
                actor=operator(),
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

    with failures():
        for key in signing_keys.read(settings.load().tokens.keys_dir):
            typer.echo(f"{key.kid}\t{key.state(time.time())}\t{_moment(key.signs_from)}")


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

    with failures(), services() as parts, parts.sessions.begin() as session:
        hold = legal.put(
            session, client, project=project, batch_id=batch, reason=reason, actor=operator()
        )
        typer.echo(hold.id)


@holds.command("lift")
def holds_lift(hold: str) -> None:
    """End a hold: retention goes on with what it covered.

    Example: gateway holds lift hld_01kaz3v4e8m3w5q9r7t2y6x0bc
    """
    from gateway.batches import holds as legal  # noqa: PLC0415

    with failures(), services() as parts, parts.sessions.begin() as session:
        legal.lift(session, hold, actor=operator())


@holds.command("list")
def holds_list() -> None:
    """List the holds in force.

    Example: gateway holds list
    """
    from gateway.batches import holds as legal  # noqa: PLC0415

    with failures(), services() as parts, parts.sessions.begin() as session:
        for each in legal.in_force(session):
            covered = each.batch_id or each.project or "everything"
            typer.echo(f"{each.id}\t{each.client}\t{covered}\t{each.set_by}\t{each.reason}")


def reconcile(
    repair: Annotated[bool, typer.Option("--repair", help="Adopt and quarantine.")] = False,  # noqa: FBT002
) -> None:
    """Compare the landing zone with the ledger; nothing unknown is ever deleted.

    Example: gateway reconcile --repair
    """
    from gateway.admin import reconcile as reconciler  # noqa: PLC0415

    with failures(), services() as parts:
        report = reconciler.run(parts.sessions, parts.zone, repair=repair, actor=operator())
    typer.echo(json.dumps(report.as_json(), indent=1))
    if report.findings and not repair:
        raise typer.Exit(1)


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
    with failures(), services() as parts:
        done = rebuilder.run(
            parts.sessions,
            parts.keys,
            parts.settings.pipeline,
            client,
            name,
            without_purged=without_purged,
            actor=operator(),
        )
    typer.echo(json.dumps(done, indent=1))


def _export(parts: Services) -> None:
    from gateway.onboarding import apply  # noqa: PLC0415

    with parts.sessions.begin() as session:
        apply.export(session, parts.settings.airflow.registry_path)


def _print_changes(client: str, changes: list[Any]) -> None:
    for change in changes or ["nothing to change"]:
        typer.echo(f"{client}: {change}")


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
