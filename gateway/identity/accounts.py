"""What the directory says about an account, and the ways it can fail to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.errors import UnavailableError
from gateway.identity.groups import Group

Kind = Literal["person", "service"]


class DirectoryUnavailableError(UnavailableError):
    """The directory does not answer, or cannot be asked at present."""

    def __init__(self) -> None:
        super().__init__("The directory does not answer.")


class WrongCredentialsError(Exception):
    """The name or the password is wrong; ``account`` is for the audit trail only.

    Attributes
    ----------
    account
        The account's name when there is one, else None.
    """

    def __init__(self, account: str | None = None) -> None:
        super().__init__("wrong name or password")
        self.account = account


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a service, with every group it is in, directly or through others."""

    dn: str
    name: str
    kind: Kind
    groups: tuple[Group, ...]

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, lower-case."""
        return tuple(group.name for group in self.groups)
