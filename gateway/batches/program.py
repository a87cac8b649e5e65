"""The pipeline's own programs, started in its environment: what it alone can do to its layers."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

from gateway import logs
from gateway.errors import UnavailableError
from gateway.settings import Pipeline

log = logs.get("pipeline")


class PipelineUnavailableError(UnavailableError):
    """The pipeline's program is not configured, or did not do what it was asked for."""

    title = "The pipeline's program failed"


def run(config: Pipeline, task: str, said: dict[str, Any]) -> dict[str, Any]:
    """Have the pipeline do something; call it outside any transaction.

    Raises
    ------
    PipelineUnavailableError
        Its detail is what the program says for an operator to read.
    """
    if not config.command:
        raise PipelineUnavailableError("GATEWAY_PIPELINE_COMMAND is not set.")
    try:
        done = subprocess.run(  # noqa: S603 - an operator's own setting
            [*shlex.split(config.command), task],
            input=json.dumps(said),
            capture_output=True,
            text=True,
            timeout=config.timeout_seconds,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.warning("pipeline_failed", task=task, kind=type(error).__name__)
        raise PipelineUnavailableError("The pipeline's program gave no answer.") from None
    if done.returncode:
        raise PipelineUnavailableError(str(answer.get("error", "It failed.")))
    return answer
