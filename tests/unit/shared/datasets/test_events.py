import math
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.datasets.registry import EVENTS, UndecodableError, decode, encode, rows_of
from shared.datasets.universe import Ranking
from tests.support.builders import MIDNIGHT, a_candle, a_funding_rate, a_prediction, a_ranking

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - bounds
    lambda instant: instant.replace(fold=0)
)
PARTS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabc0123456789龙猫", min_size=1, max_size=8)
SYMBOLS = st.lists(PARTS, min_size=1, max_size=3).map("_".join)
HOURS = st.none() | st.integers(1, 24)
CANDLES = st.builds(
    a_candle,
    symbol=SYMBOLS,
    open_time=TIMES,
    price=FLOATS.filter(lambda price: math.isfinite(price * 2)),
    volume=FLOATS,
    contracts=st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1]),
    source=st.sampled_from(["ws", "rest"]),
)
RATES = st.builds(a_funding_rate, symbol=SYMBOLS, funding_time=TIMES, rate=FLOATS, interval_hours=HOURS)
PREDICTIONS = st.builds(a_prediction, symbol=SYMBOLS, known_time=TIMES, rate=FLOATS, interval_hours=HOURS)
RANKINGS = st.lists(SYMBOLS, max_size=5, unique=True).map(lambda symbols: a_ranking(*symbols[:3], others=symbols[3:]))


@given(CANDLES | RATES | PREDICTIONS | RANKINGS)
def test_any_event_survives_the_bus_bit_for_bit(event):
    fields = encode(event)

    assert all(isinstance(value, str) for value in fields.values())
    assert repr(decode(fields)) == repr(event)


@given(CANDLES)
def test_a_candle_is_spelled_at_once_as_it_is_spelled_value_by_value(candle):
    one_by_one = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in msgspec.to_builtins(candle).items()
    }

    assert list(encode(candle).items()) == [("event", "candle"), *one_by_one.items()]


@pytest.mark.parametrize("price", [1.23e-9, 5e-324, 0.1 + 0.2, 123456789.123456789])
def test_tiny_and_long_prices_keep_every_bit(price):
    assert decode(encode(a_candle(price=price))).open.hex() == price.hex()


def test_an_absent_value_is_left_out_and_comes_back_as_none():
    fields = encode(a_funding_rate(interval_hours=None))

    assert "interval_hours" not in fields
    assert decode(fields).interval_hours is None


def test_an_entry_is_readable_by_people():
    fields = encode(a_candle(price=100.0))

    assert (fields["event"], fields["symbol"], fields["open"]) == ("candle", "BTC_USDT", "100.0")
    assert fields["open_time"] == "2025-04-05T00:00:00Z"


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"open": "a lot"}, "open"),
        ({"open_time": "yesterday"}, "open_time"),
        ({"source": "pigeon"}, "source"),
        ({"event": "gossip"}, "gossip"),
        ({"event": ""}, "event"),
        ({"symbol": "../../../EVIL"}, "EVIL"),
        ({"symbol": ""}, "symbol"),
    ],
)
def test_an_undecodable_entry_names_the_field(change, named):
    """Invariant 12: bad input has an address."""
    with pytest.raises(UndecodableError, match=named):
        decode(encode(a_candle()) | change)


@pytest.mark.invariant(12)
@pytest.mark.parametrize("field", ["open_time", "receive_time"])
@pytest.mark.parametrize("naive", ["2025-04-05T00:00:00", "2025-04-05 12:00:00.5"])
def test_a_time_without_a_zone_is_undecodable_and_named(field, naive):
    """Invariant 12: it could mean any of some 24 instants."""
    with pytest.raises(UndecodableError, match=rf"candle: {field}: .* has no time zone"):
        decode(encode(a_candle()) | {field: naive})


@pytest.mark.invariant(12)
def test_a_time_without_a_zone_inside_of_a_ranking_is_undecodable_too():
    fields = encode(a_ranking("BTC_USDT"))

    with pytest.raises(UndecodableError, match=r"ranking: funding_time: .* has no time zone"):
        decode(fields | {"ranks": fields["ranks"].replace("T08:00:00Z", "T08:00:00")})


def test_a_time_of_another_zone_is_brought_to_utc():
    decoded = decode(encode(a_candle()) | {"open_time": "2025-04-05T02:00:00+02:00"})

    assert repr(decoded) == repr(a_candle())


@pytest.mark.invariant(12)
def test_a_time_that_leaves_the_calendar_in_utc_is_undecodable():
    with pytest.raises(UndecodableError, match="open_time"):
        decode(encode(a_candle()) | {"open_time": "0001-01-01T00:00:00+10:00"})


@pytest.mark.invariant(12)
@pytest.mark.parametrize("absent", ["symbol", "close", "open_time", "receive_time"])
def test_an_entry_with_a_missing_field_names_it(absent):
    fields = encode(a_candle())
    del fields[absent]

    with pytest.raises(UndecodableError, match=absent):
        decode(fields)


@pytest.mark.parametrize("broken", ["[", "{}", '["BTC_USDT", 1]'])
def test_a_broken_list_is_undecodable_too(broken):
    with pytest.raises(UndecodableError, match="ranking"):
        decode(encode(a_ranking("BTC_USDT")) | {"members": broken})


def test_a_field_of_tomorrow_does_not_hurt():
    assert decode(encode(a_candle()) | {"taker_buy_volume": "1.5"}) == a_candle()


def test_a_ranking_leaves_one_row_for_every_swap_and_the_others_one_each():
    ranking = a_ranking("BTC_USDT", "ETH_USDT", others=["SOL_USDT"])

    assert [(row.symbol, row.member) for row in rows_of(ranking)] == [
        ("BTC_USDT", True),
        ("ETH_USDT", True),
        ("SOL_USDT", False),
    ]
    assert rows_of(a_candle()) == (a_candle(),)


def test_every_kind_of_event_has_its_own_name():
    assert len({kind.name for kind in EVENTS}) == len(EVENTS)


@pytest.mark.invariant(2)
@pytest.mark.parametrize(
    ("row", "identity"),
    [
        (a_candle(), ("okx", "BTC_USDT", "1m", MIDNIGHT)),
        (a_funding_rate(), ("okx", "BTC_USDT", MIDNIGHT)),
        (a_prediction(), ("okx", "BTC_USDT", MIDNIGHT)),
    ],
)
def test_the_identity_of_a_row(row, identity):
    """Invariant 2: exchange, symbol, interval where there is one, and the instant that the row is about."""
    assert tuple(getattr(row, name) for name in row.key) == identity


def test_a_ranking_on_the_bus_is_a_ranking():
    assert isinstance(decode(encode(a_ranking("BTC_USDT"))), Ranking)
