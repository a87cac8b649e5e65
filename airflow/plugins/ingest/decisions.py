"""Every question Airflow asks about rights, put to the table in `rights`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.models import DagModel
from airflow.utils.session import NEW_SESSION, provide_session
from sqlalchemy import select

from ingest import doors, rights
from ingest.users import GatewayUser, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.batch_apis import (
        IsAuthorizedConnectionRequest,
        IsAuthorizedDagRequest,
        IsAuthorizedPoolRequest,
        IsAuthorizedVariableRequest,
    )
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        AccessView,
        AssetAliasDetails,
        AssetDetails,
        ConfigurationDetails,
        ConnectionDetails,
        DagAccessEntity,
        DagDetails,
        PoolDetails,
        TeamDetails,
        VariableDetails,
    )
    from airflow.api_fastapi.common.types import MenuItem
    from sqlalchemy.orm import Session

    from ingest.registry import Ownership


class Decisions(BaseAuthManager[GatewayUser]):
    """The half of the auth manager that decides; the other half says who is asking."""

    @abstractmethod
    def ownership(self) -> Ownership:
        """Return what belongs to whom, now."""

    def is_authorized_dag(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        """Decide about a DAG or a part of it."""
        resource = f"dag.{access_entity.value}" if access_entity else "dag"
        owned = None
        if details is not None and details.id is not None:
            mine = rights.own_dag_ids(user, self.ownership())
            owned = details.id in mine and _is_own_team(user, details.team_name)
        return _allows(user, resource, doors.act(str(method)), owned=owned)

    def is_authorized_pool(
        self, *, method: ResourceMethod, user: GatewayUser, details: PoolDetails | None = None
    ) -> bool:
        """Decide about a pool.

        Notes
        -----
        ``POST /pools`` does not tell the auth manager which pool it makes, so only admins may use
        it. The gateway makes a pool with the bulk call (``PATCH /pools``), which does.
        """
        owned = None
        if details is not None and details.name is not None:
            mine = rights.owns_pool(user, details.name, self.ownership())
            owned = mine and _is_own_team(user, details.team_name)
        return _allows(user, "pool", str(method), owned=owned)

    def is_authorized_configuration(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        details: ConfigurationDetails | None = None,  # noqa: ARG002
    ) -> bool:
        """Decide about Airflow's configuration."""
        return _allows(user, "configuration", str(method))

    def is_authorized_connection(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        details: ConnectionDetails | None = None,  # noqa: ARG002
    ) -> bool:
        """Decide about connections."""
        return _allows(user, "connection", str(method))

    def is_authorized_variable(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        details: VariableDetails | None = None,  # noqa: ARG002
    ) -> bool:
        """Decide about variables."""
        return _allows(user, "variable", str(method))

    def is_authorized_asset(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        details: AssetDetails | None = None,  # noqa: ARG002
    ) -> bool:
        """Decide about assets, which Airflow does not narrow to a DAG's readers."""
        return _allows(user, "asset", str(method))

    def is_authorized_asset_alias(
        self,
        *,
        method: ResourceMethod,
        user: GatewayUser,
        details: AssetAliasDetails | None = None,  # noqa: ARG002
    ) -> bool:
        """Decide about asset aliases."""
        return _allows(user, "asset_alias", str(method))

    def is_authorized_team(
        self, *, method: ResourceMethod, user: GatewayUser, details: TeamDetails | None = None
    ) -> bool:
        """Decide about teams: where Airflow runs with teams, a client's team bears its name."""
        owned = None if details is None else details.name == user.client
        return _allows(user, "team", str(method), owned=owned)

    def _get_teams(self) -> set[str]:
        """Require no team: clients work without them."""
        return set()

    def is_authorized_view(self, *, access_view: AccessView, user: GatewayUser) -> bool:
        """Decide about the views of the whole installation."""
        return _allows(user, f"view.{access_view.value}", "GET")

    def is_authorized_custom_view(
        self, *, method: ResourceMethod, resource_name: str, user: GatewayUser
    ) -> bool:
        """Decide about a plugin's own view."""
        return _allows(user, f"custom.{resource_name}", str(method))

    def filter_authorized_menu_items(
        self, menu_items: list[MenuItem], *, user: GatewayUser
    ) -> list[MenuItem]:
        """Leave out what would only answer 403."""
        return [item for item in menu_items if rights.allows(user, f"menu.{item.value}", "GET")]

    # Several at once. Airflow asks about an empty list too, and would take "all of none" for yes.

    def batch_is_authorized_dag(
        self, requests: Sequence[IsAuthorizedDagRequest], *, user: GatewayUser
    ) -> bool:
        """Decide about several DAGs at once."""
        return _may_be_empty(requests, user) and super().batch_is_authorized_dag(
            requests, user=user
        )

    def batch_is_authorized_pool(
        self, requests: Sequence[IsAuthorizedPoolRequest], *, user: GatewayUser
    ) -> bool:
        """Decide about several pools at once."""
        return _may_be_empty(requests, user) and super().batch_is_authorized_pool(
            requests, user=user
        )

    def batch_is_authorized_connection(
        self, requests: Sequence[IsAuthorizedConnectionRequest], *, user: GatewayUser
    ) -> bool:
        """Decide about several connections at once."""
        return _may_be_empty(requests, user) and super().batch_is_authorized_connection(
            requests, user=user
        )

    def batch_is_authorized_variable(
        self, requests: Sequence[IsAuthorizedVariableRequest], *, user: GatewayUser
    ) -> bool:
        """Decide about several variables at once."""
        return _may_be_empty(requests, user) and super().batch_is_authorized_variable(
            requests, user=user
        )

    @provide_session
    def get_authorized_dag_ids(
        self, *, user: GatewayUser, method: ResourceMethod = "GET", session: Session = NEW_SESSION
    ) -> set[str]:
        """Return the DAG ids every list is narrowed to: for clients without asking the database."""
        found = rights.dag_list_reach(user, str(method))
        if found is rights.Reach.ANY:
            return set(session.scalars(select(DagModel.dag_id)))
        if found is rights.Reach.OWN:
            return set(rights.own_dag_ids(user, self.ownership()))
        return set()


def _allows(user: GatewayUser, resource: str, act: str, *, owned: bool | None = None) -> bool:
    """Decide by the door as well as by the table: neither alone lets anybody do anything."""
    return doors.lets_in(user.kind) and rights.allows(user, resource, act, owned=owned)


def _is_own_team(user: GatewayUser, team_name: str | None) -> bool:
    return team_name is None or team_name == user.client


def _may_be_empty(requests: Sequence[Any], user: GatewayUser) -> bool:
    return bool(requests) or user.kind is Kind.ADMIN
