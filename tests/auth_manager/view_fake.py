"""The part of the gateway that views look at: two clients' deliveries, and whoever asks for them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

GOLDEN = json.loads((Path(__file__).parents[2] / "airflow/contract/views.json").read_text())
ACME_BATCH, GLOBEX_BATCH, NO_BATCH = (f"bat_{letter * 26}" for letter in "agz")
ACME_JOB, GLOBEX_JOB, NO_JOB = (f"job_{letter * 26}" for letter in "agz")
READING = {"batches:read", "audit:read", "admin:read"}

Found = tuple[int, Any]


def _batch(identity: str, job: dict[str, Any], project: str, **changes: Any) -> dict[str, Any]:
    named = {"id": identity, "project": project, "jobs": [job]}
    return {**deepcopy(GOLDEN["batch"]), **named, **changes}


def _job(identity: str, batch: str, **changes: Any) -> dict[str, Any]:
    return {**deepcopy(GOLDEN["job"]), "id": identity, "batch": batch, **changes}


@dataclass
class Shown:
    """What there is to see, by client."""

    batches: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "acme": _batch(ACME_BATCH, _job(ACME_JOB, ACME_BATCH), "flights"),
            "globex": _batch(
                GLOBEX_BATCH, _job(GLOBEX_JOB, GLOBEX_BATCH), "orders", reference="xq-globex"
            ),
        }
    )
    rejects: list[dict[str, Any]] = field(default_factory=lambda: [GOLDEN["reject"]])
    following: str | None = None
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def exchange(self, session: dict[str, Any], granted: str, form: dict[str, str]) -> Found:
        """Give a token of the person whose session it is, for looking."""
        asked = set(form["scope"].split())
        held = set(granted.split()) | ({"admin:read"} if "admin" in granted.split() else set())
        if not asked <= READING & held:
            return 400, {"error": "invalid_scope"}
        token = f"view-{len(self.tokens)}"
        self.tokens[token] = {"client": session.get("client"), "scope": asked}
        return 200, {**GOLDEN["exchange"]["answer"], "access_token": token}

    def answer(self, address: str, authorization: str | None) -> Found:
        """Answer one look."""
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query))
        self.asked.append((parts.path, query))
        if parts.path == "/readyz":
            return 200, GOLDEN["health"]
        caller = self.tokens.get((authorization or "").removeprefix("Bearer "))
        if caller is None:
            return 401, {}
        if parts.path.startswith("/v1/admin/"):
            return self._for_admins(parts.path, caller)
        if caller["client"] is None or caller["scope"] != {"batches:read"}:
            return 403, {}
        return self._for_client(parts.path, self.batches[caller["client"]])

    def _for_client(self, path: str, batch: dict[str, Any]) -> Found:
        (job,) = batch["jobs"]
        return {
            "/v1/batches": (200, {"items": [batch], "next": self.following}),
            f"/v1/batches/{batch['id']}": (200, batch),
            f"/v1/jobs/{job['id']}": (200, job),
            f"/v1/jobs/{job['id']}/rejects": (200, self.rejects),
        }.get(path, (404, {}))

    def _for_admins(self, path: str, caller: dict[str, Any]) -> Found:
        if not caller["scope"] <= {"admin:read", "audit:read"}:
            return 403, {}
        jobs = [
            {**each["jobs"][0], "client": client, "project": each["project"]}
            for client, each in self.batches.items()
        ]
        items = {
            "/v1/admin/jobs": jobs,
            "/v1/admin/leases": [GOLDEN["lease"]],
            "/v1/admin/clients": [GOLDEN["client"]],
            "/v1/admin/audit": [GOLDEN["event"]],
        }
        if path in items:
            return 200, {"items": items[path], "next": self.following}
        one = [job for job in jobs if path == f"/v1/admin/jobs/{job['id']}"]
        return (200, one[0]) if one else (404, {})
