"""Structured JSON logs: constant event names, ids from context variables.

Fields are named one by one at each call; request headers, bodies and exception
texts of other systems never are.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import structlog


def configure(level: str) -> None:
    """Send every log line, ours and the libraries', to standard error as one JSON object."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(serializer=_serialized)
    # Ours do not pass through ``logging``: it takes three times as long for each request's line.
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # Both print whole URLs at INFO; queries may carry what callers typed.
    for noisy in ("httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _StandardError:
    """Writes each line at once and whole, so that lines of threads and processes do not mix."""

    def msg(self, line: str) -> None:
        """Write a line."""
        os.write(2, f"{line}\n".encode(errors="replace"))

    debug = info = warning = error = critical = exception = fatal = log = msg


def _serialized(event: Any, **options: Any) -> str:
    try:
        return _encoded(event)
    except TypeError:
        return json.dumps(event, **options)


_encoded = json.JSONEncoder().encode


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one room."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room)
    return logger
