"""Heavy requests take turns."""

import asyncio

import pytest

from services.api.heavy import BusyError, Turns


async def test_no_more_than_allowed_have_a_turn_at_once():
    turns, inside, most = Turns(2, wait_seconds=60), 0, 0

    async def work():
        nonlocal inside, most
        async with turns.turn():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(9)))

    assert (most, inside) == (2, 0)


async def test_who_gets_no_turn_in_time_is_refused_and_the_next_one_is_served():
    turns = Turns(1, wait_seconds=0.01)

    async with turns.turn():
        with pytest.raises(BusyError, match="too many heavy requests"):
            async with turns.turn():
                pytest.fail("two had the only turn")
    async with turns.turn():
        pass


async def test_an_error_gives_its_turn_back():
    turns = Turns(1, wait_seconds=0.01)

    for _ in range(3):
        with pytest.raises(ValueError, match="unreadable"):
            async with turns.turn():
                raise ValueError("unreadable")
