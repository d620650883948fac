"""Whole conversions on real files: what Qlib sees, at which minute."""

import time
from datetime import UTC, datetime

import numpy as np
import pytest

from services.converter.convert import convert
from services.converter.features.fields import BarRecipe
from services.converter.late import late_days
from shared.grid import DAY, day_start
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_funding_rate,
    a_ranking,
    minute,
    store,
)
from tests.support.conversions import a_ledger_row, rebuilt, some_minutes
from tests.support.provider import labels, tree, values

# --- values at their times


@pytest.mark.invariant(4)
def test_each_candle_is_at_its_own_minute_and_a_gap_is_nan(raw, qlib):
    """Invariant 4: the grid is whole, a gap shifts nothing and fills nothing."""
    numbers = [*range(10), *range(15, 30), *range(1430, 1450)]
    store(raw, some_minutes("BTC_USDT", numbers))

    convert(raw, qlib, until=None)

    assert labels(qlib, "1min") == [minute(number) for number in range(1450)]
    assert values(qlib, "BTC_USDT", "open") == {minute(number): 100.0 + number % 97 for number in numbers}


@pytest.mark.invariant(4)
def test_an_outage_of_the_whole_market_leaves_nan_and_the_grid_whole(raw, qlib):
    """Invariant 4: the calendar is never the union of the data."""
    store(raw, some_minutes("BTC_USDT", [0, 1, 4 * 1440]) + some_minutes("ETH_USDT", [1, 4 * 1440 + 1]))

    convert(raw, qlib, until=None)

    assert len(labels(qlib, "1min")) == 4 * 1440 + 2
    assert labels(qlib, "day") == [MIDNIGHT + day * DAY for day in range(4)]
    assert list(values(qlib, "ETH_USDT", "close")) == [minute(1), minute(4 * 1440 + 1)]


@pytest.mark.invariant(4)
def test_a_symbol_listed_in_the_middle_of_a_day_begins_at_its_first_minute(raw, qlib):
    """Invariant 4."""
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("NEW_USDT", range(723, 1440)))

    convert(raw, qlib, until=None)

    assert min(values(qlib, "NEW_USDT", "close")) == minute(723)
    assert min(values(qlib, "NEW_USDT", "close", "60min")) == minute(13 * 60)
    assert not values(qlib, "NEW_USDT", "close", "day")
    assert values(qlib, "NEW_USDT", "coverage", "day") == {MIDNIGHT: np.float32(717 / 1440)}
    assert "NEW_USDT\t2025-04-05 00:00:00\t2025-04-05 23:59:59\n" in (qlib / "instruments" / "all.txt").read_text()


@pytest.mark.invariant(5)
def test_a_day_that_is_not_over_has_no_bar_yet(raw, qlib):
    """Invariant 5: a bar of which minutes are still to come is not shown."""
    store(raw, some_minutes("BTC_USDT", range(1440 + 700)))

    convert(raw, qlib, until=None)

    assert labels(qlib, "day") == [MIDNIGHT]
    assert labels(qlib, "1min")[-1] == minute(1440 + 699)


@pytest.mark.invariant(5)
def test_a_conversion_up_to_an_instant_knows_nothing_of_later(raw, qlib, tmp_path):
    """Invariant 5: with the data after T or without it, what is visible until T is the same."""
    rates = [a_funding_rate(funding_time=minute(hour * 60), rate=hour / 1000 + 1e-5) for hour in (0, 8, 16, 24, 32)]
    store(raw, [*some_minutes("BTC_USDT", range(2880)), *rates])
    early = [rate for rate in rates if rate.funding_time < minute(2000)]
    store(tmp_path / "cut", [*some_minutes("BTC_USDT", range(2000)), *early])

    convert(raw, qlib, until=minute(2000))

    assert tree(qlib) == rebuilt(tmp_path / "cut", tmp_path / "fresh")


def test_the_funding_rate_is_the_last_settled_before_the_close(raw, qlib):
    rates = [a_funding_rate(funding_time=minute(480), rate=0.25), a_funding_rate(funding_time=minute(960), rate=0.5)]
    store(raw, [*some_minutes("BTC_USDT", range(1440)), *rates])

    convert(raw, qlib, until=None)

    seen = values(qlib, "BTC_USDT", "funding_rate")
    assert set(seen) == {minute(number) for number in range(480, 1440)}
    assert {seen[minute(number)] for number in range(480, 960)} == {0.25}
    assert seen[minute(960)] == 0.5
    assert values(qlib, "BTC_USDT", "funding_rate", "day") == {MIDNIGHT: 0.5}


# --- bars that lack minutes


HOUR = [number for number in range(60) if number not in (7, 31)]


def hourly(qlib, field="close"):
    return values(qlib, "BTC_USDT", field, "60min")


@pytest.mark.invariant(7)
def test_a_bar_that_lacks_minutes_is_nan_and_says_how_many(raw, qlib):
    """Invariant 7: nobody knows whether the exchange had them."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), a_ledger_row("BTC_USDT", wanted="0-1439", absent="7-7")])

    convert(raw, qlib, until=minute(60))

    assert not hourly(qlib)
    assert hourly(qlib, "coverage") == {MIDNIGHT: np.float32(58 / 60)}
    assert len(values(qlib, "BTC_USDT", "close")) == 58


@pytest.mark.invariant(7)
@pytest.mark.parametrize("sets", [{"absent": "7-7,31-31"}, {"absent": "7-7", "halted": "31-40"}])
def test_a_bar_is_made_of_the_minutes_that_the_exchange_has(raw, qlib, sets):
    """Invariant 7: it has said that there were no others, or stood still."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), a_ledger_row("BTC_USDT", wanted="0-1439", **sets)])

    convert(raw, qlib, until=minute(60))

    assert hourly(qlib, "volume") == {MIDNIGHT: 58 * 2.0}
    assert hourly(qlib, "coverage") == {MIDNIGHT: np.float32(58 / 60)}


@pytest.mark.invariant(7)
def test_a_minute_that_is_found_to_be_absent_later_makes_its_bars_whole(raw, qlib, tmp_path):
    """Invariant 7: the candle file has not changed, what is known of it has."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), *some_minutes("BTC_USDT", range(1440, 2880))])
    convert(raw, qlib, until=None)
    assert MIDNIGHT not in hourly(qlib)

    store(raw, [a_ledger_row("BTC_USDT", absent="7-7,31-31,60-1439")])

    assert late_days(raw, qlib)[:3] == (minute(2880), 1, 0)
    assert convert(raw, qlib, until=None).days == 1
    assert hourly(qlib)[MIDNIGHT] == values(qlib, "BTC_USDT", "close")[minute(59)]
    assert late_days(raw, qlib)[:3] == (minute(2880), 0, 0)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_setting_makes_bars_of_the_minutes_that_there_are(raw, qlib):
    store(raw, some_minutes("BTC_USDT", HOUR))

    convert(raw, qlib, until=minute(60), recipe=BarRecipe(partial_bars="keep"))

    assert hourly(qlib, "volume") == {MIDNIGHT: 58 * 2.0}


def test_another_recipe_computes_everything_again(raw, qlib, tmp_path):
    """Fields that were not written yet, and bars that were made by another rule."""
    store(raw, [*some_minutes("BTC_USDT", range(0, 3000, 3)), *some_minutes("ETH_USDT", range(2000))])
    convert(raw, qlib, until=None)
    stocks = BarRecipe(partial_bars="keep", stock_fields=True)

    convert(raw, qlib, until=None, recipe=stocks)

    convert(raw, tmp_path / "fresh", until=None, recipe=stocks)
    assert tree(qlib) == tree(tmp_path / "fresh")
    assert set(values(qlib, "BTC_USDT", "factor").values()) == {1.0}


def test_change_looks_back_over_midnight_also_where_the_day_before_comes_late(raw, qlib, tmp_path):
    stocks = BarRecipe(stock_fields=True)
    store(raw, some_minutes("BTC_USDT", range(10, 2 * 1440)))
    convert(raw, qlib, until=None, recipe=stocks)
    closes = values(qlib, "BTC_USDT", "close")
    changes = values(qlib, "BTC_USDT", "change")
    assert min(changes) == minute(11)
    assert changes[minute(1440)] == pytest.approx(closes[minute(1440)] / closes[minute(1439)] - 1, abs=1e-6)

    store(raw, [a_candle("BTC_USDT", minute(1439), 7.0, receive_time=minute(9999))])
    convert(raw, qlib, until=None, recipe=stocks)

    assert values(qlib, "BTC_USDT", "change")[minute(1440)] == pytest.approx(closes[minute(1440)] / 7.875 - 1, rel=1e-5)
    convert(raw, tmp_path / "fresh", until=None, recipe=stocks)
    assert tree(qlib) == tree(tmp_path / "fresh")


@pytest.mark.invariant(6)
def test_membership_reaches_qlib_as_spans_and_a_delisted_symbol_stays(raw, qlib):
    """Invariant 6."""
    first = a_ranking("BTC_USDT", "GONE_USDT", others=["ETH_USDT"])
    second = a_ranking("BTC_USDT", "ETH_USDT", ranked_time=minute(480))
    store(raw, [*first.ranks, *second.ranks])
    store(raw, some_minutes("BTC_USDT", range(600)) + some_minutes("GONE_USDT", range(480)))

    convert(raw, qlib, until=None)

    assert (qlib / "instruments" / "top50.txt").read_text().splitlines() == [
        "BTC_USDT\t2025-04-05 00:00:00\t2099-12-31 23:59:59",
        "ETH_USDT\t2025-04-05 08:00:00\t2099-12-31 23:59:59",
        "GONE_USDT\t2025-04-05 00:00:00\t2025-04-05 07:59:59",
    ]
    assert "GONE_USDT" in (qlib / "instruments" / "all.txt").read_text()


def test_days_are_utc_whatever_the_hosts_zone(raw, qlib, monkeypatch):
    store(raw, some_minutes("BTC_USDT", [0, 1439, 1440]))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        convert(raw, qlib, until=None)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()

    assert list(values(qlib, "BTC_USDT", "close")) == [minute(0), minute(1439), minute(1440)]
    assert labels(qlib, "1min")[0] == day_start(DAY_0) == datetime(2025, 4, 5, tzinfo=UTC)
