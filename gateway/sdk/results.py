"""What a command leaves behind: text or JSON on standard output, and its exit code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from gateway.sdk import records
from gateway.sdk.delivery import Delivered
from gateway.sdk.display import describe, human_size, printable
from gateway.sdk.problems import AbortedError, ClientError, GatewayProblem, UnusableFilesError
from gateway.sdk.receipt import Receipt
from gateway.sdk.records import Batch, Job, Reject

DONE, FAILED, INTERRUPTED = 0, 1, 130
SHOWN_FILES = 20


@contextmanager
def reporting(hint: str, *, as_json: bool) -> Iterator[None]:
    """Turn a failure into its message and exit code; ``hint`` tells what to do when interrupted."""
    try:
        yield
    except UnusableFilesError as error:
        raise typer.BadParameter(str(error)) from error
    except (KeyboardInterrupt, AbortedError) as error:
        typer.echo(f"\nInterrupted. {hint}", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except (ClientError, OSError) as error:
        typer.echo(f"failed: {printable(str(error))}", err=True)
        if as_json:
            _print_json({"outcome": "failed", "problem": _problem(error)})
        raise typer.Exit(FAILED) from error


def exit_code(job: Job | None, *, strict: bool) -> int:
    """Return the exit code for what became of a job; None was not followed."""
    if job is None or job.state == records.SUCCEEDED:
        return DONE
    if job.state == records.PARTIALLY_SUCCEEDED and not strict:
        return DONE
    return FAILED


def print_sent(
    delivered: Delivered, job: Job | None, rejects: Sequence[Reject], *, as_json: bool
) -> None:
    """Print what was delivered and what became of it."""
    total_bytes = sum(file.size_bytes for file in delivered.files)
    if as_json:
        _print_json(
            {
                "outcome": job.state if job else "sealed",
                "batch": delivered.batch,
                "job": _as_dict(job) if job else {"id": delivered.job},
                "files": [
                    {
                        "name": file.name,
                        "size_bytes": file.size_bytes,
                        "sha256": file.sha256,
                        "skipped": file.name in delivered.skipped,
                    }
                    for file in delivered.files
                ],
                "receipt": _receipt(delivered.receipt),
                "rejects": [_as_dict(reject) for reject in rejects],
            }
        )
        return
    size = human_size(total_bytes)
    typer.echo(f"{delivered.batch}: {len(delivered.files)} files, {size}, receipt verified")
    typer.echo(describe(job) if job else f"{delivered.job} processes it")


def print_status(
    batch: Batch | None, job: Job | None, rejects: Sequence[Reject], *, as_json: bool
) -> None:
    """Print how a batch and its latest job stand."""
    if as_json:
        _print_json(
            {
                "batch": _as_dict(batch) if batch else None,
                "job": _as_dict(job) if job else None,
                "rejects": [_as_dict(reject) for reject in rejects],
            }
        )
        return
    if batch:
        typer.echo(_line(batch))
        for file in batch.files[:SHOWN_FILES]:
            line = f"  {file.name}  {human_size(file.size_bytes)}  {file.state}  {file.sha256}"
            typer.echo(printable(line))
        if len(batch.files) > SHOWN_FILES:
            typer.echo(f"  and {len(batch.files) - SHOWN_FILES} more; --json lists all")
    typer.echo(describe(job) if job else "not sealed: there is no job yet")


def print_batches(batches: Iterable[Batch], *, as_json: bool) -> None:
    """Print one line for each batch."""
    if as_json:
        _print_json({"items": [_as_dict(batch) for batch in batches]})
        return
    for batch in batches:
        typer.echo(_line(batch))


def print_receipt(proof: Receipt, directory: Path | None, *, as_json: bool) -> None:
    """Print what a verified receipt proves."""
    if as_json:
        _print_json(_receipt(proof) | {"files_compared": directory is not None})
        return
    what = f"{proof.project} {proof.reference}, {len(proof.files)} files"
    typer.echo(
        printable(
            f"The receipt of {proof.batch} is valid: {what}, "
            f"sealed {proof.sealed_at}, signed with key {proof.kid}"
        )
    )
    if directory:
        typer.echo(f"The files in {directory} are the ones it names")


def _line(batch: Batch) -> str:
    words = (batch.id, batch.state, batch.project, batch.reference, batch.mode, batch.created_at)
    return printable("  ".join(word for word in words if word))


def _receipt(proof: Receipt) -> dict[str, Any]:
    return {
        "verified": True,
        "kid": proof.kid,
        "batch": proof.batch,
        "client": proof.client,
        "project": proof.project,
        "reference": proof.reference,
        "sealed_at": proof.sealed_at,
        "files": [
            {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
            for file in proof.files.values()
        ],
    }


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, GatewayProblem):
        return error.as_json()
    slug = type(error).__name__.removesuffix("Error")
    return {"slug": slug.lower(), "title": str(error)}


def _as_dict(record: Batch | Job | Reject) -> dict[str, Any]:
    return dataclasses.asdict(record)


def _print_json(body: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(body, indent=2))
