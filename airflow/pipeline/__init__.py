"""What happens to a sealed batch: plan, process, publish.

Plain functions on data. This package knows the landing zone, the staged area, the curated
tables and the gateway's HTTP interface; it knows nothing of Airflow, so that every step can be
run and tested without it. ``tasks`` is the door: one function per step.
"""
