"""A job's order: contract, tolerance, where it starts and what it retires, signed by the gateway."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from pipeline import delivery as deliveries
from pipeline.errors import DeliveryError
from pipeline.staging import read_json, write_json

if TYPE_CHECKING:
    from pipeline.delivery import Delivery

VERSION = 1
TYPE = "order+jws"
MAX_BYTES = 16 << 20
_ID = {
    "batch": re.compile(r"bat_[0-9a-z]{10,40}"),
    "job": re.compile(r"job_[0-9a-z]{10,40}"),
}


@dataclass(frozen=True)
class Order:
    """What a run is told beyond the ids in its conf.

    ``staged_job`` is the attempt whose staged rows are published again; ``retires`` are batches
    whose rows go in the commit that brings this one's.
    """

    contract: dict[str, Any]
    on_reject: dict[str, Any]
    staged_job: str | None = None
    retires: tuple[str, ...] = ()

    def write(self, delivery: Delivery) -> None:
        """Keep the order for the later steps."""
        write_json(delivery.staged_dir / "order.json", asdict(self))

    @classmethod
    def read(cls, delivery: Delivery) -> Order | None:
        """Give what the first step kept; None for a job that was planned before there were any."""
        path = delivery.staged_dir / "order.json"
        if not path.exists():
            return None
        value = read_json(path)
        return cls(**{**value, "retires": tuple(value["retires"])})


def read_order(delivery: Delivery, entry: dict[str, Any], jwks: dict[str, Any]) -> Order:
    """Read a job's order; a job that was triggered without one goes by the registry's entry.

    Raises
    ------
    DeliveryError
        ``bad-order`` if it is not the gateway's, or is for another job.
    """
    try:
        with deliveries.open_landed(delivery, f"{delivery.job_id}.jws") as file:
            signed = file.read(MAX_BYTES)
    except DeliveryError as error:
        if error.code != "missing-file":
            raise
        return Order(entry["contract"], entry["on_reject"])
    return parse_order(_verified(signed, jwks), delivery, entry)


def _verified(signed: bytes, jwks: dict[str, Any]) -> bytes:
    rules = jws.JWSRegistry(algorithms=["ES256"])
    rules.max_payload_length = 2 * MAX_BYTES
    try:
        keys = [_usable(k) for k in jwks["keys"] if k.get("kty") == "EC"]
        found = jws.deserialize_compact(
            signed.strip(), KeySet.import_key_set({"keys": keys}), registry=rules
        )
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeliveryError("bad-order", "the order is not signed by the gateway") from error
    header = found.headers()
    if header.get("typ") != TYPE or "kid" not in header:
        raise DeliveryError("bad-order", "the signed document is not an order")
    return found.payload


def _usable(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in ("kty", "crv", "x", "y", "kid") if name in key}


def parse_order(content: bytes, delivery: Delivery, entry: dict[str, Any]) -> Order:
    """Read an order's bytes and hold it against the run.

    Raises
    ------
    DeliveryError
        ``bad-order``.
    """
    try:
        document = json.loads(content)
        named = tuple(
            document[name] for name in ("version", "job", "batch", "client", "project", "attempt")
        )
        retires = tuple(document["retires"])
        order = Order(
            document["contract"] or entry["contract"],
            entry["on_reject"] if document["on_reject"] is None else document["on_reject"],
            document["staged_job"],
            retires,
        )
        is_sound = all(_ID["batch"].fullmatch(each) for each in retires) and (
            order.staged_job is None or _ID["job"].fullmatch(order.staged_job)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DeliveryError("bad-order", "the order cannot be read") from error
    own = (delivery.job_id, delivery.batch_id, delivery.client, delivery.project, delivery.attempt)
    if named != (VERSION, *own) or not is_sound:
        raise DeliveryError("bad-order", "the order is for another job")
    return order
