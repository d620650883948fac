"""What requests share: a snapshot for a second, and each answer made of it once."""

import asyncio

import pytest

from services.api.health.moment import Moment, Moments

LONG = 3600.0


class Readings:
    """Hands out a snapshot at each reading; one that hangs waits until it is let go."""

    def __init__(self, snapshot):
        self.snapshot = snapshot
        self.count = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.error = None

    async def __call__(self):
        self.count += 1
        await self.hang.wait()
        if self.error is not None:
            raise self.error
        return self.snapshot


@pytest.fixture
def readings(healthy):
    return Readings(healthy)


async def test_all_who_ask_while_a_snapshot_is_fresh_share_one_reading(readings):
    moments = Moments(readings, LONG)

    found = await asyncio.gather(*(moments.now() for _ in range(20)))
    found.append(await moments.now())

    assert readings.count == 1
    assert len(set(map(id, found))) == 1


async def test_a_snapshot_that_is_no_longer_fresh_answers_no_one(readings):
    moments = Moments(readings, 0.0)

    first, second = await moments.now(), await moments.now()

    assert (readings.count, first is second) == (2, False)


async def test_who_asks_later_does_not_wait_for_a_reading_that_hangs(readings):
    moments = Moments(readings, 0.01)
    readings.hang.clear()
    first = asyncio.create_task(moments.now())
    await asyncio.sleep(0.05)
    second = asyncio.create_task(moments.now())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert readings.count == 2
    readings.hang.set()
    assert await first is not await second


async def test_an_error_of_the_reading_is_raised_to_all_and_the_next_one_reads_again(readings):
    moments = Moments(readings, LONG)
    readings.error = RuntimeError("a bug")

    found = await asyncio.gather(moments.now(), moments.now(), return_exceptions=True)
    readings.error = None
    after = await moments.now()

    assert found == [readings_error := found[0], readings_error]
    assert isinstance(readings_error, RuntimeError)
    assert (readings.count, after.snapshot) == (2, readings.snapshot)


async def test_who_hangs_up_leaves_the_reading_to_the_others(readings):
    moments = Moments(readings, LONG)
    readings.hang.clear()
    gone, waits = asyncio.create_task(moments.now()), asyncio.create_task(moments.now())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    readings.hang.set()

    assert (await waits).snapshot is readings.snapshot
    assert readings.count == 1


async def test_an_answer_is_made_once_for_each_question(healthy):
    moment, made = Moment(healthy), []

    async def answer(text):
        made.append(text)
        await asyncio.sleep(0)
        return text

    found = await asyncio.gather(*(moment.once(text, lambda text=text: answer(text)) for text in "aabab"))

    assert found == list("aabab")
    assert sorted(made) == ["a", "b"]


async def test_an_answer_that_failed_is_made_again(healthy):
    moment, tries = Moment(healthy), []

    async def answer():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not now")
        return "there"

    with pytest.raises(ValueError, match="not now"):
        await moment.once("question", answer)
    await asyncio.sleep(0)

    assert await moment.once("question", answer) == "there"
