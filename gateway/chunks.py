"""A piece of a body on its way from the wire to the landing zone."""

from __future__ import annotations

Chunk = bytes | bytearray | memoryview
