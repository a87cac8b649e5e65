"""The messenger: the only room that speaks to Airflow.

Carries the outbox's messages to it (``trigger``, ``cancel``, ``pools``) and looks after the runs it
started (``watch``). Owns no table; changes jobs through ``jobs.states`` and messages through
``outbox.queue``.
"""
