"""From a connection of Airflow to a client of the gateway."""

from __future__ import annotations

from functools import cached_property

from airflow.sdk import BaseHook

from gateway.provider.connection import Way
from gateway.provider.get_provider_info import CONNECTION_TYPE
from gateway.sdk.client import GatewayClient
from gateway.sdk.journal import Journal
from gateway.sdk.problems import ClientError
from gateway.sdk.transport import RetryPolicy
from gateway.sdk.watching import JobWatch


class GatewayHook(BaseHook):
    """Speaks to a gateway as the account of a connection.

    Parameters
    ----------
    retry_seconds
        How long a call is repeated while the gateway is away. Airflow's own retries come on top.

    Example::

        with GatewayHook().get_conn() as gateway:
            for batch in gateway.iter_batches("flights"):
                print(batch.reference, batch.state)
    """

    conn_name_attr = "gateway_conn_id"
    default_conn_name = "ingestion_gateway_default"
    conn_type = CONNECTION_TYPE
    hook_name = "Ingestion Gateway"

    def __init__(
        self, gateway_conn_id: str = default_conn_name, *, retry_seconds: float = 300.0
    ) -> None:
        super().__init__()
        self.gateway_conn_id = gateway_conn_id
        self.retry_seconds = retry_seconds

    @cached_property
    def way(self) -> Way:
        """What the connection says."""
        return Way.of(self.get_connection(self.gateway_conn_id))

    def get_conn(self) -> GatewayClient:
        """Return a client, to be closed by whoever asked.

        Raises
        ------
        ValueError
            The connection is of no use.
        """
        return self.way.open(RetryPolicy(deadline_seconds=self.retry_seconds))

    async def watch(self) -> JobWatch:
        """Return what waits for jobs in an event loop, which is not blocked meanwhile."""
        return Way.of(await self.aget_connection(self.gateway_conn_id)).watch()

    def notes(self, project: str, reference: str) -> Journal:
        """Return what this machine notes of a delivery, for a later try to go on."""
        return Journal(self.way.notes_of(project, reference), self.log.warning)

    def test_connection(self) -> tuple[bool, str]:
        """Sign in, and say what came of it: the button below the connection's form."""
        try:
            with self.way.open(RetryPolicy(deadline_seconds=0.0)) as gateway:
                ways = ", ".join(sorted(gateway.capabilities().uploads))
        except (ClientError, ValueError, OSError) as error:
            return False, str(error)
        return True, f"Signed in as {self.way.account.user}; files go by {ways}"
