from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.grid import EPOCH, ceil_minute, day_start, days_between, floor_day, floor_minute, from_ms, to_ms
from tests.support.builders import at

INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@given(st.integers(0, 4_102_444_800_000))
def test_milliseconds_round_trip(milliseconds):
    assert to_ms(from_ms(milliseconds)) == milliseconds


@given(INSTANTS)
def test_milliseconds_are_floored(instant):
    back = from_ms(to_ms(instant))

    assert timedelta(0) <= instant - back < timedelta(milliseconds=1)


@given(INSTANTS)
def test_an_instant_lies_between_its_minute_and_the_next(instant):
    floor, ceil = floor_minute(instant), ceil_minute(instant)

    assert floor <= instant <= ceil
    assert ceil - floor in (timedelta(0), timedelta(minutes=1))
    assert (floor - EPOCH) % timedelta(minutes=1) == (ceil - EPOCH) % timedelta(minutes=1) == timedelta(0)


@given(INSTANTS)
def test_a_day_begins_at_midnight_utc(instant):
    assert floor_day(instant) == day_start(instant.date()) <= instant < floor_day(instant) + timedelta(days=1)


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        ("2025-04-05 00:00", "2025-04-06 00:00", [date(2025, 4, 5)]),
        ("2025-04-05 23:59", "2025-04-06 00:01", [date(2025, 4, 5), date(2025, 4, 6)]),
        ("2025-04-05 12:00", "2025-04-05 12:00", [date(2025, 4, 5)]),
        ("2025-04-05 00:00", "2025-04-05 00:00", []),
        ("2025-04-06 00:00", "2025-04-05 00:00", []),
        ("2024-02-28 10:00", "2024-03-01 10:00", [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]),
    ],
)
def test_the_days_that_a_span_touches(begin, end, expected):
    assert days_between(at(begin), at(end)) == expected
