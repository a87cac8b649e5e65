"""Airflow's side of the gateway: who may come in, and what they may see.

Runs inside Airflow's processes. It imports Airflow and speaks to the gateway over HTTP; it never
imports the gateway's code. The two sides agree on the golden files under ``airflow/contract``.
"""
