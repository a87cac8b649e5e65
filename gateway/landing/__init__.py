"""The yard: bytes at rest, durable and verified. Knows no database and no HTTP."""
