"""Requests of a second: exactly as many as the limit says, whoever counts them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from gateway.clients.model import RequestWindow
from gateway.clients.rate import RateLimitedError, RequestRate
from gateway.database import connect
from gateway.database import sessions as sessions_of
from gateway.settings import Database
from tests import factories
from tests.clients.conftest import Process
from tests.parts import free_port

Onboard = Callable[..., None]


@pytest.fixture
def limited(sessions: sessionmaker[Session]) -> Onboard:
    """Return a function that gives client A a limit."""
    return lambda limit, name="acme": factories.onboard(sessions, name, requests_per_second=limit)


def passes(rate: RequestRate, client: str = "acme") -> bool:
    try:
        rate.take(client)
    except RateLimitedError:
        return False
    return True


def burst(rates: list[RequestRate], number: int) -> list[bool]:
    """Have requests come at once, spread over processes; again if they took too long."""
    for _ in range(10):
        gate = Barrier(number)

        def one(index: int, gate: Barrier = gate) -> bool:
            gate.wait()
            return passes(rates[index % len(rates)])

        begun = time.monotonic()
        with ThreadPoolExecutor(number) as crowd:
            found = list(crowd.map(one, range(number)))
        if time.monotonic() - begun < 0.9:
            return found
        time.sleep(1.1)
    raise AssertionError("this machine is too slow today")


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 7, 40])
def test_of_many_requests_at_once_exactly_the_limit_is_let_through(
    limited: Onboard, process: Process, processes: int, limit: int
) -> None:
    limited(limit)
    rates = [process() for _ in range(processes)]
    assert burst(rates, 90).count(True) == limit
    time.sleep(1.01)
    assert burst(rates, 90).count(True) <= limit


def test_the_next_second_has_its_own(limited: Onboard, process: Process) -> None:
    limited(3)
    rate = process()
    for _ in range(2):
        assert [passes(rate) for _ in range(5)] == [True, True, True, False, False]
        time.sleep(1.01)


def test_a_long_queue_never_gets_more_than_its_rate(limited: Onboard, process: Process) -> None:
    limited(50)
    rates = [process(), process()]
    begun = time.monotonic()

    def hammer(index: int) -> int:
        count = 0
        while time.monotonic() < begun + 2.5:
            count += passes(rates[index % 2])
            time.sleep(0.002)
        return count

    with ThreadPoolExecutor(6) as crowd:
        total = sum(crowd.map(hammer, range(6)))
    seconds = int(time.monotonic() - begun) + 1
    # What one process has in its pocket when a second ends is lost to the other.
    assert 50 + 2 * 40 <= total <= 50 * seconds, (total, seconds)


def test_clients_do_not_use_up_each_others(limited: Onboard, process: Process) -> None:
    limited(1, "acme")
    limited(1, "globex")
    rate = process()
    assert [passes(rate, name) for name in ("acme", "globex", "acme", "globex")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_new_limit_holds_at_once(limited: Onboard, process: Process) -> None:
    limited(2)
    rate = process()
    assert passes(rate)
    limited(1)
    assert not passes(rate)
    time.sleep(1.01)
    limited(3)
    assert [passes(rate) for _ in range(4)].count(True) == 3


def test_at_a_high_rate_few_requests_cost_a_statement(limited: Onboard, process: Process) -> None:
    limited(100_000)
    rate = process()
    statements: Counter[str] = Counter()

    @event.listens_for(rate._sessions.kw["bind"], "before_cursor_execute")
    def count(*_: object) -> None:
        statements["all"] += 1

    def hammer(seconds: float) -> int:
        begun, requests = time.monotonic(), 0
        while time.monotonic() < begun + seconds:
            rate.take("acme")
            requests += 1
            time.sleep(0.0005)
        return requests

    hammer(4.0)  # each second may take more at a time than the one before
    statements.clear()
    assert hammer(1.0) > 5 * statements["all"]


def test_a_database_that_takes_longer_than_the_second_lets_requests_through(
    limited: Onboard, process: Process
) -> None:
    limited(2)
    rate = process()
    statements = Counter[str]()

    @event.listens_for(rate._sessions.kw["bind"], "after_cursor_execute")
    def dawdle(*_: object) -> None:
        statements["all"] += 1
        time.sleep(1.1)

    assert passes(rate)
    assert statements["all"] == 1


def test_a_pocket_says_when_a_thread_has_to_refill_it(limited: Onboard, process: Process) -> None:
    limited(2)
    rate = process()
    assert not rate.take_from_pocket("acme")
    rate.take("acme")
    rate.take("acme")
    with pytest.raises(RateLimitedError) as refused:
        rate.take_from_pocket("acme")
    assert refused.value.headers == {"Retry-After": "1"}
    assert refused.value.retryable


def test_what_is_left_of_a_second_before_is_not_used_in_the_next(
    limited: Onboard, process: Process, sessions: sessionmaker[Session]
) -> None:
    limited(2000)
    rate = process()
    for _ in range(400):
        rate.take("acme")
    time.sleep(1.01)
    rate.take("acme")  # takes a share
    assert rate.take_from_pocket("acme")
    time.sleep(1.01)
    assert not rate.take_from_pocket("acme")
    with sessions.begin() as session:
        window = session.scalars(select(RequestWindow)).one()
        assert 2 < window.taken <= 2000 // 20 + 2


def test_a_clock_that_was_set_back_keeps_nobody_out(
    limited: Onboard, process: Process, sessions: sessionmaker[Session]
) -> None:
    limited(1)
    assert passes(process())
    with sessions.begin() as session:
        later = func.clock_timestamp() + text("interval '1 hour'")
        session.query(RequestWindow).update({"began_at": later}, synchronize_session=False)
    assert passes(process())


def test_the_counts_are_kept_where_writing_is_cheap(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        kind = text("SELECT relpersistence FROM pg_class WHERE relname = 'request_window'")
        assert session.scalar(kind) == "u"


def test_nothing_is_let_through_uncounted_while_the_database_is_away() -> None:
    url = f"postgresql+psycopg2://gateway@127.0.0.1:{free_port()}/gateway"
    engine = connect(Database.model_validate({"url": url}))
    rate = RequestRate(sessions_of(engine))
    for _ in range(2):
        with pytest.raises(OperationalError):
            rate.take("acme")
    assert not rate.take_from_pocket("acme")
    engine.dispose()
