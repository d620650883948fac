"""Whether an event can be true: time is an argument here."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shared.datasets.plausible import AHEAD, LONGEST_VERDICT, impossible
from shared.grid import DAY, MINUTE
from tests.support.builders import (
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    a_verdict,
)

NOW = MIDNIGHT + DAY
FAR = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)


def reason(event, now=NOW, **changes):
    return impossible(msgspec.structs.replace(event, **changes), ["okx"], now)


@pytest.mark.parametrize("now", [NOW, None], ids=["", "no clock"])
def test_what_the_intake_publishes_is_possible(now):
    events = [
        a_candle(),
        a_candle(volume=0.0, amount=0.0, contracts=0.0),
        a_funding_rate(),
        a_prediction(),
        a_definition(),
        a_verdict("wanted", 0, 1440),
        msgspec.structs.replace(a_verdict("wanted", 480, 481), about="funding"),
        a_ranking("BTC_USDT", others=["ETH_USDT"]),
    ]

    assert [impossible(event, ["okx"], now) for event in events] == [None] * len(events)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"open": float("nan")}, "price"),
        ({"low": -5.0}, "price"),
        ({"high": 1e39}, "price"),
        ({"low": 200.0}, "enclose"),
        ({"volume": -5.0}, "volume"),
        ({"contracts": float("inf")}, "volume"),
        ({"exchange": "binance"}, "exchange"),
        ({"exchange": ""}, "exchange"),
        ({"symbol": "BTC_USDT.BINANCE"}, "symbol"),
        ({"interval": "5m"}, "interval"),
        ({"open_time": MIDNIGHT + timedelta(seconds=1)}, "grid"),
        ({"open_time": NOW + AHEAD + MINUTE}, "future"),
        ({"open_time": FAR}, "open_time"),
        ({"open_time": datetime(1970, 1, 1, tzinfo=UTC)}, "open_time"),
    ],
)
@pytest.mark.invariant(12)
def test_a_candle_that_cannot_be_true_is_named(changes, named):
    """Invariant 12."""
    assert named in reason(a_candle(), **changes)


@pytest.mark.parametrize(
    ("event", "changes", "named"),
    [
        (a_funding_rate(), {"funding_rate": 1.0}, "funding_rate"),
        (a_funding_rate(), {"interval_hours": -5}, "interval_hours"),
        (a_funding_rate(), {"funding_time": NOW + 2 * AHEAD}, "future"),
        (a_prediction(), {"funding_rate": float("nan")}, "funding_rate"),
        (a_prediction(), {"funding_time": FAR}, "funding_time"),
        (a_definition(), {"contract_value": 0.0}, "contract_value"),
        (a_definition(), {"known_time": NOW + 2 * AHEAD}, "future"),
        (a_verdict("absent", 0, 9), {"about": "books"}, "about"),
        (a_verdict("absent", 0, 9), {"end": FAR}, "minutes"),
        (a_verdict("absent", 0, 9), {"begin": MIDNIGHT + 10 * MINUTE}, "minutes"),
        (a_verdict("absent", 0, 9), {"begin": MIDNIGHT - LONGEST_VERDICT - DAY}, "days"),
    ],
)
@pytest.mark.invariant(12)
def test_another_event_that_cannot_be_true_is_named(event, changes, named):
    """Invariant 12."""
    assert named in reason(event, **changes)


def test_one_place_that_cannot_be_true_refuses_the_ranking():
    ranking = a_ranking("BTC_USDT", others=["ETH_USDT"])
    places = (*ranking.ranks[:-1], msgspec.structs.replace(ranking.ranks[-1], rank=0))

    assert "rank" in reason(ranking, ranks=places)


def test_the_host_may_have_any_clock():
    assert reason(a_candle(), receive_time=datetime(1970, 1, 1, tzinfo=UTC)) is None


def test_without_a_clock_only_years_without_a_market_are_refused():
    assert reason(a_candle(), now=None, open_time=NOW + 365 * DAY) is None
    assert "future" in reason(a_candle(), now=None, open_time=datetime(2099, 12, 31, tzinfo=UTC))
