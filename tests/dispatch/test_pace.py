"""The pace of a lane finds how many errands Airflow works on at once."""

from __future__ import annotations

import pytest

from gateway.dispatch import pace
from gateway.dispatch.pace import Pace

ALONE_SECONDS = 0.05


class Clock:
    """Time that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Airflow:
    """Works on so many requests at once; those beyond take their turns."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once

    def seconds(self, under_way: int) -> float:
        return ALONE_SECONDS * max(1.0, under_way / self.at_once)


def carried(mine: Pace, airflow: Airflow, errands: int) -> list[int]:
    """Carry errands of one lane, as many side by side as there may be; return each width."""
    widths = []
    for _ in range(errands):
        width = mine.width
        mine.took(airflow.seconds(width), width)
        widths.append(width)
    return widths


@pytest.mark.parametrize(("at_once", "settled"), [(1, {1, 2}), (2, {2, 3, 4}), (4, {4}), (64, {4})])
def test_a_lane_becomes_as_wide_as_airflow_is(at_once: int, settled: set[int]) -> None:
    widths = carried(Pace(4), Airflow(at_once), 200)
    assert widths[0] == 1
    assert set(widths[50:]) <= settled, widths


def test_a_lane_is_never_wider_than_the_setting() -> None:
    assert max(carried(Pace(3), Airflow(64), 100)) == 3


def test_what_others_have_airflow_do_makes_a_lane_narrower() -> None:
    mine = Pace(4)
    carried(mine, Airflow(4), 50)
    assert mine.width == 4
    for _ in range(20):
        mine.took(10 * ALONE_SECONDS, mine.width)
    assert mine.width == 1
    carried(mine, Airflow(4), 50)
    assert mine.width == 4


def test_a_single_errand_at_a_time_shows_nothing_about_more() -> None:
    mine = Pace(4)
    carried(mine, Airflow(64), 50)
    for _ in range(50):
        mine.took(ALONE_SECONDS, 1)
    assert mine.width == 4


def test_an_airflow_that_became_slower_is_measured_anew() -> None:
    clock = Clock()
    mine = Pace(4, clock)
    carried(mine, Airflow(64), 50)
    mine.took(100 * ALONE_SECONDS, 4)
    assert mine.width == 3
    clock.now += pace.MEMORY_SECONDS + 1
    mine.took(100 * ALONE_SECONDS, 3)
    assert mine.width <= 2
    for _ in range(50):
        mine.took(100 * ALONE_SECONDS, mine.width)
    assert mine.width == 4


def test_a_storm_that_goes_on_makes_no_lane_wider() -> None:
    clock = Clock()
    mine, airflow = Pace(4, clock), Airflow(1)
    for _ in range(20):
        assert set(carried(mine, airflow, 50)[10:]) <= {1, 2}
        clock.now += pace.MEMORY_SECONDS / 2
