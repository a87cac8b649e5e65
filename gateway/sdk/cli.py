"""The commands for a client's machine: ``gateway send``, ``status`` and ``receipt``.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. Rows rejected within the project's
tolerance are a warning (0), or a failure with ``--strict`` (1).
"""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from gateway.sdk import delivery, files, options, receipt, records, results
from gateway.sdk import follow as following
from gateway.sdk.client import GatewayClient
from gateway.sdk.display import Display
from gateway.sdk.options import Connection
from gateway.sdk.records import Batch, Job, Reject
from gateway.sdk.results import reporting

SHOWN_REJECTS = 10

app = typer.Typer(no_args_is_help=True, help="Deliver files and watch what becomes of them.")
receipts = typer.Typer(no_args_is_help=True, help="Prove what was delivered.")


def add_commands(target: typer.Typer) -> None:
    """Add the client's commands to an application."""
    target.command("send")(send)
    target.command("status")(status)
    target.add_typer(receipts, name="receipt")


@options.with_connection
def send(  # noqa: PLR0913
    paths: Annotated[list[Path], typer.Argument(metavar="FILES", help="Files to deliver.")],
    project: Annotated[str, typer.Option(help="Project (feed) they belong to.")],
    reference: Annotated[str, typer.Option(help="Your own name for this delivery.")],
    connection: Connection,
    *,
    mode: Annotated[
        Literal["load", "validate"], typer.Option(help="Load the data, or only check it.")
    ] = "load",
    period_start: Annotated[str, typer.Option(help="First day or time the data is about.")] = "",
    period_end: Annotated[str, typer.Option(help="Last day or time the data is about.")] = "",
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept in the manifest.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop what an unfinished delivery holds beyond FILES.")
    ] = False,
    parallel: Annotated[
        int, typer.Option(min=1, max=16, help="Files to send at a time.")
    ] = delivery.PARALLEL,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until the data is processed.")
    ] = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    strict: options.Strict = False,
    as_json: options.AsJson = False,
) -> None:
    """Deliver files: send, seal, verify the receipt.

    Run the same command again after an interruption: files that arrived are not sent twice,
    those over 8 MiB go on in the middle (by tus; how far they came is kept below
    XDG_STATE_HOME until the receipt is verified), and a delivery that is complete is only
    verified. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.

    Example: gateway send --project flights --reference 2013-01 *.csv --follow
    """
    display = Display()
    order = delivery.Order(
        project=project,
        reference=reference,
        paths=paths,
        mode=mode,
        period=options.period_of(period_start, period_end),
        metadata=options.metadata_of(metadata or ()),
        replace=replace,
    )
    hint = "Run the same command again: it goes on where it stopped."
    with reporting(hint, as_json=as_json):
        files.check(paths)
        with connection.open() as gateway:
            notes = connection.notes(project, reference, display.say)
            with closing(notes), display.sending(paths):
                delivered = delivery.deliver(gateway, order, display, parallel, notes)
            display.sealed(delivered)
            job = _follow(gateway, delivered.job, display, timeout) if follow else None
            rejects = _first_rejects(gateway, job, display)
    results.print_sent(delivered, job, rejects, as_json=as_json)
    raise typer.Exit(results.exit_code(job, strict=strict))


@options.with_connection
def status(
    connection: Connection,
    *,
    target: Annotated[str, typer.Argument(metavar="BATCH|JOB", help="Id of either.")] = "",
    project: Annotated[str, typer.Option(help="Project of the deliveries to show.")] = "",
    reference: Annotated[str, typer.Option(help="Your name for the delivery.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the job has ended.")] = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    strict: options.Strict = False,
    as_json: options.AsJson = False,
) -> None:
    """Show how a delivery or a job stands; with --project alone, list the deliveries.

    Without --follow the exit code says only whether the question was answered.

    Example: gateway status --project flights --reference 2013-01 --follow
    """
    if bool(target) == bool(project) or (reference and not project):
        raise typer.BadParameter("give a BATCH or JOB id, or --project (with --reference)")
    if target and not target.startswith(("bat_", "job_")):
        raise typer.BadParameter(f"{target} is neither the id of a batch nor of a job")
    display = Display()
    hint = "The job goes on; run the same command again to see how it stands."
    with reporting(hint, as_json=as_json), connection.open() as gateway:
        if project and not reference:
            results.print_batches(gateway.iter_batches(project), as_json=as_json)
            return
        batch, job = _look_up(gateway, target, project, reference)
        if job and follow:
            job = _follow(gateway, job.id, display, timeout)
        rejects = _first_rejects(gateway, job, display)
    results.print_status(batch, job, rejects, as_json=as_json)
    raise typer.Exit(results.exit_code(job, strict=strict) if follow else 0)


@receipts.command("verify")
@options.with_connection
def verify(
    connection: Connection,
    *,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Id of a sealed batch.")] = "",
    directory: Annotated[
        Path | None,
        typer.Option("--dir", exists=True, file_okay=False, help="Compare with the files here."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A receipt kept earlier: no network."),
    ] = None,
    jwks: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The gateway's keys, kept earlier."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Verify a receipt, and that local files are the ones it names.

    Example: gateway receipt verify --file receipt.jws --jwks jwks.json --dir ./delivered
    """
    if bool(batch) == bool(file) or bool(file) != bool(jwks):
        raise typer.BadParameter("give either BATCH, or --file and --jwks")
    with reporting("Nothing was changed.", as_json=as_json):
        if file and jwks:
            proof = receipt.verify_kept(file, jwks)
        else:
            with connection.open() as gateway:
                proof = gateway.verified_receipt(batch)
        if directory:
            receipt.compare(proof, directory)
    results.print_receipt(proof, directory, as_json=as_json)


@receipts.command("save")
@options.with_connection
def save(
    batch: Annotated[str, typer.Argument(help="Id of a sealed batch.")],
    connection: Connection,
    *,
    directory: Annotated[
        Path, typer.Option("--dir", exists=True, file_okay=False, help="Where to put them.")
    ] = Path(),
) -> None:
    """Keep a receipt, its manifest and the gateway's keys, to verify without a network.

    Example: gateway receipt save bat_01kaz3tzs1c8d5f7g9h2j4k6mn --dir ./proofs
    """
    hint = "Nothing was changed at the gateway."
    with reporting(hint, as_json=False), connection.open() as gateway:
        compact, keys = gateway.receipt(batch), gateway.jwks()
        proof = receipt.verify(compact, keys, gateway.manifest(batch))
        (directory / "receipt.jws").write_text(compact, "ascii")
        (directory / "manifest.json").write_bytes(proof.payload)
        (directory / "jwks.json").write_text(json.dumps(dict(keys), indent=2), "utf-8")
    typer.echo(f"receipt.jws, manifest.json and jwks.json are in {directory}")


def _follow(gateway: GatewayClient, job_id: str, display: Display, timeout: float) -> Job:
    with display.following():
        return following.follow(gateway, job_id, display.changed, timeout_seconds=timeout)


def _first_rejects(gateway: GatewayClient, job: Job | None, display: Display) -> list[Reject]:
    if job is None or not job.rows.rejected:
        return []
    rejects = list(itertools.islice(gateway.iter_rejects(job.id), SHOWN_REJECTS))
    display.rejects(rejects, job.rows.rejected)
    return rejects


def _look_up(
    gateway: GatewayClient, target: str, project: str, reference: str
) -> tuple[Batch | None, Job | None]:
    """Return what was asked for: a job, or a batch with its latest job if it has one."""
    if target.startswith("job_"):
        return None, gateway.get_job(target)
    batch = gateway.get_batch(target or _batch_id(gateway, project, reference))
    return batch, gateway.get_job(max(batch.jobs)) if batch.jobs else None


def _batch_id(gateway: GatewayClient, project: str, reference: str) -> str:
    """Return the live batch of a reference, else the latest that had it."""
    found = list(gateway.iter_batches(project, reference))
    if not found:
        raise typer.BadParameter(f"there is no delivery {reference} in {project}")
    return max(found, key=lambda batch: (batch.state in records.LIVE_BATCHES, batch.id)).id


add_commands(app)
