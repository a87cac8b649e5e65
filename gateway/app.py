"""The HTTP application: doors and the problem handler, no logic."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

import gateway.admin.api
import gateway.batches.api
import gateway.events.api
import gateway.identity.api
import gateway.jobs.api
import gateway.leases.api
import gateway.portal.api
import gateway.uploads.api
import gateway.uploads.tus
from gateway import bootstrap, settings, web
from gateway.errors import InvalidRequestError
from gateway.identity import access, scopes
from gateway.settings import Settings
from gateway.uploads.intake import intake_of
from gateway.uploads.quick import QuickPut

DOORS = (
    gateway.identity.api,
    gateway.batches.api,
    gateway.uploads.api,
    gateway.uploads.tus,
    gateway.jobs.api,
    gateway.leases.api,
    gateway.admin.api,
    gateway.portal.api,
)


# How long a thread that comes back from the disk or the database waits for another's turn to end.
SWITCH_SECONDS = 0.0005
# Of one client, in each process: whoever seals a thousand batches at once holds up nobody else's.
SEALS_AT_ONCE = 2
# What a page's uploads need besides what every page may send and read (tus 1.0.0; RFC 9530).
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Digest",
    "Idempotency-Key",
    "Repr-Digest",
    "Tus-Resumable",
    "Upload-Checksum",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "X-HTTP-Method-Override",
    "X-Requested-With",
)
EXPOSED_HEADERS = (
    "Location",
    "Repr-Digest",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "X-Request-ID",
)


def from_environment() -> FastAPI:
    """Build the application from ``GATEWAY_*`` variables, in each of the server's processes."""
    sys.setswitchinterval(SWITCH_SECONDS)
    return create_app(settings.load())


def create_app(config: Settings) -> FastAPI:
    """Build the application from settings.

    Raises
    ------
    SettingsError
        The configuration is weak or unusable.
    """
    services = bootstrap.build(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        services.close()

    app = FastAPI(
        title="Ingestion gateway",
        version=version("ingestion-gateway"),
        lifespan=lifespan,
        # The interactive pages load scripts from elsewhere; the document itself is served.
        docs_url=None,
        redoc_url=None,
        # A redirect would be to whatever host the request named.
        redirect_slashes=False,
        separate_input_output_schemas=False,
        # Its records would hold what callers sent, and texts of other systems' errors.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for part in fields(services):
        setattr(app.state, part.name, getattr(services, part.name))
    app.state.seals = web.Turns(SEALS_AT_ONCE)
    app.router.routes.extend(_doors().routes)
    _allow_origins(app, config.server.cors_origins)
    app.add_middleware(QuickPut, access=services.access, intake=intake_of(app.state))
    web.install(app, idle_seconds=config.server.body_idle_seconds)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


@cache
def _doors() -> APIRouter:
    """Return every door, the same for each application of a process.

    FastAPI spends a tenth of a second on their signatures before the first of them opens; what is
    behind them they find in the state of the application that was asked.
    """
    every = APIRouter()
    for door in DOORS:
        every.include_router(door.router)
    # The feed lies below the room that knows callers, so it is told here who may read.
    reader = access.requires(scopes.BATCHES_READ, of_a_client=True)
    every.include_router(gateway.events.api.router_for(reader, *gateway.jobs.api.REFUSALS))
    return every


def _allow_origins(app: FastAPI, listed: str) -> None:
    """Let pages of these origins call the API with their token, and read what tus tells them."""
    origins = [each.strip() for each in listed.split(",") if each.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in {**web.body_schemas, "Problem": web.problem_schema()}.items():
            schemas.setdefault(name, schema)
        _replace_stock_422(document, schemas)
        _add_any_problem(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_any_problem(document: dict[str, Any]) -> None:
    """Say once for each door what may happen at all: limits of the server, and our own faults."""
    found = {"$ref": "#/components/schemas/Problem"}
    problem = {
        "description": "Any other problem: request-timeout, headers-too-large, internal",
        "content": {"application/problem+json": {"schema": found}},
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", problem)


def _replace_stock_422(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """FastAPI describes a 422 of its own, which no door of ours ever gives."""
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    ours = web.problems(InvalidRequestError)[422]
    for operations in document["paths"].values():
        for operation in operations.values():
            stock = operation.get("responses", {}).get("422", {})
            if "application/json" in stock.get("content", {}):
                operation["responses"]["422"] = ours
