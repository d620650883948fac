"""A frame that is read at once says what reading it value by value says; any other is left to that."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.exchanges.okx.candles import candles_of, plain_frame
from shared.grid import from_ms, to_ms
from tests.support.okx_rows import CANDLE

INST = "BTC-USDT-SWAP"
SYMBOLS = {INST: "BTC_USDT"}
OPENED = int(CANDLE[0])
NOW = from_ms(OPENED + 60_000)
RECEIVED = from_ms(OPENED + 61_234)
FORMING = [*CANDLE[:8], "0"]

SPELLINGS = st.sampled_from([
    *("", "0", "-0", "0.0", "007", "-1", "+5", "5.", ".5", " 5", "5 ", "1e5", "1E-5"),
    *("1e400", "1e-400", "1e31", "1e-31"),
    *("nan", "NaN", "inf", "-Infinity", "0x10", "1_000", "1,5", "५", "true", "null", "confirm"),
    *(None, True, False, 5, 5.5, -1, 10**30, 2**70, [], {}, ["1"]),
])  # fmt: skip
NUMBERS = st.decimals(0, 200_000, places=4).map(str) | st.floats(0, 1e31).map(repr) | SPELLINGS
TIMES = (
    st.integers(-3, 5).map(lambda minutes: str(OPENED + minutes * 60_000))
    | st.sampled_from([str(OPENED + 1), str(OPENED)[:10], f"0{OPENED}", "9" * 13, OPENED, f"{OPENED}.0", f"-{OPENED}"])
    | SPELLINGS
)
CONFIRMS = st.sampled_from(["0", "1", "1", "1", "", "true", 1, True, None])


@st.composite
def rows(draw):
    """Return a row of a candle in which some columns are odd, or missing, or too many."""
    row = list(CANDLE)
    for column in draw(st.sets(st.integers(0, 8), max_size=3)):
        row[column] = draw(TIMES if column == 0 else CONFIRMS if column == 8 else NUMBERS)
    return draw(st.sampled_from([row, row, row, row[:8], [*row, "more"]]))


def read_at_once(row, **changes):
    frame = {"arg": {"channel": "candle1m", "instId": INST}, "data": [row]} | changes
    return plain_frame(json.dumps(frame), "candle1m", SYMBOLS, lambda: (RECEIVED, NOW))


@given(rows())
@pytest.mark.invariant(12)
def test_what_is_read_at_once_is_what_is_read_value_by_value(row):
    """Invariant 12: and where that refuses a row, it is left to it, which says why."""
    plain = read_at_once(row)

    slow = candles_of(INST, [row], source="ws", receive_time=RECEIVED, exchange_now=NOW)

    if plain is not None:
        assert (plain.symbol, list(plain.page.events)) == ("BTC_USDT", slow.events)
        assert (list(plain.page.partial), list(plain.page.refused)) == (slow.partial, slow.refused)
    elif row[0] == CANDLE[0] and isinstance(row[-1], str):
        odd = [value for value, usual in zip(row, CANDLE, strict=False) if value != usual]
        assert odd or len(row) < 9


def test_usual_frames_are_read_at_once():
    closed, forming = read_at_once(CANDLE), read_at_once(FORMING)

    assert [candle.close for candle in closed.page.events] == [float(CANDLE[4])]
    assert closed.page.events[0].source == "ws"
    assert (list(forming.page.events), forming.page.partial) == ([], (from_ms(OPENED),))


def test_the_clocks_are_read_for_a_closed_candle_only():
    asked = []
    frame = json.dumps({"arg": {"channel": "candle1m", "instId": INST}, "data": [FORMING]})

    assert plain_frame(frame, "candle1m", SYMBOLS, lambda: asked.append(1)) is not None
    assert asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"arg": {"channel": "candle5m", "instId": INST}},
        {"arg": {"channel": "candle1m", "instId": "ETH-USDT-SWAP"}},
        {"arg": {"channel": "candle1m"}},
        {"data": []},
        {"data": [CANDLE, CANDLE]},
        {"data": None},
        {"event": "subscribe"},
    ],
)
def test_a_frame_of_another_kind_is_left_to_who_reads_it_value_by_value(changes):
    assert read_at_once(CANDLE, **changes) is None


@pytest.mark.parametrize("text", ["pong", "", "[", "[" * 100_000, '{"event":"notice"}', "\ud800"])
def test_what_is_no_frame_of_rows_is_left_too(text):
    assert plain_frame(text, "candle1m", SYMBOLS, lambda: (RECEIVED, NOW)) is None


def test_a_candle_from_the_future_is_left_too():
    ahead = [str(to_ms(NOW) + 3 * 60_000), *CANDLE[1:]]

    assert read_at_once(ahead) is None
