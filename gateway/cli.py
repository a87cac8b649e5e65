"""The command line: a client's own commands, and the operators' where the server is installed.

Exit codes: 0 done, 1 failed, 2 usage. The server's modules are imported by the commands that
need them: the light install on a client's machine has none of them.
"""

from __future__ import annotations

import importlib.util
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway import commands
from gateway.console import failures, services
from gateway.sdk import cli as client_commands

if TYPE_CHECKING:
    from gateway.settings import Server

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Deliver batches to an ingestion gateway, and run one.",
)


def main() -> None:
    """Run the command line."""
    app()


def serve() -> None:
    """Serve the HTTP API.

    Example: gateway serve
    """
    import uvicorn  # noqa: PLC0415

    from gateway import settings  # noqa: PLC0415

    with failures():
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
    with failures(), services() as parts:
        loop.run(parts, stop)


def migrate() -> None:
    """Bring the database to the newest schema.

    Example: gateway migrate
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    from gateway import settings  # noqa: PLC0415

    with failures():
        settings.database()
        command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")


def _http_protocol(server: Server) -> Any:
    # h11 was seen to serve a smuggled request; httptools refuses every such framing.
    if server.protocol == "stock":
        return "httptools"
    from gateway.web.protocol import UploadProtocol  # noqa: PLC0415

    return partial(UploadProtocol, header_seconds=server.header_seconds)


client_commands.add_commands(app)
if importlib.util.find_spec("sqlalchemy") is not None:
    for command in (serve, worker, migrate):
        app.command()(command)
    commands.add_to(app)
