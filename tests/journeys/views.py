"""A walk through the views inside Airflow, as a person takes it."""

from __future__ import annotations

import re

from playwright.sync_api import Page


def walk(shown: Page, airflow: str) -> None:
    """See a delivery with its rejected row, go over to its DAG run, and come back from a task."""
    shown.goto(f"{airflow}/dags")
    shown.get_by_role("button", name="Gateway").click()
    shown.get_by_role("menuitem", name="Deliveries").click()
    framed = shown.frame_locator("iframe[title=Deliveries]")
    framed.get_by_role("link", name="walk", exact=True).click()
    framed.get_by_text("flights_2013_05.csv", exact=True).wait_for()
    framed.get_by_role("link", name="Attempt 1").click()
    # Its address can be passed on: it leads to the same place in Airflow's page.
    shown.wait_for_url(re.compile(r"/security/deliveries/auth/views/jobs/job_\w+$"))
    # It stands in the plan, and beside the row that was rejected.
    for section in ("Plan", "Rejected rows"):
        table = framed.locator("section", has=framed.get_by_role("heading", name=section))
        table.get_by_role("cell", name="flights_2013_05.csv").wait_for()
    job = shown.url.rpartition("/")[2]
    framed.get_by_role("link", name="Show the DAG run").click()
    shown.wait_for_url(f"{airflow}/dags/acme__flights/runs/gw.{job}**")
    shown.goto(f"{airflow}/auth/views/jobs/{job}")
    shown.wait_for_url(f"{airflow}/security/deliveries/auth/views/jobs/{job}")
    framed.get_by_role("heading", name="Attempt 1").wait_for()
