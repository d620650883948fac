import asyncio
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ClockLine, ExchangeClock
from shared.runtime.schedule import daily_at, every, every_hours, firings, next_due
from shared.runtime.service import Health, Service
from tests.support.builders import at
from tests.support.patience import patience


@pytest.mark.parametrize(
    ("trigger", "now", "due"),
    [
        (every_hours(8), "2025-04-05 07:59:59", "2025-04-05 08:00:00"),
        (every_hours(8), "2025-04-05 16:00:01", "2025-04-06 00:00:00"),
        (every_hours(8), "2025-04-05 08:00:00", "2025-04-05 08:00:00"),
        (daily_at(0, 10), "2025-04-05 00:10:01", "2025-04-06 00:10:00"),
        (every(timedelta(minutes=5)), "2025-04-05 00:03:00", "2025-04-05 00:05:00"),
        (every(timedelta(seconds=90)), "2025-04-05 00:00:01", "2025-04-05 00:01:30"),
    ],
)
def test_the_first_firing_is_aligned_to_utc(trigger, now, due):
    assert next_due(trigger, None, at(now)) == at(due)


def test_each_firing_is_followed_by_the_next():
    trigger, due, fired = every_hours(8), None, []

    for _ in range(4):
        due = next_due(trigger, due, at("2025-04-05 00:00:00") if due is None else due)
        fired.append(due)

    assert fired == [
        at("2025-04-05 00:00:00"),
        at("2025-04-05 08:00:00"),
        at("2025-04-05 16:00:00"),
        at("2025-04-06 00:00:00"),
    ]


@pytest.mark.invariant(13)
@given(st.integers(1, 10**6), st.sampled_from([1, 2, 4, 8, 12]))
def test_of_several_missed_firings_only_the_last_counts(seconds, hours):
    """Invariant 13: a clock that jumped ahead fires once, then goes on with the grid."""
    previous = at("2025-04-05 00:00:00")
    now = previous + timedelta(seconds=seconds)

    due = next_due(every_hours(hours), previous, now)

    step = timedelta(hours=hours)
    assert due > previous
    assert (due - previous) % step == timedelta(0)
    assert now - step < due <= max(now, previous + step)


@pytest.mark.invariant(13)
@pytest.mark.parametrize("behind", [timedelta(0), timedelta(milliseconds=3), timedelta(seconds=20)])
def test_a_clock_measured_again_does_not_fire_the_same_instant_twice(behind):
    """Invariant 13: a new measurement may set the clock back a little, just after the firing."""
    fired = at("2025-04-05 08:00:00")

    assert next_due(every_hours(8), fired, fired - behind) == at("2025-04-05 16:00:00")


@pytest.mark.invariant(13)
async def test_a_schedule_follows_the_exchanges_clock_whatever_the_hosts_says():
    """Invariant 13: it is another year there, and eight hours pass within a second."""
    begin = at("2025-04-05 07:59:59")
    there = ClockLine(time.monotonic(), begin.timestamp(), rate=36_000.0)
    service = Service("ranker", None, None, ExchangeClock(line=there), Health(), asyncio.Event())
    firing = firings(every_hours(8), service)

    async with asyncio.timeout(patience(20)):
        first, second = await anext(firing), await anext(firing)

    assert begin < first < second <= service.clock.now()
    assert {instant.timestamp() % (8 * 3600) for instant in (first, second)} == {0}
