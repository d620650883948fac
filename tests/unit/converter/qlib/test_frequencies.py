from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.qlib.frequencies import FREQUENCIES, calendar_lines, future_bars
from tests.support.builders import MIDNIGHT, at, minute

MINUTELY, DAILY = (next(f for f in FREQUENCIES if f.name == name) for name in ("1min", "day"))


@pytest.mark.invariant(4)
@given(st.sampled_from(FREQUENCIES), st.integers(0, 5000), st.integers(1, 200))
def test_the_calendar_is_arithmetic(frequency, first, count):
    """Invariant 4: bar t opens t steps after the origin, whatever the data."""
    lines = calendar_lines(frequency, MIDNIGHT, first, count).splitlines()

    assert [at(line) for line in lines] == [MIDNIGHT + (first + ahead) * frequency.step for ahead in range(count)]


def test_labels_are_the_open_of_a_bar_a_date_for_days():
    assert calendar_lines(MINUTELY, MIDNIGHT, 1439, 2) == "2025-04-05 23:59:00\n2025-04-06 00:00:00\n"
    assert calendar_lines(DAILY, MIDNIGHT, 0, 2) == "2025-04-05\n2025-04-06\n"


@given(st.sampled_from(FREQUENCIES), st.integers(0, 10_000))
def test_a_bar_counts_once_its_last_minute_is_over(frequency, minutes):
    bars = frequency.bars_until(MIDNIGHT, minute(minutes))

    assert bars * frequency.minutes <= minutes < (bars + 1) * frequency.minutes


@given(st.sampled_from(FREQUENCIES), st.integers(0, 10_000))
def test_an_instant_lies_in_the_bar_of_its_position(frequency, number):
    position = frequency.position(MIDNIGHT, minute(number))

    assert MIDNIGHT + position * frequency.step <= minute(number) < MIDNIGHT + (position + 1) * frequency.step


def test_every_frequency_divides_the_day():
    assert all(frequency.bars_per_day * frequency.minutes == 1440 for frequency in FREQUENCIES)
    assert [frequency.name for frequency in FREQUENCIES if not frequency.future] == ["1min"]


def test_a_future_calendar_reaches_beyond_the_data():
    assert future_bars(10) > 10
    assert future_bars(11) - future_bars(10) == 1


def test_nothing_is_over_before_the_origin():
    assert MINUTELY.bars_until(MIDNIGHT, MIDNIGHT - timedelta(days=1)) == 0
