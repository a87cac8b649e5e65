"""A few of each client's requests at a time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.web import Turns


def test_so_many_of_a_client_go_side_by_side_and_others_do_not_wait() -> None:
    async def told() -> list[str]:
        turns, order, gate = Turns(2), list[str](), asyncio.Event()

        async def work(client: str, name: str) -> None:
            async with turns.turn(client):
                order.append(name)
                await gate.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(work("acme", f"acme {number}"))
            await asyncio.sleep(0)
            group.create_task(work("globex", "globex"))
            await asyncio.sleep(0)
            assert order == ["acme 0", "acme 1", "globex"]
            gate.set()
        assert not turns._lines
        return order

    assert asyncio.run(told()) == ["acme 0", "acme 1", "globex", "acme 2", "acme 3"]


def test_a_place_is_given_back_whatever_happened() -> None:
    async def fail() -> None:
        turns = Turns(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="of ours"):
                async with asyncio.timeout(1), turns.turn("acme"):
                    raise ValueError("of ours")
        assert not turns._lines

    asyncio.run(fail())
