"""Whatever comes over the wire: the stream's readers take it or set it aside, and nothing else leaves them."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.collector.stream.okx import FrameError, _read
from services.collector.tracking.requests import Request
from shared.datasets.registry import decode, encode
from shared.exchanges.okx.rest import read_envelope
from shared.grid import MINUTE
from shared.ledger.minutes import Gap
from tests.support.builders import a_candle_row, a_funding_row
from tests.support.desk import BTC, NOON, Desk

pytestmark = pytest.mark.invariant(12)
CANDLE = a_candle_row(NOON)
FUNDING = a_funding_row(at=NOON, funding_time=NOON + timedelta(hours=4))
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "0", "-1", "1e39", "1e-46", "NaN", "99999999999999999", "1743854400000"])
)
ANY_JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(FUNDING)), inner, max_size=2),
    max_leaves=5,
)
CANDLES = ANY_JSON | st.builds(lambda at, value: [*CANDLE[:at], value, *CANDLE[at + 1 :]], st.integers(0, 8), ANY_JSON)
FUNDINGS = ANY_JSON | st.builds(
    lambda change: FUNDING | change, st.dictionaries(st.sampled_from(sorted(FUNDING)), ANY_JSON, max_size=3)
)
FEW_AND_MANY = pytest.mark.parametrize("examples", [500, pytest.param(10_000, marks=pytest.mark.proof)])


def check_with(examples, strategy, holds):
    """Check that something holds for so many examples."""
    so_many = settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    so_many(given(strategy)(holds))()


def check(events):
    """Check that what came out can travel, and is what arrives."""
    assert all(decode(encode(event)) == event for event in events)


@FEW_AND_MANY
def test_any_candle_row_of_the_stream_is_taken_or_set_aside(examples):
    check_with(examples, CANDLES, take_or_set_aside_candle)


def take_or_set_aside_candle(row):
    desk = Desk()

    desk.live_candle(BTC, row)

    assert len(desk.events) + len(desk.asides) <= 1
    assert desk.events or desk.asides or desk.btc.forming is not None
    check(desk.events)


@FEW_AND_MANY
def test_any_funding_row_of_the_stream_is_taken_or_set_aside(examples):
    check_with(examples, FUNDINGS, take_or_set_aside_funding)


def take_or_set_aside_funding(row):
    desk = Desk()

    desk.live_funding(BTC, row)

    assert bool(desk.events) != bool(desk.asides)
    check(desk.events)


@settings(deadline=None, max_examples=500)
@given(st.lists(CANDLES, max_size=3))
def test_any_page_of_candles_is_taken_or_set_aside_row_by_row(rows):
    desk = Desk()

    found = desk.history(Request("BTC_USDT", Gap(NOON, NOON + MINUTE), fresh=True), rows)

    assert len(found) + len(desk.asides) <= len(rows)
    assert all(candle.open_time == NOON for candle in found)


@FEW_AND_MANY
def test_any_frame_and_any_answer_is_read_or_refused(examples):
    names = st.sampled_from(["arg", "data", "event", "code", "msg", "op"])
    check_with(examples, st.tuples(names, ANY_JSON, ANY_JSON, st.binary(max_size=8)), read_or_refuse)


def read_or_refuse(parts):
    name, value, other, junk = parts
    whole = {"arg": {"channel": "candle1m", "instId": BTC}, "data": [CANDLE], "code": "0"} | {name: value}
    for text in (msgspec.json.encode(whole), msgspec.json.encode(other), msgspec.json.encode(whole)[:-3] + junk, junk):
        try:
            frame = _read(text.decode("utf-8", "replace"))
        except FrameError:
            pass
        else:
            assert frame.data is None or isinstance(frame.data, list)
        code, message, data = read_envelope(text, 200)
        assert (type(code), type(message), type(data)) == (str, str, list)
