"""Every field of every frequency, judged by plain loops over candles, rates, predictions and rankings.

A field that the loops of `tests/support/plain_bars.py` do not compute is not judged here: `test_one_row` names it.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.docs.fields import TABLE, page
from services.converter.features.asof import AsOf, Contract, PredictedRates, Rankings, SettledRates
from services.converter.features.bars import Bars, on_grid
from services.converter.features.fields import COLUMNS, FIELDS, STOCK_FIELDS, features
from services.converter.qlib.frequencies import FREQUENCIES
from shared.grid import to_ms
from tests.support.builders import MIDNIGHT, a_candle, minute
from tests.support.plain_bars import Facts, plain_bar

DAYS = 2
END = DAYS * 1440
HOUR = next(frequency for frequency in FREQUENCIES if frequency.name == "60min")
DAY = FREQUENCIES[-1]
PRICES = st.floats(1e-9, 1e6)
SIZES = st.just(0.0) | st.floats(1e-6, 1e9)
NEAR_EDGES = st.integers(0, END - 1) | st.integers(55, 65) | st.integers(1435, 1445)


@st.composite
def some_candles(draw):
    """Draw candles of two days, with holes of every size."""
    numbers = sorted(draw(st.sets(NEAR_EDGES, max_size=40)))
    found = {}
    for number in numbers:
        low, first, last, high = sorted(draw(st.tuples(PRICES, PRICES, PRICES, PRICES)))
        found[number] = a_candle(
            open_time=minute(number), open=first, high=high, low=low, close=last, volume=draw(SIZES), amount=draw(SIZES)
        )
    return found


WHEN = st.integers(-8 * 1440, END) | st.integers(0, 48).map(lambda n: n * 60)
RATES = st.floats(-0.9, 0.9)
HOURS = st.sampled_from([1.0, 2.0, 4.0, 8.0, math.nan])
SETTLED = st.dictionaries(WHEN, st.tuples(RATES, HOURS), max_size=12)
PREDICTED = st.dictionaries(st.integers(-600, END), st.tuples(RATES, HOURS, st.integers(-60, 480)), max_size=12)
"""Known at → (rate, hours, minutes until it is due)."""
RANKED = st.dictionaries(st.integers(-3000, END), st.none() | st.tuples(st.integers(1, 300), st.booleans()), max_size=6)
"""Ranked at → None: not among the ranked."""
BEGINS = st.lists(NEAR_EDGES | st.just(-99_999), max_size=3).map(sorted)
"""When the lives of a name began."""
VALUED = st.dictionaries(WHEN, st.floats(1e-4, 1e4), max_size=4)
"""Known at → what a contract was worth."""
ABSENT = st.lists(st.tuples(NEAR_EDGES, st.integers(1, 1440)), max_size=4)


def in_ms(numbers):
    return np.array([to_ms(minute(number)) for number in numbers], np.int64)


def known_of(settled=(), predicted=(), ranked=(), begins=(), valued=()):
    settled, predicted, ranked, valued = (
        dict(sorted(dict(facts).items())) for facts in (settled, predicted, ranked, valued)
    )
    return AsOf(
        SettledRates(in_ms(settled), *(np.array([row[at] for row in settled.values()], float) for at in (0, 1))),
        PredictedRates(
            in_ms(predicted),
            in_ms(number + row[2] for number, row in predicted.items()),
            *(np.array([row[at] for row in predicted.values()], float) for at in (0, 1)),
        ),
        Rankings(
            in_ms(ranked),
            np.array([math.nan if row is None else row[0] for row in ranked.values()], float),
            np.array([row is not None and row[1] for row in ranked.values()], float),
        ),
        Contract(in_ms(begins), in_ms(valued), np.array([*valued.values()], float)),
    )


def minutes_of(candles, known=None, absent=()):
    masks = [0] * DAYS
    for number in absent:
        masks[number // 1440] |= 1 << number % 1440
    columns = {name: np.array([getattr(candle, name) for candle in candles.values()], float) for name in COLUMNS}
    return on_grid(in_ms(candles), columns, to_ms(MIDNIGHT), masks, known)


def spread(runs):
    return {number for first, length in runs for number in range(first, min(END, first + length))}


def in_float32(value):
    """Return what Qlib can hold of a value: NaN where that is less than its seven digits."""
    with np.errstate(over="ignore"):
        stored = np.float32(value)
    held = np.finfo(np.float32)
    return stored if value == 0 or held.tiny <= abs(stored) <= held.max else np.float32("nan")


@pytest.mark.invariant(4)
@settings(deadline=None, max_examples=40)
@given(some_candles(), st.tuples(SETTLED, PREDICTED, RANKED, BEGINS, VALUED), ABSENT)
def test_every_bar_is_what_its_own_minutes_and_what_was_known_make_it(candles, facts, holes):
    """Invariant 4: position t is the bar that opened at t, or NaN; nothing is shifted, filled or interpolated."""
    absent = spread(holes)
    minutes = minutes_of(candles, known_of(*facts), absent)
    for frequency in FREQUENCIES:
        found = features(Bars(minutes, frequency))

        assert list(found) == [field.name for field in FIELDS]
        for position in range(END // frequency.minutes):
            begin = position * frequency.minutes
            if frequency.minutes == 1 and begin not in candles and position % 97:
                continue  # thousands of empty minutes look alike
            expected = plain_bar(candles, absent, Facts(*facts), begin, frequency.minutes)
            for name in expected.keys() & found.keys():
                value = in_float32(expected[name])
                assert found[name][position] == pytest.approx(value, rel=1e-6, nan_ok=True), name


@pytest.mark.invariant(5)
@settings(deadline=None, max_examples=40)
@given(some_candles(), st.tuples(SETTLED, PREDICTED, RANKED), st.tuples(BEGINS, VALUED), ABSENT, st.integers(1, END))
def test_what_comes_after_an_instant_changes_nothing_before_it(candles, facts, contract, holes, cut):
    """Invariant 5: cut all data at T; every bar that closed at or before T stays the same, bit for bit.

    Of the lives of a name the first one is always known: before that a dataset has no candle.
    """
    begins, valued = contract
    whole = minutes_of(candles, known_of(*facts, begins, valued), spread(holes))
    early = [{when: fact for when, fact in rows.items() if when < cut} for rows in (candles, *facts, valued)]
    kept = [begin for begin in begins if begin < cut or begin == begins[0]]
    known = known_of(*early[1:4], kept, early[4])
    part = minutes_of(early[0], known, {number for number in spread(holes) if number < cut})

    for frequency in FREQUENCIES:
        with_all, without = features(Bars(whole, frequency)), features(Bars(part, frequency))

        over = cut // frequency.minutes
        for name in with_all:
            assert with_all[name][:over].tobytes() == without[name][:over].tobytes()


@pytest.mark.parametrize("frequency", FREQUENCIES, ids=lambda frequency: frequency.name)
def test_one_minute_alone_is_its_bar_where_the_exchange_has_no_others(frequency):
    minutes = minutes_of({61: a_candle(open_time=minute(61), price=3.0)}, absent=range(1440))

    found = features(Bars(minutes, frequency))

    position = 61 // frequency.minutes
    assert {name: float(found[name][position]) for name in COLUMNS} == {
        "open": 3.0,
        "high": 3.75,
        "low": 2.25,
        "close": 3.375,
        "volume": 2.0,
        "amount": 6.0,
        "contracts": 200.0,
    }
    assert found["vwap"][position] == 3.0
    assert found["coverage"][position] == np.float32(1 / frequency.minutes)


def test_a_bar_without_trades_is_worth_its_close():
    candles = {number: a_candle(open_time=minute(number), volume=0.0, amount=0.0) for number in range(60)}

    found = features(Bars(minutes_of(candles), HOUR))

    assert found["vwap"][0] == found["close"][0]
    assert found["volume"][0] == 0.0


@pytest.mark.invariant(5)
def test_a_rate_settled_at_the_close_belongs_to_the_next_bar():
    """Invariant 5: the exchange publishes it only after the bar has closed."""
    candles = {number: a_candle(open_time=minute(number)) for number in range(420, 540)}

    found = features(Bars(minutes_of(candles, known_of({480: (0.001, 8)})), HOUR))

    assert math.isnan(found["funding_rate"][7])
    assert found["funding_rate"][8] == np.float32(0.001)
    assert found["funding_paid"][7] == 0.0
    assert found["funding_paid"][8] == np.float32(0.001)


@pytest.mark.invariant(5)
def test_a_prediction_counts_from_the_bar_after_it_until_its_settlement():
    """Invariant 5: one that has been replaced is never fallen back on."""
    candles = {number: a_candle(open_time=minute(number)) for number in range(480)}
    predictions = {60: (0.1, 8, 420), 130: (0.2, 1, 50)}

    found = features(Bars(minutes_of(candles, known_of(predicted=predictions)), HOUR))

    assert [None if math.isnan(rate) else round(float(rate), 3) for rate in found["funding_predicted"]][:8] == [
        None,  # closes at 60, when it was published
        0.1,
        0.2,  # due at 180, when this bar closes
        *[None] * 5,
    ]
    assert list(found["funding_interval"][1:3]) == [8.0, 1.0]
    assert list(found["minutes_to_funding"][1:3]) == [360.0, 0.0]


def test_several_settlements_inside_a_bar_are_added_up():
    candles = {number: a_candle(open_time=minute(number)) for number in range(1440)}
    rates = {number * 60: (0.001 * (number + 1), 1) for number in range(24)}

    found = features(Bars(minutes_of(candles, known_of(rates)), DAY))

    assert found["funding_paid"][0] == pytest.approx(0.3, rel=1e-6)
    assert found["funding_rate"][0] == np.float32(0.024)


def test_rates_that_are_too_old_say_nothing():
    candles = {number: a_candle(open_time=minute(number)) for number in range(3)}
    week = 7 * 1440

    found = features(Bars(minutes_of(candles, known_of({2 - week: (0.5, 8)})), FREQUENCIES[0]))

    assert found["funding_rate"][1] == 0.5
    assert math.isnan(found["funding_rate"][2])


def test_candles_outside_of_the_grid_are_left_out():
    opens = in_ms((-1, 0, END - 1, END))

    minutes = on_grid(opens, {"close": np.array([1.0, 2.0, 3.0, 4.0])}, to_ms(MIDNIGHT), [0, 0])

    assert (minutes.columns["close"][0], minutes.columns["close"][-1]) == (2.0, 3.0)
    assert minutes.present.sum() == 2


def test_every_field_has_a_name_of_its_own_and_says_what_it_means():
    names = [field.name for field in (*FIELDS, *STOCK_FIELDS)]

    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name == name.lower() for name in names)
    assert all(field.meaning and field.unit and field.clock and field.source for field in (*FIELDS, *STOCK_FIELDS))


def test_the_page_of_the_fields_is_what_make_fields_writes():
    """But for the rows of the fields: `test_one_row` names those."""
    assert _without_rows(page()) == _without_rows(TABLE.read_text())


def _without_rows(text):
    return [line for line in text.splitlines() if not line.startswith("| `$")]
