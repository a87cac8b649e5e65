"""The gateway in a client's own Airflow: a connection, a hook, an operator that delivers.

Owns what Airflow (3.3 and later) calls a provider, installed by ``ingestion-gateway[airflow]``. It
stands on the SDK alone, and nothing imports it but Airflow, which alone has what it imports.

=====================  ====================================================================
``get_provider_info``  what Airflow reads: the connection's form, and where everything is
``connection``         what a connection says, as the SDK takes it
``hooks``              :class:`~gateway.provider.hooks.GatewayHook`
``operators``          :class:`~gateway.provider.operators.GatewayDeliverOperator`
``triggers``           waiting for a job without a worker
``links``              from a task to its delivery
``telling``            what a task's log and its XComs say of a delivery
=====================  ====================================================================
"""
