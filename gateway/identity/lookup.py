"""What is asked of the directory, whatever protocol carries the questions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway import settings
from gateway.identity import groups
from gateway.identity.accounts import Account, Kind, WrongCredentialsError
from gateway.identity.groups import Group

NAME_CHARACTERS = 128
PASSWORD_CHARACTERS = 1024
# The gateway's own acts are recorded under this name; no account may bear it.
RESERVED_NAME = "gateway"
LOCKED = "pwdaccountlockedtime"
LOCKED_FOR_GOOD = "000001010000Z"
# The first part of a DN (RFC 4514): an attribute, and a value in which , and + are escaped.
_COMMON_NAME = re.compile(r"cn=((?:[^\\,+]|\\.)+)(?:,|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Search:
    """A question for entries whose ``attribute`` has ``value``, taken literally.

    ``depth`` counts from ``base``: the entry itself, its direct children, everything below it.
    """

    base: str
    depth: Literal["itself", "children", "below"]
    attribute: str
    value: str
    wanted: Sequence[str] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An entry; names of attributes are lower-case."""

    dn: str
    values: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Entry:
    dn: str
    name: str
    kind: Kind
    locked: bool


class Lookup(ABC):
    """Finds accounts and groups by means of ``ask`` and ``bind``."""

    def __init__(self, config: settings.Ldap) -> None:
        self.config = config

    @abstractmethod
    def ask(self, search: Search) -> list[Found]:
        """Return what is found; raises DirectoryUnavailableError."""

    @abstractmethod
    def bind(self, dn: str, password: str) -> bool:
        """Say whether a password is right; raises DirectoryUnavailableError."""

    @abstractmethod
    def prepared(self, text: str, limit: int) -> str:
        """Return a name or password as the directory compares it; empty if it can be none."""

    def authenticate(self, name: str, password: str, kind: Kind) -> Account:
        """Return the account whose name and password these are.

        Raises
        ------
        WrongCredentialsError
            No such account of this kind, it is locked, or the password is wrong. Each takes the
            same searches and one bind.
        DirectoryUnavailableError
            Nothing can be said.
        """
        name = self.prepared(name, NAME_CHARACTERS)
        password = self.prepared(password, PASSWORD_CHARACTERS)
        if not (name and password):
            raise WrongCredentialsError
        entry = self._find(name)
        usable = entry is not None and entry.kind == kind and not entry.locked
        proven = self.bind(entry.dn if entry and usable else self._decoy(kind), password)
        if entry is None or not (usable and proven):
            raise WrongCredentialsError(entry.name if entry else None)
        return self._with_groups(entry)

    def account(self, name: str) -> Account | None:
        """Return an account by its name; None when there is none or it is locked.

        Raises
        ------
        DirectoryUnavailableError
            Nothing can be said.
        """
        prepared = self.prepared(name, NAME_CHARACTERS)
        entry = self._find(prepared) if prepared else None
        return None if entry is None or entry.locked else self._with_groups(entry)

    def groups_of(self, dn: str) -> tuple[Group, ...]:
        """Return every group that holds ``dn``, directly or through other groups."""
        return groups.walk(dn, self._groups_holding)

    def _find(self, name: str) -> _Entry | None:
        if name.lower() == RESERVED_NAME:
            return None
        # Tokens name an account without its kind: a name borne twice could stand for either.
        found = [*self._below("person", name), *self._below("service", name)]
        return found[0] if len(found) == 1 else None

    def _below(self, kind: Kind, name: str) -> list[_Entry]:
        attribute = self.config.login_attribute
        search = Search(self._base(kind), "below", attribute, name, (attribute, LOCKED), limit=2)
        # An entry with several login names could act under one and be recorded under another.
        return [
            _Entry(found.dn, names[0], kind, LOCKED_FOR_GOOD in found.values.get(LOCKED, ()))
            for found in self.ask(search)
            if len(names := found.values.get(attribute.lower(), ())) == 1
        ]

    def _with_groups(self, entry: _Entry) -> Account:
        return Account(entry.dn, entry.name, entry.kind, self.groups_of(entry.dn))

    def _groups_holding(self, dn: str) -> list[tuple[str, str]]:
        # Direct children only: who may add groups elsewhere in the tree must not be able to make
        # another one of the same name. Nor do further values of `cn` count.
        base = f"{self.config.groups_rdn},{self.config.base_dn}"
        found = self.ask(Search(base, "children", "member", dn))
        return [(each.dn, name) for each in found if (name := _common_name(each.dn))]

    def _base(self, kind: Kind) -> str:
        rdn = self.config.people_rdn if kind == "person" else self.config.services_rdn
        return f"{rdn},{self.config.base_dn}"

    def _decoy(self, kind: Kind) -> str:
        return f"{self.config.login_attribute}=.nobody.,{self._base(kind)}"


def _common_name(dn: str) -> str | None:
    """Return the ``cn`` that names an entry, lower-case and still escaped."""
    match = _COMMON_NAME.match(dn)
    return match.group(1).lower() if match else None
