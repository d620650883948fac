"""The collector's publisher on a real Redis: bounded, in order, through an outage."""

import asyncio

import pytest

from services.collector.publisher import Publisher
from shared.bus.bus import Bus
from shared.clock import ExchangeClock
from shared.runtime.service import Health, Service
from tests.support.builders import a_candle, minute, until


def a_service(bus):
    return Service("collector", bus, None, ExchangeClock(), Health(), asyncio.Event())


def some(count, begin=0):
    return [a_candle(open_time=minute(begin + number)) for number in range(count)]


async def published(bus):
    await bus.create_groups()
    reading = bus.consume(("candles",), "writer", consumer="test", count=10_000, block_ms=10)
    entries = await anext(reading)
    await reading.aclose()
    return [entry.event().open_time for entry in entries]


async def test_everything_is_published_in_order(bus):
    publisher = Publisher(a_service(bus), 10_000)
    for event in some(1300):
        publisher.append(event)

    await publisher.flush()

    assert await published(bus) == [minute(number) for number in range(1300)]
    assert len(publisher) == 0


@pytest.mark.invariant(11)
async def test_a_full_buffer_forgets_the_oldest_and_says_so():
    """Invariant 11: memory is bounded while Redis is away, and what was dropped is fetched again."""
    bus = Bus("redis://127.0.0.1:9/0", timeout_seconds=1)
    publisher, forgotten = Publisher(a_service(bus), 100), []
    publisher.forget = forgotten.append

    for event in some(130):
        publisher.append(event)

    assert len(publisher) == 100
    assert [event.open_time for event in forgotten] == [minute(number) for number in range(30)]
    await bus.close()


@pytest.mark.invariant(11)
async def test_history_waits_for_room(bus):
    """Invariant 11: live events go first."""
    publisher = Publisher(a_service(bus), 100)
    for event in some(60):
        publisher.append(event)
    waiting = asyncio.create_task(publisher.put(some(40, begin=1000)))
    await asyncio.sleep(0)

    assert len(publisher) == 60
    await publisher.flush()
    await waiting

    assert len(publisher) == 40


async def test_what_was_not_published_when_it_stops_stays_in_order(bus):
    away = Bus("redis://127.0.0.1:9/0", timeout_seconds=1)
    service = a_service(away)
    publisher = Publisher(service, 1000)
    for event in some(700):
        publisher.append(event)
    flushing = asyncio.create_task(publisher.flush())
    await until(lambda: service.health.problems)

    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    assert len(publisher) == 700
    service.bus = bus
    await publisher.flush()

    assert await published(bus) == [minute(number) for number in range(700)]
    assert service.health.state != "degraded"
    await away.close()


async def test_one_may_wait_until_everything_so_far_is_on_the_bus(bus):
    publisher = Publisher(a_service(bus), 10_000)
    for event in some(1300):
        publisher.append(event)
    waiting = asyncio.create_task(publisher.until_left(publisher.appended))
    await asyncio.sleep(0)
    assert not waiting.done()

    await publisher.flush()
    await asyncio.wait_for(waiting, 10)

    assert len(await published(bus)) == 1300
    await asyncio.wait_for(publisher.until_left(1300), 10)
