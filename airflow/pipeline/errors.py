"""Failures that lie in what was delivered, in words its sender understands."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.rejects import Reject


class DeliveryError(Exception):
    """The delivery cannot be loaded as it is; trying again would change nothing.

    Parameters
    ----------
    code
        Stable word for the kind of failure, for example ``corrupt-archive``.
    detail
        One sentence for the sender. It names the sender's own files, never a path of ours.
    rejects
        Every place in the delivery that the failure is about.
    rows_rejected
        How many rows those places stand for.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        rejects: Sequence[Reject] = (),
        rows_rejected: int = 0,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.rejects = list(rejects)
        self.rows_rejected = rows_rejected


class PlatformError(Exception):
    """What the platform, or a system it needs, could not do this time; another try may.

    Parameters
    ----------
    code
        Stable word for the kind of failure, for example ``database-unavailable``.
    detail
        One sentence for the sender, who need not change a thing.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class EngineError(PlatformError):
    """The cluster that a project's engine needs did not do its part.

    Parameters
    ----------
    reason
        What was found, for whoever runs the platform.
    """

    def __init__(self, reason: str) -> None:
        detail = "the platform's cluster is not there; the delivery is kept"
        super().__init__("engine-unavailable", detail)
        self.args = (reason,)


class WorkerError(Exception):
    """What a worker of such a cluster ran into, as often as it was tried; the text says what."""


# What storage says of itself; libraries that are not Python's keep the words alone.
_STORAGE = {
    errno.ENOSPC: ("No space left on device", "is full"),
    errno.EDQUOT: ("Disk quota exceeded", "is full"),
    errno.EROFS: ("Read-only file system", "cannot be written to"),
    errno.EACCES: ("Permission denied", "cannot be written to"),
    errno.EIO: ("Input/output error", "is failing"),
}


def platform_failure(error: BaseException) -> tuple[str, str]:
    """Say as code and sentence what the platform could not do; its sender need not change a thing."""
    if isinstance(error, PlatformError):
        return error.code, error.detail
    for number, (words, state) in _STORAGE.items():
        if getattr(error, "errno", None) == number or words in str(error):
            return "storage-unavailable", f"the platform's storage {state}; the delivery is kept"
    return "internal-error", "the platform could not do its part; the delivery is kept"
