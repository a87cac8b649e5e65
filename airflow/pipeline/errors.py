"""Failures that lie in what was delivered, in words its sender understands."""

from __future__ import annotations

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
