"""Runs an operator as a task would, without Airflow's processes around it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from gateway.provider.operators import GatewayDeliverOperator

_numbers = itertools.count(1)


@dataclass
class Try:
    """What a task instance is to an operator: somewhere to leave XComs."""

    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep one."""
        self.xcoms[key] = value

    @property
    def context(self) -> dict[str, Any]:
        """What Airflow gives with each call."""
        return {"ti": self}


def deliver(paths: Path | str | list[str], **fields: Any) -> GatewayDeliverOperator:
    """Make a task that delivers files, by a reference of its own."""
    paths = paths if isinstance(paths, list) else str(paths)
    given = {"reference": f"r{next(_numbers)}", "project": "flights", "paths": paths, **fields}
    with DAG("tests", schedule=None):
        return GatewayDeliverOperator(task_id="deliver", **given)


def deferred(task: GatewayDeliverOperator, attempt: Try) -> TaskDeferred:
    """Run a task until it defers."""
    with pytest.raises(TaskDeferred) as raised:
        task.execute(attempt.context)
    return raised.value


def elsewhere(trigger: BaseTrigger) -> BaseTrigger:
    """Make a trigger anew from what is written down of it, as a triggerer does."""
    path, fields = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    return type(trigger)(**fields)


def fired(trigger: BaseTrigger) -> dict[str, Any]:
    """Run a trigger to its one event."""

    async def events() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(events())
    payload: dict[str, Any] = event.payload
    return payload


def beside(work: Callable[[], Any]) -> Future[Any]:
    """Do something in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed on to whoever asks
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
