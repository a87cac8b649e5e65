"""What Airflow reads of this provider, without importing anything else of it.

Notes
-----
The form of Airflow's ``provider_info.schema.json``. The fields of the connection's form are
declared here, as Airflow asks for since 3.2, not made by the hook.
"""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "ingestion_gateway"

_NAME = "Ingestion Gateway"
_TEXT = {"type": ["string", "null"]}


def get_provider_info() -> dict[str, Any]:
    """Return it."""
    return {
        "package-name": "ingestion-gateway",
        "name": _NAME,
        "description": "Delivers batches of files to an ingestion gateway and waits for their rows.",
        "integrations": [{"integration-name": _NAME, "tags": ["service"]}],
        "operators": [_modules("operators")],
        "hooks": [_modules("hooks")],
        "triggers": [_modules("triggers")],
        "connection-types": [_connection_type()],
        "extra-links": ["gateway.provider.links.GatewayJobLink"],
    }


def _modules(name: str) -> dict[str, Any]:
    return {"integration-name": _NAME, "python-modules": [f"gateway.provider.{name}"]}


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": CONNECTION_TYPE,
        "hook-class-name": "gateway.provider.hooks.GatewayHook",
        "hook-name": _NAME,
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port", "extra"],
            "relabeling": {"host": "Gateway's address", "login": "Account"},
            "placeholders": {
                "host": "https://gateway.example",
                "login": "acme-uploader",
                "account": "service",
                "page": "https://airflow.gateway.example/auth/views/jobs/{job}",
            },
        },
        "conn-fields": {
            "account": {
                "label": "Kind of account",
                "description": "service (a machine's, the default) or person.",
                "schema": {**_TEXT, "enum": ["service", "person", None]},
            },
            "client": {
                "label": "Client",
                "description": "Which client to act for, if the account belongs to several.",
                "schema": _TEXT,
            },
            "ca_file": {
                "label": "Authorities",
                "description": "PEM file, on every worker and triggerer, of those who may vouch "
                "for the gateway; the system's if empty.",
                "schema": _TEXT,
            },
            "page": {
                "label": "Page of a job",
                "description": "Where people see a job: an address with {job}. Tasks link to it.",
                "schema": _TEXT,
            },
            "allow_http": {
                "label": "Allow http",
                "description": "Let the password go unencrypted to another machine.",
                "schema": {"type": ["boolean", "null"], "default": False},
            },
        },
    }
