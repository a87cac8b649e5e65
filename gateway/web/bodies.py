"""Reading bodies, after the caller is known.

FastAPI reads a declared body, JSON or form, before any dependency has run; these dependencies of
ours run in the order of a door's signature, where the caller's authentication stands first.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedMediaError,
)
from gateway.web.problems import invalid

Model = TypeVar("Model", bound=BaseModel)

JSON_BODY_BYTES = 1024**2
FORM_BODY_BYTES = 16 * 1024
JSON_DEPTH = 32


class RequestTimeoutError(GatewayError):
    """The body stopped coming."""

    slug = "request-timeout"
    status = 408
    title = "The request took too long to arrive"
    retryable = True


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read a whole small body, never holding more than ``limit_bytes``.

    Raises
    ------
    TooLargeError
        The body is longer, by its header or by its bytes.
    """
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if int(declared) <= limit_bytes:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                break
        else:
            return bytes(body)
    message = f"This door takes at most {limit_bytes} bytes."
    raise TooLargeError(message)


def loads(body: bytes) -> Any:
    """Parse JSON strictly (RFC 8259 and I-JSON, RFC 7493).

    Refuses NaN and Infinity, duplicate keys, NUL, lone surrogates, and nesting beyond 32.

    Raises
    ------
    InvalidRequestError
        The text is not such JSON.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
        _check_text(value, JSON_DEPTH)
    except (ValueError, RecursionError) as error:
        detail = str(error) if type(error) is ValueError else "The body is not valid JSON."
        raise InvalidRequestError(detail) from None
    return value


def json_body(model: type[Model]) -> Any:
    """Return the dependency that reads a JSON body of this model.

    Declare it *after* the principal: dependencies are solved in the order of the signature.
    """

    async def read(request: Request) -> Model:
        return validated(model, await _read_json(request))

    return Depends(read)


def json_document() -> Any:
    """Return the dependency that reads a JSON body as it is, for a door that checks it itself."""
    return Depends(_read_json)


async def _read_json(request: Request) -> Any:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        message = "Send application/json."
        raise UnsupportedMediaError(message)
    return loads(await read_body(request, JSON_BODY_BYTES))


def validated(model: type[Model], value: Any) -> Model:
    """Validate a parsed body, turning every finding into a field error."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


async def form_body(request: Request) -> dict[str, str]:
    """Read ``application/x-www-form-urlencoded``; a repeated field is refused (RFC 6749 §3.2)."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        message = "Send application/x-www-form-urlencoded."
        raise UnsupportedMediaError(message)
    body = await read_body(request, FORM_BODY_BYTES)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=50,
        )
        _check_text([text for pair in pairs for text in pair], JSON_DEPTH)
    except ValueError:
        message = "The form cannot be read."
        raise InvalidRequestError(message) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        message = "A field is given twice."
        raise InvalidRequestError(message)
    return fields


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a door whose body is read by ``json_body(model)``."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": reference}}
    return {"requestBody": {"required": True, "content": content}}


schemas: dict[str, Any] = {}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "An object has the same key twice."
        raise ValueError(message)
    return found


def _no_constant(name: str) -> Any:
    message = f"{name} is not JSON."
    raise ValueError(message)


def _check_text(value: Any, depth: int) -> None:
    if depth == 0:
        message = "The body is nested too deeply."
        raise ValueError(message)
    if isinstance(value, str):
        if "\x00" in value or (not value.isascii() and not _encodes(value)):
            message = "Text must be Unicode without NUL."
            raise ValueError(message)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth - 1)
            _check_text(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth - 1)


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
