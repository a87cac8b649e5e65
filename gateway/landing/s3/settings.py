"""Where a landing zone on an object store lies, and with whose rights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class S3Settings:
    """One bucket, one prefix in it, one account.

    Attributes
    ----------
    prefix
        Without slashes at its ends; may be empty.
    ca_path
        PEM bundle that signs the store's certificate, where the system's roots do not.
    lease_seconds
        For how long a process that says nothing is believed to work on its uploads.
    """

    bucket: str
    prefix: str
    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca_path: Path | None = None
    lease_seconds: float = 15.0

    def full(self, key: str) -> str:
        """Return a key as the bucket knows it."""
        return f"{self.prefix}/{key}" if self.prefix else key
