"""The judge's own arithmetic, held against figures that were worked out by hand from the definition of the fields."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from proofs.judges.recompute import Options, Raw, RawError, facts_of, recompute
from shared.datasets.candle import Candle
from shared.datasets.ledger import LedgerRow
from shared.grid import to_ms
from shared.storage.layout import partition_of
from shared.storage.parquet import table_of, write_table
from tests.support.builders import (
    MIDNIGHT,
    a_candle,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
    store,
)

SYMBOL = "BTC_USDT"
HOURS = timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)


def candles(minutes: range | list[int], **changes: Any) -> list[Any]:
    """Return candles with a price of 100 + the number of their minute: closes are 1.125 times that."""
    return [a_candle(open_time=minute(number), price=100.0 + number, **changes) for number in minutes]


def a_ledger(**sets: str) -> LedgerRow:
    return LedgerRow(exchange="okx", symbol=SYMBOL, day=MIDNIGHT, **sets)


class Bars:
    """The recomputed bars of one frequency, asked by the minute in which they open."""

    def __init__(self, root, rows, frequency, until, options):
        store(root, rows)
        raw = Raw(root)
        self.frame = recompute(facts_of(raw, SYMBOL, to_ms(minute(until)), options), frequency)

    def __call__(self, field: str, opened: int) -> float:
        return float(self.frame[field].loc[to_ms(minute(opened))])

    @property
    def opens(self) -> list[int]:
        return [] if self.frame is None else [int(open_ms - to_ms(MIDNIGHT)) // 60_000 for open_ms in self.frame.index]


@pytest.fixture
def bars(tmp_path):
    def make(*rows, frequency="5min", until=10_000, **options):
        return Bars(tmp_path, rows, frequency, until, Options(**options))

    return make


# --- Prices


def test_a_whole_bar_is_first_greatest_least_last_and_sums(bars):
    found = bars(*candles(range(5)))

    assert found("open", 0) == 100
    assert found("high", 0) == 104 * 1.25
    assert found("low", 0) == 100 * 0.75
    assert found("close", 0) == 104 * 1.125
    assert found("volume", 0) == 10
    assert found("amount", 0) == 2 * (100 + 101 + 102 + 103 + 104)
    assert found("contracts", 0) == 1000
    assert found("vwap", 0) == 102
    assert found("coverage", 0) == 1


def test_a_bar_without_a_trade_is_worth_its_close(bars):
    assert bars(*candles(range(5), volume=0.0, amount=0.0))("vwap", 0) == 104 * 1.125


def test_a_bar_that_lacks_a_minute_has_no_price_and_says_how_much_it_lacks(bars):
    found = bars(*candles([0, 1, 3, 4]))

    assert np.isnan(found("close", 0))
    assert np.isnan(found("volume", 0))
    assert found("coverage", 0) == 0.8


def test_a_bar_that_lacks_a_minute_is_kept_where_that_is_asked_for(bars):
    assert bars(*candles([0, 1, 3, 4]), partial_bars=True)("volume", 0) == 8


@pytest.mark.parametrize("verdict", ["absent", "halted"])
def test_a_minute_that_never_was_makes_no_bar_incomplete(bars, verdict):
    found = bars(*candles([0, 1, 3, 4]), a_ledger(**{verdict: "2-2"}))

    assert found("volume", 0) == 8
    assert found("coverage", 0) == 0.8


def test_a_minute_that_is_confirmed_absent_and_there_counts_once(bars):
    assert np.isnan(bars(*candles([0, 1, 3]), a_ledger(absent="2-3"))("close", 0))


def test_a_bar_whose_minutes_never_were_has_nothing(bars):
    found = bars(*candles([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]), a_ledger(absent="5-9"))

    assert found.opens == [0, 5, 10]
    assert np.isnan([found(field, 5) for field in ("close", "coverage", "funding_paid", "in_universe")]).all()


def test_a_bar_that_is_not_over_is_not_there(bars):
    assert bars(*candles(range(12)), until=10).opens == [0, 5]


def test_a_minute_is_there_or_not(bars):
    found = bars(*candles([3, 5]), a_ledger(absent="4-4"), frequency="1min")

    assert found.opens == [3, 4, 5]
    assert found("close", 3) == 103 * 1.125
    assert np.isnan(found("close", 4))


def test_a_day_is_a_utc_day(bars):
    found = bars(*candles(range(-1, 1440)), frequency="day")

    assert found.opens == [-1440, 0]
    assert np.isnan(found("open", -1440))
    assert (found("open", 0), found("volume", 0)) == (100, 2880)


def test_change_needs_the_bar_just_before(bars):
    found = bars(*candles([*range(10), *range(15, 25)]), stock_fields=True)

    assert found("change", 5) == pytest.approx(109 / 104 - 1)
    assert np.isnan([found("change", opened) for opened in (0, 10, 15)]).all()
    assert found("factor", 0) == 1
    assert np.isnan(found("factor", 10))


def test_a_minute_that_is_stored_twice_is_no_data_to_judge(tmp_path):
    path = partition_of(a_candle()).path(tmp_path)
    write_table(path, table_of(Candle, [a_candle(), a_candle()]))

    with pytest.raises(RawError, match="twice"):
        Raw(tmp_path).candles(SYMBOL)


# --- Funding


def settled(number: float, rate: float = 1e-4, **changes: Any) -> Any:
    return a_funding_rate(funding_time=MIDNIGHT + timedelta(minutes=number), rate=rate, **changes)


def test_a_rate_that_settles_at_the_close_is_not_known_in_the_bar_and_is_paid_in_the_next(bars):
    found = bars(*candles(range(15)), settled(5, 0.01), settled(-480, 0.02))

    assert [found("funding_rate", opened) for opened in (0, 5, 10)] == [0.02, 0.01, 0.01]
    assert [found("funding_paid", opened) for opened in (0, 5, 10)] == [0, 0.01, 0]


def test_a_rate_that_settles_just_before_the_close_is_known(bars):
    found = bars(*candles(range(5)), a_funding_rate(funding_time=minute(5) - MILLISECOND, rate=0.01))

    assert found("funding_rate", 0) == found("funding_paid", 0) == 0.01


def test_several_rates_in_a_bar_are_added_up_and_the_last_one_stays(bars):
    found = bars(*candles(range(1440)), settled(0, 1.0), settled(480, 2.0), settled(1440, 4.0), frequency="day")

    assert (found("funding_paid", 0), found("funding_rate", 0)) == (3, 2)


def test_a_rate_holds_for_a_week(bars):
    week = 7 * 1440
    found = bars(*candles(range(5, 15)), settled(10 - week, 0.01))

    assert found("funding_rate", 5) == 0.01
    assert np.isnan(found("funding_rate", 10))


def test_a_payment_is_given_without_a_candle_once_its_day_has_had_one(bars):
    found = bars(*candles([30]), *(settled(number, 0.01 * number) for number in (0, 25, 60, 1500)))

    assert (found.opens[0], found.opens[-1]) == (30, 60)
    assert found("funding_paid", 60) == pytest.approx(0.6)
    assert np.isnan([found("funding_rate", 60), found("funding_paid", 55)]).all()


# --- What is predicted


def predicted(number: float, ahead: float, rate: float = 1e-4, **changes: Any) -> Any:
    return a_prediction(
        known_time=MIDNIGHT + timedelta(minutes=number),
        funding_time=MIDNIGHT + timedelta(minutes=ahead),
        rate=rate,
        **changes,
    )


def test_a_prediction_counts_once_it_was_known_before_the_close(bars):
    found = bars(*candles(range(15)), predicted(3, 480, 0.01, interval_hours=4), predicted(10, 480, 0.02))

    assert [found("funding_predicted", opened) for opened in (0, 5, 10)] == [0.01, 0.01, 0.02]
    assert [found("minutes_to_funding", opened) for opened in (0, 5)] == [475, 470]
    assert [found("funding_interval", opened) for opened in (0, 10)] == [4, 8]


def test_a_prediction_ends_with_its_settlement_and_an_older_one_is_not_fallen_back_on(bars):
    found = bars(*candles(range(15)), predicted(1, 480, 0.01), predicted(2, 10, 0.02))

    assert [found("funding_predicted", opened) for opened in (0, 5)] == [0.02, 0.02]
    assert np.isnan(found("funding_predicted", 10))
    assert found("minutes_to_funding", 5) == 0


def test_a_prediction_holds_for_eight_hours(bars):
    found = bars(*candles(range(475, 485)), predicted(0, 960, 0.01))

    assert found("funding_predicted", 475) == 0.01
    assert np.isnan(found("funding_predicted", 480))


def test_without_a_prediction_the_settled_interval_says_how_long_it_is(bars):
    found = bars(*candles(range(55, 65)), settled(0, interval_hours=1))

    assert [found("funding_interval", opened) for opened in (55, 60)] == [1, 1]
    assert found("minutes_to_funding", 55) == 0
    assert np.isnan(found("minutes_to_funding", 60))
    assert np.isnan(found("funding_predicted", 55))


def test_an_interval_that_nobody_knows_is_none(bars):
    found = bars(*candles(range(10)), settled(-60, interval_hours=None), predicted(6, 480, interval_hours=None))

    assert np.isnan([found("funding_interval", opened) for opened in (0, 5)]).all()
    assert np.isnan(found("minutes_to_funding", 0))
    assert found("minutes_to_funding", 5) == 470


# --- Rankings


def test_a_ranking_counts_from_the_bar_that_opens_with_it_or_later(bars):
    rankings = [
        a_ranking("ETH_USDT", SYMBOL, ranked_time=minute(5)),
        a_ranking("ETH_USDT", ranked_time=minute(10) + MILLISECOND, others=[SYMBOL]),
        a_ranking("ETH_USDT", ranked_time=minute(20)),
    ]
    found = bars(*candles(range(25)), *(rank for ranking in rankings for rank in ranking.ranks))

    assert np.isnan([found("in_universe", 0), found("funding_rank", 0)]).all()
    assert [found("in_universe", opened) for opened in (5, 10, 15, 20)] == [1, 1, 0, 0]
    assert [found("funding_rank", opened) for opened in (5, 10, 15)] == [2, 2, 2]
    assert np.isnan(found("funding_rank", 20))
