"""Aggregation and funding, judged by plain loops over candles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.calendars import FREQUENCIES, Frequency
from services.converter.features import FIELDS, FUNDING_VALID, Settlements, features, funding_as_of, minute_grid
from shared.events import Candle
from shared.grid import to_ms
from tests.support.builders import MIDNIGHT, a_candle, minute

HOURLY = Frequency("60min", 60, future=True)
CHECKED = tuple({frequency.name: frequency for frequency in (*FREQUENCIES, HOURLY)}.values())
PRICES = st.floats(1e-9, 1e6)
SIZES = st.just(0.0) | st.floats(1e-6, 1e9)


@st.composite
def some_candles(draw):
    """Draw candles of two days, with holes of every size."""
    numbers = sorted(draw(st.sets(st.integers(0, 2879) | st.integers(55, 65) | st.integers(1435, 1445), max_size=40)))
    found = {}
    for number in numbers:
        low, first, last, high = sorted(draw(st.tuples(PRICES, PRICES, PRICES, PRICES)))
        found[number] = a_candle(
            open_time=minute(number), open=first, high=high, low=low, close=last, volume=draw(SIZES), amount=draw(SIZES)
        )
    return found


RATES = st.dictionaries(
    st.integers(-8 * 24 * 60, 2900) | st.integers(0, 24).map(lambda n: n * 60), st.floats(-0.9, 0.9)
)


def settled(rates):
    times = sorted(rates)
    return Settlements(
        np.array([to_ms(minute(number)) for number in times], np.int64), np.array([rates[number] for number in times])
    )


def computed(candles, rates, frequency, days=2):
    opens = np.array([to_ms(candle.open_time) for candle in candles.values()], np.int64)
    columns = {
        name: np.array([getattr(candle, name) for candle in candles.values()], float) for name in Candle.features
    }
    grid = minute_grid(opens, columns, to_ms(MIDNIGHT), days * 1440)
    return features(grid, frequency, to_ms(MIDNIGHT), settled(rates))


def naive_bar(candles, rates, begin, length):
    """Say the same of one bar with plain Python."""
    inside = [candles[number] for number in range(begin, begin + length) if number in candles]
    if not inside:
        return dict.fromkeys(FIELDS, math.nan)
    volume, amount = (float(np.sum([getattr(candle, name) for candle in inside])) for name in ("volume", "amount"))
    reach = FUNDING_VALID.total_seconds() / 60
    known = [number for number in rates if number < begin + length <= number + reach]
    return {
        "open": inside[0].open,
        "high": max(candle.high for candle in inside),
        "low": min(candle.low for candle in inside),
        "close": inside[-1].close,
        "volume": volume,
        "amount": amount,
        "vwap": amount / volume if volume > 0 else inside[-1].close,
        "funding_rate": rates[max(known)] if known else math.nan,
    }


@pytest.mark.invariant(4)
@settings(deadline=None, max_examples=60)
@given(some_candles(), RATES)
def test_every_bar_is_what_its_own_minutes_and_the_known_rate_make_it(candles, rates):
    """Invariant 4: position t is the bar that opened at t, or NaN; nothing is shifted, filled or interpolated."""
    for frequency in CHECKED:
        found = computed(candles, rates, frequency)

        assert list(found) == list(FIELDS)
        occupied = {number // frequency.minutes for number in candles}
        for position in range(2 * frequency.bars_per_day):
            if position not in occupied:
                assert all(math.isnan(values[position]) for values in found.values())
        for position in occupied:
            expected = naive_bar(candles, rates, position * frequency.minutes, frequency.minutes)
            for name, value in expected.items():
                assert found[name][position] == pytest.approx(np.float32(value), rel=1e-6, nan_ok=True), name


@pytest.mark.invariant(5)
@settings(deadline=None, max_examples=60)
@given(some_candles(), RATES, st.integers(1, 2880))
def test_what_comes_after_an_instant_changes_nothing_before_it(candles, rates, cut):
    """Invariant 5: cut all data at T; every bar that closed at or before T stays the same, bit for bit."""
    before = {number: candle for number, candle in candles.items() if number < cut}
    rates_before = {number: rate for number, rate in rates.items() if number < cut}

    for frequency in CHECKED:
        whole, part = computed(candles, rates, frequency), computed(before, rates_before, frequency)

        over = cut // frequency.minutes
        for name in FIELDS:
            assert whole[name][:over].tobytes() == part[name][:over].tobytes()


@pytest.mark.parametrize("frequency", CHECKED, ids=lambda frequency: frequency.name)
def test_one_minute_alone_is_its_bar(frequency):
    candle = a_candle(open_time=minute(61), price=3.0)

    found = computed({61: candle}, {}, frequency)

    position = 61 // frequency.minutes
    assert {name: float(found[name][position]) for name in ("open", "high", "low", "close", "volume", "amount")} == {
        "open": 3.0,
        "high": 3.75,
        "low": 2.25,
        "close": 3.375,
        "volume": 2.0,
        "amount": 6.0,
    }
    assert found["vwap"][position] == 3.0


def test_a_bar_without_trades_is_worth_its_close():
    found = computed({0: a_candle(volume=0.0, amount=0.0)}, {}, HOURLY)

    assert found["vwap"][0] == found["close"][0]
    assert found["volume"][0] == 0.0


@pytest.mark.invariant(5)
def test_a_rate_settled_at_the_close_belongs_to_the_next_bar():
    """Invariant 5: the exchange tells it only after the bar has closed."""
    rates = {480: 0.001}
    closes = np.array([to_ms(minute(480)), to_ms(minute(481))], np.int64)

    before, after = funding_as_of(closes, settled(rates))

    assert math.isnan(before)
    assert after == 0.001


def test_a_rate_that_is_too_old_says_nothing():
    valid = int(FUNDING_VALID.total_seconds() // 60)
    closes = np.array([to_ms(minute(valid)), to_ms(minute(valid + 1))], np.int64)

    last, gone = funding_as_of(closes, settled({0: 0.001}))

    assert last == 0.001
    assert math.isnan(gone)


def test_without_settlements_the_rate_is_unknown():
    assert math.isnan(computed({0: a_candle()}, {}, HOURLY)["funding_rate"][0])


def test_candles_outside_of_the_grid_are_left_out():
    opens = np.array([to_ms(minute(number)) for number in (-1, 0, 1439, 1440)], np.int64)

    grid = minute_grid(opens, {"close": np.array([1.0, 2.0, 3.0, 4.0])}, to_ms(MIDNIGHT), 1440)

    assert (grid["close"][0], grid["close"][-1]) == (2.0, 3.0)
    assert np.isnan(grid["close"]).sum() == 1438
