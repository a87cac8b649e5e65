"""Groups inside groups: a walk that ends in every case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

DEPTH = 10
GROUPS = 200


@dataclass(frozen=True, slots=True)
class Group:
    """A group that an account is in.

    Attributes
    ----------
    name
        Lower-case, as names in LDAP have no case.
    via
        The groups that lead here, the one that names the account itself first; empty when this
        is that one.
    """

    name: str
    via: tuple[str, ...] = ()


def walk(dn: str, groups_holding: Callable[[str], Iterable[tuple[str, str]]]) -> tuple[Group, ...]:
    """Return every group that holds ``dn``, directly or through other groups.

    Breadth first, so ``via`` is a shortest way. A group is entered once, so circles end; and
    what lies deeper than ``DEPTH`` or beyond ``GROUPS`` groups gives no rights.

    Parameters
    ----------
    groups_holding
        Returns the DN and the name of each group that has a given DN as a member.
    """
    found: list[Group] = []
    seen = {dn.lower()}
    level: list[tuple[str, tuple[str, ...]]] = [(dn, ())]
    for _ in range(DEPTH):
        below, level = level, []
        for member, via in below:
            for group_dn, name in groups_holding(member):
                if group_dn.lower() in seen or len(found) == GROUPS:
                    continue
                seen.add(group_dn.lower())
                found.append(Group(name, via))
                level.append((group_dn, (*via, name)))
    return tuple(found)
