"""From groups to rights: which group gives which scopes, for which client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway import settings
from gateway.settings import SettingsError

BATCHES_READ = "batches:read"
BATCHES_WRITE = "batches:write"
JOBS_WRITE = "jobs:write"
JOBS_PROGRESS = "jobs:progress"
LEASES = "leases"
AUDIT_READ = "audit:read"
ADMIN = "admin"
# A part of ``admin``, which applications are given for the people who sign on to them.
ADMIN_READ = "admin:read"
ALL = (BATCHES_WRITE, BATCHES_READ, JOBS_WRITE, JOBS_PROGRESS, LEASES, AUDIT_READ, ADMIN)
# What the Airflow deployment does at the gateway means nothing to Airflow itself.
FOR_AIRFLOW = frozenset(ALL) - {JOBS_PROGRESS, LEASES}
# All that an application is given for a person who signed on to it: to look.
READING = frozenset({BATCHES_READ, AUDIT_READ, ADMIN_READ})
# What is left to a suspended client: to see what it has delivered.
WHILE_SUSPENDED = frozenset({BATCHES_READ})

PLACE = "{client}"
_CLIENT_NAME = "([a-z][a-z0-9-]{1,30})"


@dataclass(frozen=True, slots=True)
class Grants:
    """What an account may do.

    Attributes
    ----------
    clients
        Scopes by client.
    platform
        Scopes that belong to no client.
    reasons
        The groups that gave something, each with what it gave.
    """

    clients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    platform: frozenset[str] = frozenset()
    reasons: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def scopes(self, client: str | None) -> frozenset[str]:
        """Return the scopes for one client, or the platform's for None."""
        return self.platform if client is None else self.clients.get(client, frozenset())

    def groups(self, roles: settings.Roles, client: str | None) -> tuple[str, ...]:
        """Return the groups that give the scopes for one client, or the platform's for None."""
        return tuple(name for name in self.reasons if name in _by_group(roles, client))


def check(roles: settings.Roles) -> None:
    """Refuse role names that would give every client's rights to the same group.

    Raises
    ------
    SettingsError
        A client's role does not name the client, or a platform's role does.
    """
    wrong = [
        f"GATEWAY_ROLES_{name.upper()}: must contain {PLACE} exactly once"
        for name in ("uploaders", "viewers", "operators")
        if getattr(roles, name).count(PLACE) != 1
    ]
    wrong += [
        f"GATEWAY_ROLES_{name.upper()}: must not be empty or contain {PLACE}"
        for name in ("auditors", "admins", "platform", "lessors")
        if not getattr(roles, name) or PLACE in getattr(roles, name)
    ]
    if wrong:
        raise SettingsError("\n".join(wrong))


def candidates(groups: Iterable[str], roles: settings.Roles) -> set[str]:
    """Return the clients that these groups could belong to, going by their names alone."""
    templates = (roles.uploaders, roles.viewers, roles.operators)
    patterns = [
        re.compile(re.escape(template.lower()).replace(re.escape(PLACE), _CLIENT_NAME))
        for template in templates
    ]
    matches = (pattern.fullmatch(name) for name in groups for pattern in patterns)
    return {match.group(1) for match in matches if match}


def grants(
    groups: Iterable[str],
    roles: settings.Roles,
    known_clients: Iterable[str],
    suspended: Iterable[str] = (),
) -> Grants:
    """Return what membership in ``groups`` gives, for clients that exist.

    Parameters
    ----------
    groups
        Names as ``directory`` delivers them, nested ones included.
    suspended
        Those of the known clients that may only look.
    """
    member_of, halted = frozenset(groups), frozenset(suspended)
    given: dict[str | None, dict[str, frozenset[str]]] = {}
    for client in (None, *known_clients):
        left = WHILE_SUSPENDED if client in halted else frozenset(ALL)
        found = _by_group(roles, client).items()
        given[client] = {name: won & left for name, won in found if name in member_of}
    platform = given.pop(None)
    reasons: dict[str, frozenset[str]] = {}
    for part in (platform, *given.values()):
        for name, won in part.items():
            reasons[name] = reasons.get(name, frozenset()) | won
    clients = {client: _union(part) for client, part in given.items() if client and part}
    return Grants(clients, _union(platform), reasons)


def _by_group(roles: settings.Roles, client: str | None) -> dict[str, frozenset[str]]:
    if client is None:
        pairs = [
            (roles.auditors, {AUDIT_READ}),
            (roles.admins, {ADMIN}),
            (roles.platform, {JOBS_PROGRESS}),
            (roles.lessors, {LEASES}),
        ]
    else:
        uploader = {BATCHES_WRITE, BATCHES_READ}
        pairs = [
            (roles.uploaders.replace(PLACE, client), uploader),
            (roles.viewers.replace(PLACE, client), {BATCHES_READ}),
            (roles.operators.replace(PLACE, client), uploader | {JOBS_WRITE}),
        ]
    found: dict[str, frozenset[str]] = {}
    for name, won in pairs:
        # Names of groups have no case in LDAP; and two roles may be held by one group.
        found[name.lower()] = found.get(name.lower(), frozenset()) | won
    return found


def _union(part: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset(scope for won in part.values() for scope in won)


def within(asked: Iterable[str], held: frozenset[str]) -> frozenset[str]:
    """Return which of the scopes asked for are held, on their own or as part of a wider one."""
    parts = {ADMIN_READ} if ADMIN in held else set()
    return frozenset(asked) & (held | parts)


def text(scopes: Iterable[str]) -> str:
    """Return scopes as RFC 6749 writes them, always in the same order."""
    return " ".join(sorted(scopes))
