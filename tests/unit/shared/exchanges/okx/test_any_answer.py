"""Whatever an answer holds is read or refused, row by row: odd rows, odd values, anything at all."""

import contextlib
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.datasets.registry import decode, encode
from shared.exchanges.base import RowError
from shared.exchanges.okx.candles import open_time_of
from shared.exchanges.okx.decoding import Unreadable
from shared.exchanges.okx.funding import predictions_of, settled_of
from shared.exchanges.okx.instruments import instrument_of, listing_of
from shared.exchanges.okx.maintenance import maintenances_of
from shared.exchanges.okx.names import inst_id_of
from shared.exchanges.okx.settlements import settlements_of
from shared.exchanges.okx.times import exchange_time_of, newest_time_of
from tests.support.okx_rows import CANDLE, FUNDING, FUNDING_NOW, HISTORY, INSTRUMENT, INVERSE, RECEIVED, candle_in

JUNK = [[5], "row", 5, None, True, {}, {"instId": None}, {"instId": 5}, [["instId", "BTC-USDT-SWAP"]]]

UNSPELLABLE = 10**5_000
"""Python spells no integer of more than 4,300 digits."""

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([1, -1]).map(lambda sign: sign * UNSPELLABLE)
    | st.builds(Unreadable, st.text()),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.sampled_from(sorted(FUNDING | INSTRUMENT)), inner),
    max_leaves=20,
)

ROWS = st.lists(
    ANY_JSON
    | st.builds(
        lambda row, change: row | change,
        st.sampled_from([FUNDING, INSTRUMENT, HISTORY]),
        st.dictionaries(st.sampled_from(sorted(FUNDING | INSTRUMENT)), ANY_JSON, max_size=3),
    )
    | st.builds(
        lambda row, at, value: [*row[:at], value, *row[at + 1 :]], st.just(CANDLE), st.integers(0, 8), ANY_JSON
    ),
    max_size=4,
)


@pytest.mark.invariant(12)
@pytest.mark.parametrize("junk", JUNK)
def test_an_odd_row_of_a_list_is_left_out_and_named_and_its_neighbours_are_taken(junk):
    """Invariant 12."""
    listing = listing_of([junk, INSTRUMENT, junk, INVERSE])
    rates, left_out, _ = predictions_of(
        [junk, FUNDING, junk], source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW
    )
    windows, refused, _ = maintenances_of([junk, {"title": "x", "state": "ongoing", "begin": "1789833600000"}])

    assert set(listing.instruments) == {"BTC_USDT", "BTC_USD"}
    assert [rate.symbol for rate in rates] == ["BTC_USDT"]
    assert [window.title for window in windows] == ["x"]
    assert [row for row, *_ in listing.refused] == [row for row, *_ in left_out] == [junk, junk]
    assert [row for row, *_ in refused] == [junk]


@pytest.mark.parametrize(
    "value",
    [UNSPELLABLE, [UNSPELLABLE], {"a": UNSPELLABLE}, Unreadable("1e999")],
    ids=["number", "list", "row", "unreadable"],
)
def test_a_value_that_python_cannot_spell_is_refused_wherever_it_stands(value):
    for place in range(8):
        with pytest.raises(RowError):
            candle_in([*CANDLE[:place], value, *CANDLE[place + 1 :]])
    for parse in (instrument_of, open_time_of, lambda row: exchange_time_of([row])):
        with pytest.raises(RowError):
            parse(value)


@pytest.mark.invariant(12)
@pytest.mark.parametrize("answers", [500, pytest.param(10_000, marks=pytest.mark.proof)])
def test_whatever_the_exchange_answers_is_read_or_refused_row_by_row(answers):
    """Invariant 12: so many answers to each parser; nothing but the border's own error leaves it."""
    so_many = settings(max_examples=answers, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    so_many(given(ROWS)(read_or_refuse))()


def read_or_refuse(rows):
    """Give an answer to each parser."""
    listing = listing_of(rows)
    rates, *_ = predictions_of(rows, source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW)
    windows, refused_windows, _ = maintenances_of(rows)
    settled, *_ = settlements_of("BTC_USDT", rows, known_time=FUNDING_NOW, receive_time=RECEIVED)
    newest_time_of(rows)
    for read in (
        lambda: exchange_time_of(rows),
        *(lambda row=row: read_one(row) for row in rows),
        *(
            lambda row=row: settled_of(
                row, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW
            )
            for row in rows
        ),
    ):
        with contextlib.suppress(RowError):
            read()

    assert len(windows) + len(refused_windows) == len(rows)
    for event in [*rates, *settled]:
        assert abs(event.funding_rate) < 1
        assert decode(encode(event)) == event
    assert all(inst_id_of(symbol).endswith("-SWAP") for symbol in listing.instruments)


def read_one(row):
    """Read a candle row, and check what was believed of it."""
    open_time_of(row)
    candle = candle_in(row)
    assert candle.low <= candle.open <= candle.high
    assert all(math.isfinite(value) for value in (candle.open, candle.volume, candle.amount, candle.contracts))
    assert decode(encode(candle)) == candle
