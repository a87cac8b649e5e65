"""``multipart/form-data`` as a stream: parts in order, bodies never held (RFC 7578)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.chunks import Chunk
from gateway.errors import InvalidRequestError, UnsupportedMediaError

MAX_BOUNDARY = 70
# What may come before the first part, and after the last.
MARGIN_BYTES = 64 * 1024
# Smaller pieces of content are copied.
PIECE_BYTES = 4 * 1024
PLAIN_ENCODINGS = {"binary", "8bit", "7bit"}


@dataclass(frozen=True, slots=True)
class Begun:
    """A part's head; ``filename`` is None for a plain field. Header names in lower case."""

    name: str
    filename: str | None
    headers: dict[str, str] = field(default_factory=dict)


Event = Begun | bytearray | memoryview | None  # a head, some content, the end of a part


class MultipartReader:
    """Pulls parts out of a request's body.

    Usage: ``async for part in reader`` and, before the next, ``reader.content()``.

    Parameters
    ----------
    content_type
        The request's header, with the boundary.
    chunks
        The body as it arrives.

    Raises
    ------
    UnsupportedMediaError
        It is no multipart/form-data.
    InvalidRequestError
        The body is malformed, or ends before its closing boundary: a body that was cut short is
        not taken for a whole one.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._events: deque[Event] = deque()
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._is_begun = self._is_whole = False
        self._margin_bytes = 0
        self._parser = MultipartParser(_boundary(content_type), _callbacks(self))

    async def __aiter__(self) -> AsyncIterator[Begun]:
        """Yield each part's head; what was not read of a part's content is passed over."""
        while (event := await self._next()) is not False:
            if isinstance(event, Begun):
                yield event

    async def content(self) -> AsyncIterator[Chunk]:
        """Yield the content of the part whose head came last."""
        while isinstance(event := await self._next(), bytearray | memoryview):
            yield event

    async def _next(self) -> Event | bool:
        """Return the next event; False after the closing boundary."""
        while not self._events:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if self._is_whole:
                    return False
                raise InvalidRequestError("The body ends before its closing boundary.") from None
            self._feed(chunk)
        return self._events.popleft()

    def _feed(self, chunk: Chunk) -> None:
        # The parser searches, which a view cannot do; the one copy also gives a lent buffer back.
        data = bytes(chunk)
        start = 0
        while start < len(data):
            is_inside = self._is_begun and not self._is_whole
            piece = data[start:] if is_inside else data[start : start + MARGIN_BYTES]
            start += len(piece)
            try:
                self._parser.write(piece)
            except MultipartParseError:
                raise InvalidRequestError("The multipart body is malformed.") from None
            # The parser would pass over any amount of what lies before and behind the parts.
            if not is_inside and (self._is_whole or not self._is_begun):
                self._margin_bytes += len(piece)
                if self._margin_bytes > MARGIN_BYTES:
                    raise InvalidRequestError("There is too much around the parts.")

    def on_part_begin(self) -> None:
        """Note that the preamble is over (the parser's callback, as are the rest)."""
        self._is_begun = True

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Gather a header's name."""
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Gather a header's value."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """Keep a header."""
        try:
            name, value = self._name.decode("ascii").lower(), self._value.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequestError("A part's headers are not UTF-8.") from None
        if name in self._headers:
            raise InvalidRequestError("A part has a header twice.")
        self._headers[name] = value.strip(" \t")
        self._name = self._value = b""

    def on_headers_finished(self) -> None:
        """Tell of a new part."""
        headers, self._headers = self._headers, {}
        self._events.append(_head(headers))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Tell of content.

        The parser cuts it wherever a boundary might have begun. Small pieces are put together, so
        that no content makes many.
        """
        piece = memoryview(data)[start:end]
        last = self._events[-1] if self._events else None
        if len(piece) >= PIECE_BYTES:
            self._events.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        elif piece:
            self._events.append(bytearray(piece))

    def on_part_end(self) -> None:
        """Tell of a part's end."""
        self._events.append(None)

    def on_end(self) -> None:
        """Note that the closing boundary came."""
        self._is_whole = True


def _callbacks(reader: MultipartReader) -> Any:
    heads = ("part_begin", "header_field", "header_value", "header_end", "headers_finished")
    names = (*heads, "part_data", "part_end", "end")
    return {f"on_{name}": getattr(reader, f"on_{name}") for name in names}


def _boundary(content_type: str) -> bytes:
    media, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media != b"multipart/form-data":
        raise UnsupportedMediaError("Send multipart/form-data.")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise InvalidRequestError("The multipart boundary is missing or too long.")
    return boundary


def _head(headers: dict[str, str]) -> Begun:
    if headers.get("content-transfer-encoding", "binary").lower() not in PLAIN_ENCODINGS:
        raise InvalidRequestError("Send parts as they are, without a transfer encoding.")
    # The library decodes headers as latin-1 only; names and file names are UTF-8 (RFC 7578, 5.1).
    raw = headers.get("content-disposition", "").encode().decode("latin-1")
    kind, options = parse_options_header(raw)
    if kind != b"form-data" or b"name" not in options:
        raise InvalidRequestError("A part has no form-data Content-Disposition with a name.")
    filename = options.get(b"filename")
    try:
        text = None if filename is None else filename.decode()
        return Begun(options[b"name"].decode(), text, headers)
    except UnicodeDecodeError:
        raise InvalidRequestError("A part's name is not UTF-8.") from None
