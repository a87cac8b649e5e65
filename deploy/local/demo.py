"""What two client systems do in the demo, through the gateway's public API alone."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deploy.local import dataset, gateway, layout, processes, programs
from deploy.local.programs import StackError
from deploy.local.stack import ACCOUNTS, Stack


@dataclass(frozen=True)
class Delivery:
    """One client's delivery."""

    account: str
    client: str
    project: str
    files: list[Path]


def deliver(stack: Stack) -> None:
    """Deliver a year of flights and of weather, and say what became of both.

    Raises
    ------
    StackError
        A delivery failed, or its receipt does not prove it.
    """
    # Each run is a delivery of its own: a client's name for a delivery is taken only once.
    reference = time.strftime("2013-%Y%m%dT%H%M%SZ", time.gmtime())
    for delivery in (
        Delivery("acme-uploader", "acme", "flights", [dataset.FLIGHTS]),
        Delivery("globex-uploader", "globex", "weather", [dataset.WEATHER]),
    ):
        print(f"\n{delivery.client} delivers {', '.join(each.name for each in delivery.files)}")
        result = _send(stack, delivery, reference)
        _report(delivery, result)
        _verify(stack, delivery, result["batch"])


def _send(stack: Stack, delivery: Delivery, reference: str) -> dict[str, Any]:
    words = ["--project", delivery.project, "--reference", reference, "--follow", "--json"]
    outcome = _gateway(stack, delivery, "send", *words, *map(str, delivery.files))
    try:
        result: dict[str, Any] = json.loads(outcome.stdout)
    except ValueError:
        result = {"outcome": "failed"}
    if outcome.returncode != 0:
        stack.check()
        message = (
            f"the delivery of {delivery.client} ended as {result['outcome']} (logs: {layout.LOGS})"
        )
        raise StackError(message)
    return result


def _gateway(stack: Stack, delivery: Delivery, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the client's own machine would; its progress shows on the terminal."""
    password_file = layout.STACK / f"{delivery.account}.password"
    programs.write_secret(password_file, stack.credentials(delivery.account))
    variables = {
        "GATEWAY_URL": stack.ports.gateway_url,
        "GATEWAY_USER": delivery.account,
        "GATEWAY_PASSWORD_FILE": str(password_file),
    }
    return subprocess.run(
        [*programs.bound(), gateway.PROGRAM, *words],
        env=layout.clean_environment() | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def _report(delivery: Delivery, result: dict[str, Any]) -> None:
    rows = result["job"]["rows"]
    print(f"  {result['outcome']}: {rows['read']:,} rows read, {rows['loaded']:,} loaded, ", end="")
    print(f"{rows['rejected']:,} rejected")
    print(f"  table {layout.CURATED / delivery.client / delivery.project / delivery.project}")


def _verify(stack: Stack, delivery: Delivery, batch: str) -> None:
    verified = _gateway(stack, delivery, "receipt", "verify", batch)
    if verified.returncode != 0:
        message = f"the receipt of {batch} does not hold"
        raise StackError(message)
    print(f"  {verified.stdout.strip()}", flush=True)


def show(stack: Stack) -> None:
    """Print where to go and as whom."""
    print("\nWhere to click")
    for title, port, path in (
        ("Portal", stack.ports.gateway, "/"),
        ("API", stack.ports.gateway, "/docs"),
        ("API description", stack.ports.gateway, "/openapi.json"),
        ("Airflow", stack.ports.airflow, "/"),
    ):
        status, _ = processes.get(port, path)
        if HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST:
            print(f"  {title:<17}http://{processes.LOOPBACK}:{port}{path}")
    print("Accounts (password)")
    for account in ACCOUNTS.values():
        print(f"  {account:<17}{stack.credentials(account)}")
    print(f"All of it, for a shell: {layout.STACK_ENV}", flush=True)
