"""How long is waited, and what is borne how often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch import airflow_api, setbacks


@given(st.integers(1, 10_000), st.sampled_from([15.0, 30.0]))
def test_a_delay_is_never_longer_than_its_bound(attempts: int, longest: float) -> None:
    assert 0 <= setbacks.delay_seconds(attempts, longest) <= longest


def test_first_delays_are_short_and_later_ones_spread_over_the_whole_bound() -> None:
    first = [setbacks.delay_seconds(1, 15) for _ in range(200)]
    later = [setbacks.delay_seconds(20, 15) for _ in range(200)]
    assert max(first) <= 1
    assert min(later) < 5
    assert max(later) > 10


def test_only_what_the_gateway_itself_can_be_blamed_for_is_counted() -> None:
    judged = {
        error: setbacks.of(error(), 50).attempts
        for error in (
            airflow_api.UnavailableError,
            airflow_api.OutcomeUnknownError,
            airflow_api.NotThereError,
            airflow_api.BadRequestError,
            airflow_api.RefusedError,
            airflow_api.RejectedError,
            KeyError,
            setbacks.RunTakenError,
        )
    }
    assert list(judged.values()) == [None, None, None, None, 50, 50, 50, 1]
