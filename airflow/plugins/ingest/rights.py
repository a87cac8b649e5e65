"""Who may do what in Airflow: one table, and the two questions asked of it.

Notes
-----
A client's people look at what is theirs; its operators may also start a run by hand and clear runs
and tasks, and nothing else. Auditors look at what happened in all clients' work, and change nothing.
The gateway's own tokens are for one errand each.

Acts are Airflow's methods and three that `doors` tells apart: ``START`` (a run by hand: the
gateway's own are ``POST``), ``CLEAR`` (Airflow asks for ``PUT``, as for declaring a task successful
by hand) and ``BOOKMARK`` (a star of one's own at a DAG).

What is not in the table is for admins. Much of it Airflow 3.3 does not narrow to a DAG's readers;
rows that say so with nobody's name but an admin's are there so that nobody has to wonder.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from ingest.users import GatewayUser, Kind

if TYPE_CHECKING:
    from ingest.registry import Ownership


class Reach(IntEnum):
    """How far a right goes: nowhere, to what belongs to the user, to everything."""

    NONE = 0
    OWN = 1
    ANY = 2


_, OWN, ANY = Reach
TRIGGER, CANCEL, WATCHER, POOLS, VIEWER, OPERATOR, AUDITOR, ADMIN = Kind
# Their tokens name the DAGs they are for, among those of the client.
_BOUND_TO_DAGS = frozenset({TRIGGER, CANCEL})

# fmt: off
COLUMNS = (                              TRIGGER, CANCEL, WATCHER, POOLS, VIEWER, OPERATOR, AUDITOR, ADMIN)
TABLE: dict[tuple[str, str], tuple[Reach, ...]] = {
    ("dag",                "GET"):      (OWN,     _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag",                "BOOKMARK"): (_,       _,      _,       _,     OWN,    OWN,      _,       ANY),
    ("dag.RUN",            "GET"):      (OWN,     OWN,    ANY,     _,     OWN,    OWN,      ANY,     ANY),
    ("dag.RUN",            "POST"):     (OWN,     _,      _,       _,     _,      _,        _,       ANY),
    ("dag.RUN",            "START"):    (_,       _,      _,       _,     _,      OWN,      _,       ANY),
    ("dag.RUN",            "CLEAR"):    (_,       _,      _,       _,     _,      OWN,      _,       ANY),
    ("dag.RUN",            "PUT"):      (_,       OWN,    _,       _,     _,      _,        _,       ANY),
    ("dag.TASK_INSTANCE",  "GET"):      (_,       _,      ANY,     _,     OWN,    OWN,      ANY,     ANY),
    ("dag.TASK_INSTANCE",  "CLEAR"):    (_,       _,      _,       _,     _,      OWN,      _,       ANY),
    ("dag.TASK_INSTANCE",  "PUT"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("dag.TASK",           "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.TASK_LOGS",      "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.XCOM",           "GET"):      (_,       _,      _,       _,     OWN,    OWN,      _,       ANY),
    ("dag.VERSION",        "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.WARNING",        "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.DEPENDENCIES",   "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.HITL_DETAIL",    "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("dag.AUDIT_LOG",      "GET"):      (_,       _,      _,       _,     _,      _,        ANY,     ANY),
    ("dag.CODE",           "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("pool",               "GET"):      (_,       _,      _,       _,     _,      _,        ANY,     ANY),
    ("pool",               "POST"):     (_,       _,      _,       OWN,   _,      _,        _,       ANY),
    ("pool",               "PUT"):      (_,       _,      _,       OWN,   _,      _,        _,       ANY),
    ("team",               "GET"):      (_,       _,      _,       _,     OWN,    OWN,      ANY,     ANY),
    ("connection",         "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("variable",           "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("configuration",      "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("asset",              "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("asset_alias",        "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("view.IMPORT_ERRORS", "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("view.JOBS",          "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("menu.Dags",          "GET"):      (_,       _,      _,       _,     ANY,    ANY,      ANY,     ANY),
    ("menu.XComs",         "GET"):      (_,       _,      _,       _,     ANY,    ANY,      _,       ANY),
    ("menu.Audit Log",     "GET"):      (_,       _,      _,       _,     _,      _,        ANY,     ANY),
    ("menu.Pools",         "GET"):      (_,       _,      _,       _,     _,      _,        ANY,     ANY),
    ("custom.deliveries",  "GET"):      (_,       _,      _,       _,     OWN,    OWN,      _,       _),
    ("custom.gateway",     "GET"):      (_,       _,      _,       _,     _,      _,        _,       ANY),
    ("custom.audit",       "GET"):      (_,       _,      _,       _,     _,      _,        ANY,     ANY),
}
EVERYTHING_ELSE = (                      _,       _,      _,       _,     _,      _,        _,       ANY)
# fmt: on


def reach(user: GatewayUser, resource: str, method: str) -> Reach:
    """Return how far this user's right goes."""
    return TABLE.get((resource, method), EVERYTHING_ELSE)[COLUMNS.index(user.kind)]


def allows(user: GatewayUser, resource: str, method: str, *, owned: bool | None = None) -> bool:
    """Decide one request.

    Parameters
    ----------
    owned
        Whether the thing asked for is the user's; None for a list, or for a write that does not
        say where. Lists may be read, because their rows are narrowed; blind writes are refused.
    """
    found = reach(user, resource, method)
    if found is not Reach.OWN:
        return found is Reach.ANY
    return method == "GET" if owned is None else owned


def dag_list_reach(user: GatewayUser, method: str) -> Reach:
    """Return which rows a list shows: Airflow narrows all its lists by one set of DAG ids."""
    rows = (name for name, verb in TABLE if verb == method and name.split(".")[0] == "dag")
    return max((reach(user, name, method) for name in rows), default=reach(user, "dag", method))


def own_dag_ids(user: GatewayUser, ownership: Ownership) -> frozenset[str]:
    """Return the DAGs that are this user's: the client's by the registry, and named in the token."""
    dag_ids = ownership.dag_ids(user.client) if user.client else frozenset()
    return dag_ids & user.dags if user.kind in _BOUND_TO_DAGS else dag_ids


def owns_pool(user: GatewayUser, name: str, ownership: Ownership) -> bool:
    """Say whether a pool is that of this user's client."""
    return user.client is not None and ownership.client_by_pool.get(name) == user.client
