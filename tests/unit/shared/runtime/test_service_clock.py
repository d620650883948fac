"""What a service says of an exchange whose time cannot be true."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from shared.clock import ExchangeClock, Sample
from shared.grid import EPOCH
from shared.runtime import service as service_module
from shared.runtime.service import Health, Service, keep_clock

pytestmark = pytest.mark.invariant(13)


class Cached:
    """An exchange whose time has been kept by a cache for a minute; its rows are made by `row_time`."""

    def __init__(self, row_time):
        self.row_time, self.said = row_time, time.time()
        self.here = time.monotonic() - 60.0

    async def measure_time(self):
        self.here += 10.0
        return Sample(self.here, self.here + 0.02, self.said)

    async def newest_row_time(self):
        return self.row_time


@pytest.fixture
async def after_a_while(monkeypatch):
    """Return a function that lets a service measure an exchange six times, and returns it."""
    monkeypatch.setattr(service_module, "_until_next_measurement", lambda _: 0.01)

    async def run(exchange):
        service = Service("ranker", None, exchange, ExchangeClock(distrusted=True), Health(), asyncio.Event())
        task = asyncio.create_task(keep_clock(service))
        await asyncio.sleep(0.2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return service

    return run


async def test_a_time_that_stands_still_while_rows_come_is_a_problem_and_not_the_time(after_a_while, logs_of):
    """The problem is one sentence that does not change, so it is logged and alerted once."""
    with logs_of(service_module) as logs:
        service = await after_a_while(Cached(EPOCH + timedelta(seconds=time.time() + 50)))
    said = [line["event"] for line in logs]

    assert "the exchange's time stands still at " in service.health.problems["clock"]
    assert "while newer rows come: not believed" in service.health.problems["clock"]
    assert not service.clock.measured
    assert said.count("degraded") == 1


async def test_a_time_that_stands_still_as_the_rows_do_is_the_time_and_said(after_a_while):
    service = await after_a_while(Cached(EPOCH + timedelta(seconds=time.time() - 50)))

    assert "its rows are not newer" in service.health.problems["clock"]
    assert service.clock.measured
    assert service.clock.rate == 0.0
