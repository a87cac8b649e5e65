"""How a sender speaks tus 1.0.0."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from tests.uploads.sending import Sender

TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
CONTENT = b"id,note\n" + b"".join(b"%d,row\n" % number for number in range(2000))


def encoded(value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw).decode()


def metadata(name: str, digest: str | None = None) -> str:
    pairs = [f"filename {encoded(name)}"]
    return ",".join([*pairs, *([f"sha256 {encoded(digest)}"] if digest else [])])


def create(
    sender: Sender, batch: str, name: str = "a.csv", length: int = len(CONTENT), **more: Any
) -> httpx.Response:
    headers = {
        **TUS,
        "Upload-Length": str(length),
        "Upload-Metadata": metadata(name, more.pop("digest", None)),
        **more.pop("headers", {}),
    }
    return sender.ask("POST", f"/v1/batches/{batch}/uploads", headers=headers, **more)


def begun(sender: Sender, batch: str, *arguments: Any, **more: Any) -> str:
    answer = create(sender, batch, *arguments, **more)
    assert answer.status_code == 201, answer.text
    place: str = answer.headers["location"]
    assert place.startswith("/v1/uploads/upl_")
    return place


def patch(
    sender: Sender, place: str, offset: int, content: bytes, **headers: str
) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return sender.ask(
        "PATCH",
        place,
        headers={**STREAM, "Upload-Offset": str(offset), **named},
        content=content,
    )


def offset(sender: Sender, place: str) -> int:
    answer = sender.ask("HEAD", place, headers=TUS)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["tus-resumable"] == "1.0.0"
    return int(answer.headers["upload-offset"])
