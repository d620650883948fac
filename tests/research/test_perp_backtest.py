"""Backtests of a few positions, against calculations done by hand in the test."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import pickle

import numpy as np
import pandas as pd
import perps
import qlib
from perps.executor import PerpExecutor, PerpNestedExecutor
from qlib.backtest import backtest as qlib_backtest
from qlib.backtest.decision import Order, TradeDecisionWO
from qlib.backtest.executor import NestedExecutor, SimulatorExecutor
from qlib.constant import REG_CN
from qlib.contrib.strategy import TopkDropoutStrategy
from qlib.strategy.base import BaseStrategy

from tests.research.provider import Symbol, bar, f32, write_provider
from tests.research.trading import Scripted, run

NAN = float("nan")


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.fixture
def dataset(tmp_path):
    """Write symbols at 60min (or as given) and set Qlib up for them."""

    def make(freq="60min", bars=None, future=3, **symbols):
        count = bars or max(symbol.first + len(symbol.close) for symbol in symbols.values())
        write_provider(tmp_path / "qlib_data", freq, symbols, count, future)
        return perps.init(tmp_path / "qlib_data", experiments=tmp_path / "experiments")

    return make


def test_a_long_pays_positive_funding_and_a_short_receives_it(dataset):
    fields = {"open": [100, 101, 103, 99], "funding_paid": [0.01, 0.001, -0.002, 0.01]}
    dataset(A=Symbol([101, 102, 104, 98], 0, fields))
    result = run({0: [("A", 2.0)]}, (0, 3), taker_fee=0.0005)
    rates = f32(fields["funding_paid"])
    # Bought 2 at 100: nothing was held when 0.01 was settled at the bar's open.
    # From then on the close before is the price of the settlement.
    funding = [0.0, -2 * 101 * rates[1], -2 * 102 * rates[2], -2 * 104 * rates[3]]
    price = [2 * (101 - 100), 2 * (102 - 101), 2 * (104 - 102), 2 * (98 - 104)]
    fee = [2 * 100 * 0.0005, 0, 0, 0]
    assert result.ledger["funding"].tolist() == exactly(funding)
    assert result.ledger["price"].tolist() == exactly(price)
    assert result.ledger["fee"].tolist() == exactly(fee)
    assert result.ledger["equity"].tolist() == exactly(list(1000 + np.cumsum(price) + np.cumsum(funding) - 0.1))
    assert result.ledger["turnover"].tolist() == exactly([200, 0, 0, 0])

    short = run({0: [("A", -2.0)]}, (0, 3), taker_fee=0.0005).ledger
    assert short["funding"].tolist() == exactly([-amount for amount in funding])
    assert short["price"].tolist() == exactly([-amount for amount in price])
    assert short["fee"].tolist() == exactly(fee)
    assert short["equity"].iloc[-1] == exactly(1000 - sum(price) - sum(funding) - 0.1)


def test_a_partial_close_a_flip_and_a_full_close_are_booked_at_their_prices(dataset):
    fields = {"open": [50, 52, 48, 47, 51, 53], "funding_paid": [0, 0, 0.0003, 0, 0.0005, 0]}
    dataset(A=Symbol([51, 49, 48, 50, 52, 53], 0, fields))
    rates = f32(fields["funding_paid"])
    trades = {
        0: [("A", 10.0)],  # long 10 at 50
        1: [("A", -4.0)],  # long 6: sold 4 at 52
        2: [("A", -9.0)],  # short 3: sold 9 at 48, 6 of them to close
        3: [("A", 1.0)],  # short 2: bought 1 at 47
        5: [("A", 2.0)],  # flat: bought 2 at 53
    }
    result = run(trades, (0, 5), taker_fee=0.001)
    cash = 1000 - 10 * 50 + 4 * 52 + 9 * 48 - 1 * 47 - 2 * 53
    fees = [0.001 * value for value in (500, 208, 432, 47, 0, 106)]
    funding = [0, 0, -6 * 49 * rates[2], 0, 2 * 50 * rates[4], 0]
    assert result.ledger["fee"].tolist() == exactly(fees)
    assert result.ledger["funding"].tolist() == exactly(funding)
    assert result.ledger["equity"].iloc[-1] == exactly(cash - sum(fees) + sum(funding))
    # Bar by bar: what was held at the open from the close before to the trade, what is held then to the close.
    price = [
        10 * (51 - 50),
        10 * (52 - 51) + 6 * (49 - 52),
        6 * (48 - 49) - 3 * (48 - 48),
        -3 * (47 - 48) - 2 * (50 - 47),
        -2 * (52 - 50),
        -2 * (53 - 52),
    ]
    assert result.ledger["price"].tolist() == exactly(price)
    assert result.ledger["net"].tolist() == exactly([10 * 51, 6 * 49, -3 * 48, -2 * 50, -2 * 52, 0])
    assert result.ledger["gross"].tolist() == exactly([10 * 51, 6 * 49, 3 * 48, 2 * 50, 2 * 52, 0])
    assert result.positions[pd.Timestamp(bar(5))].held() == []


def test_slippage_makes_every_trade_worse_and_is_kept_apart_from_the_price(dataset):
    dataset(A=Symbol([101, 100, 100], 0, {"open": [100, 102, 100]}))
    result = run({0: [("A", 3.0)], 1: [("A", -5.0)]}, (0, 2), taker_fee=0.002, slippage=0.01)
    cash = 1000 - 3 * 101 * 1.002 + 5 * 102 * 0.99 * 0.998
    assert result.ledger["slippage"].tolist() == exactly([3 * 1.0, 5 * 1.02, 0])
    assert result.ledger["fee"].tolist() == exactly([3 * 101 * 0.002, 5 * 102 * 0.99 * 0.002, 0])
    assert result.ledger["price"].tolist() == exactly([3 * (101 - 100), 3 * (102 - 101) - 2 * (100 - 102), 0])
    assert result.ledger["equity"].iloc[-1] == exactly(cash - 2 * 100)


@pytest.mark.parametrize(("kind", "rate"), [("taker", 0.0005), ("maker", -0.0001)])
def test_orders_pay_the_fee_that_is_set_and_a_rebate_is_received(dataset, kind, rate):
    dataset(A=Symbol([100, 100]))
    result = run({0: [("A", 2.0)]}, (0, 1), taker_fee=0.0005, maker_fee=-0.0001, fee=kind)
    assert result.ledger["fee"].iloc[0] == exactly(200 * rate)
    assert result.ledger["equity"].iloc[-1] == exactly(1000 - 200 * rate)


def test_orders_may_be_done_at_the_close_and_then_whoever_held_before_pays_the_bars_funding(dataset):
    dataset(A=Symbol([110, 120, 130], 0, {"open": [100, 110, 120], "funding_paid": [0.01, 0.02, 0.04]}))
    rates = f32([0.01, 0.02, 0.04])
    ledger = run({0: [("A", 1.0)], 1: [("A", -2.0)]}, (0, 2), deal_price="close").ledger
    assert ledger["price"].tolist() == exactly([0, 120 - 110, -(130 - 120)])
    assert ledger["funding"].tolist() == exactly([0, -110 * rates[1], 120 * rates[2]])


# --- bars without a price, symbols without bars


def test_funding_is_paid_in_a_bar_without_a_price_at_the_last_price_known_and_nothing_trades(dataset):
    close = [100, 105, NAN, NAN, 90]
    dataset(A=Symbol(close, 0, {"open": [100, 100, NAN, NAN, 95], "funding_paid": [0, 0, 0.001, 0.002, 0.003]}))
    rates = f32([0, 0, 0.001, 0.002, 0.003])
    result = run({0: [("A", 1.0)], 2: [("A", -1.0)], 3: [("A", 1.0)]}, (0, 4), taker_fee=0.001)
    assert result.ledger["funding"].tolist() == exactly([0, 0, -105 * rates[2], -105 * rates[3], -105 * rates[4]])
    assert result.ledger["price"].tolist() == exactly([0, 5, 0, 0, 90 - 105])
    assert result.ledger["fee"].tolist() == exactly([0.1, 0, 0, 0, 0])


def test_funding_that_the_dataset_does_not_know_is_counted(dataset):
    dataset(A=Symbol([100, 100, 100], 0, {"funding_paid": [0, NAN, 0.001]}))
    ledger = run({0: [("A", 1.0)]}, (0, 2)).ledger
    assert ledger["funding_unknown"].tolist() == [0, 1, 0]
    assert ledger["funding"].tolist() == exactly([0, 0, -100 * f32(0.001)])


def collected(*rates):
    """Return settled rates as they were collected: (number of the hour, symbol, rate)."""
    rows = [(pd.Timestamp(bar(hour)), symbol, rate, 8) for hour, symbol, rate in rates]
    return pd.DataFrame(rows, columns=["funding_time", "symbol", "funding_rate", "interval_hours"])


def test_settlements_that_were_collected_are_paid_where_the_dataset_knows_none(dataset):
    close = [100, 105, NAN, NAN, 90]
    dataset(A=Symbol(close, 0, {"funding_paid": [0, 0.001, NAN, NAN, 0.003]}), B=Symbol([50] * 5))
    # The one of hour 1 the dataset has itself; the last two are of symbols and times that it does not have.
    rates = collected((1, "A", 0.5), (2, "A", 0.002), (3, "A", -0.004), (3, "X", 0.1), (90, "A", 0.1))
    rates.loc[1, "funding_time"] += pd.Timedelta("3ms")

    unknown, known = (run({0: [("A", 2.0)]}, (0, 4), settled=settled).ledger for settled in (None, rates))

    paid = f32([0.001, 0.003])
    assert unknown["funding"].tolist() == exactly([0, -2 * 100 * paid[0], 0, 0, -2 * 105 * paid[1]])
    assert known["funding"].tolist() == exactly(
        [0, -2 * 100 * paid[0], -2 * 105 * 0.002, 2 * 105 * 0.004, -2 * 105 * paid[1]]
    )
    assert unknown["funding_unknown"].sum() == 2
    assert known["funding_unknown"].sum() == 0


def test_a_symbol_whose_settlements_go_on_is_followed_through_days_without_a_candle(dataset):
    close = [100.0, *[NAN] * 99, 110.0]
    dataset(A=Symbol(close, 0, {"funding_paid": [0.0, *[NAN] * 99, 0.0]}), B=Symbol([50] * 101))
    rates = collected(*[(hour, "A", 0.001) for hour in range(8, 101, 8)])

    forgotten, followed = (run({0: [("A", 1.0)]}, (0, 100), settled=settled).ledger for settled in (None, rates))

    assert forgotten[["unfollowed", "funding"]].sum().tolist() == exactly([1, 0])
    assert followed[["unfollowed", "funding"]].sum().tolist() == exactly([0, -12 * 100 * 0.001])


def test_a_day_without_candles_pays_what_its_hours_or_its_collected_settlements_say(dataset):
    hours = np.arange(72)
    close = np.where(hours // 24 == 1, NAN, 100.0 + hours)
    paid = np.where(hours % 8 == 0, 0.001, 0.0)
    day = {"open": [100, NAN, 148], "funding_paid": [0.003, NAN, 0.003]}
    dataset("60min", A=Symbol(close, 0, {"funding_paid": np.where(hours == 40, NAN, paid)}))
    dataset("day", A=Symbol([123, NAN, 171], 0, day))

    hourly, both = (
        run({0: [("A", 1.0)]}, (0, 1), freq="day", settled=settled).ledger["funding"].iloc[1]
        for settled in (None, collected((40, "A", 0.004)))
    )

    assert hourly == exactly(-123 * 2 * f32(0.001))
    assert both == exactly(-123 * (2 * f32(0.001) + 0.004))


def test_a_dataset_without_funding_is_refused_unless_funding_is_left_out(dataset):
    folder = dataset(A=Symbol([100, 100], 0, {"funding_paid": [0, 0]}))
    (folder / "features" / "a" / "funding_paid.60min.bin").unlink()
    with pytest.raises(ValueError, match="no \\$funding_paid at 60min"):
        run({}, (0, 1))
    assert run({0: [("A", 1.0)]}, (0, 1), funding=False).ledger["funding"].sum() == 0


def test_a_symbol_that_comes_back_after_the_backtest_is_not_delisted(dataset):
    dataset(A=Symbol([10, 12, NAN, NAN, NAN, 13]), B=Symbol([1] * 6))
    result = run({0: [("A", 1.0)]}, (0, 4))
    assert result.ledger["delistings"].sum() == 0
    assert result.positions[pd.Timestamp(bar(4))].held() == ["A"]


# --- margin


def test_a_long_is_liquidated_at_the_price_where_the_margin_is_breached(dataset):
    # 100 of equity, 1000 long: equity = 1000 p - 900 with p = price / 100; maintenance 2 % of 1000 p.
    dataset(A=Symbol([100, 97, 110], 0, {"open": [100, 99, 97], "high": [100, 101, 110], "low": [100, 80, 97]}))
    result = run({0: [("A", 10.0)]}, (0, 2), account=100.0, maintenance_margin=0.02, liquidation_fee=0.005)
    breach = 900 / (10 * 0.98)  # 10 p - 900 = 0.02 x 10 p
    assert result.ledger["liquidations"].tolist() == [0, 1, 0]
    assert result.ledger["fee"].tolist() == exactly([0, 10 * breach * 0.005, 0])
    assert result.ledger["price"].tolist() == exactly([0, 10 * (breach - 100), 0])
    assert result.ledger["equity"].tolist()[1:] == exactly([100 + 10 * (breach - 100) - 10 * breach * 0.005] * 2)
    assert result.ledger["equity"].iloc[-1] > 0


def test_a_short_is_liquidated_by_the_high_and_slippage_comes_on_top(dataset):
    dataset(A=Symbol([100, 100], 0, {"open": [100, 100], "high": [100, 120], "low": [100, 100]}))
    settings = {"maintenance_margin": 0.02, "liquidation_fee": 0.001, "slippage": 0.004}
    ledger = run({0: [("A", -10.0)]}, (0, 1), account=104.0, **settings).ledger
    cash = 104 + 10 * 100 * 0.996
    breach = cash / (10 * 1.02)  # cash - 10 p = 0.02 x 10 p
    assert ledger["liquidations"].tolist() == [0, 1]
    assert ledger["equity"].iloc[-1] == exactly(cash - 10 * breach * 1.004 * 1.001)
    assert ledger["slippage"].tolist() == exactly([10 * 0.4, 10 * breach * 0.004])


def test_all_positions_of_a_liquidated_account_are_closed_and_its_orders_cancelled(dataset):
    dataset(
        LONG=Symbol([100, 100, 100], 0, {"open": [100, 100, 90], "low": [100, 100, 90]}),
        SHORT=Symbol([50, 50, 50], 0, {"open": [50, 50, 52], "high": [50, 50, 60]}),
    )
    trades = {0: [("LONG", 5.0), ("SHORT", -8.0)], 2: [("LONG", 1.0), ("SHORT", -1.0)]}
    settings = {"deal_price": "close", "maintenance_margin": 0.01, "taker_fee": 0.001}
    ledger = run(trades, (0, 2), account=100.0, **settings).ledger
    # From the opens (90, 52) to the worst (90, 60): 5 x 90 - 8 p + cash = 0.01 x (5 x 90 + 8 p)
    cash = 100 - 500 + 400 - 0.9
    breach = (cash + 450 - 4.5) / (8 * 1.01)
    assert 52 < breach < 60
    assert ledger["liquidations"].tolist() == [0, 0, 2]
    assert ledger["turnover"].iloc[-1] == exactly(450 + 8 * breach)
    assert ledger["equity"].iloc[-1] == exactly(cash + 450 - 8 * breach - 0.001 * (450 + 8 * breach))


def test_a_gap_beyond_the_margin_is_closed_at_the_open_and_only_a_gap_makes_an_account_negative(dataset):
    dataset(A=Symbol([100, 95, 95], 0, {"open": [100, 85, 95], "high": [100, 96, 95], "low": [100, 80, 95]}))
    result = run({0: [("A", 10.0)], 2: [("A", 1.0)]}, (0, 2), account=100.0, maintenance_margin=0.02, taker_fee=0.001)
    # 100 of capital, 1 of fee, and 150 lost at the open, before anybody could close.
    expected = 100 - 1 - 150 - 10 * 85 * 0.001
    assert result.ledger["equity"].tolist() == exactly([99, expected, expected])
    assert result.ledger["turnover"].tolist() == exactly([1000, 850, 0])  # who owes opens nothing


def test_judged_by_closes_an_account_survives_the_low(dataset):
    dataset(A=Symbol([100, 99, 99], 0, {"open": [100, 100, 99], "low": [100, 80, 99]}))
    settings = {"account": 100.0, "maintenance_margin": 0.02}
    assert run({0: [("A", 10.0)]}, (0, 2), **settings).ledger["liquidations"].sum() == 1
    closes = run({0: [("A", 10.0)]}, (0, 2), liquidation_at="close", **settings)
    assert closes.ledger["liquidations"].sum() == 0
    assert closes.ledger["equity"].iloc[-1] == exactly(90)


def test_funding_alone_can_liquidate(dataset):
    dataset(A=Symbol([100, 100, 100], 0, {"funding_paid": [0, 0.09, 0]}))
    ledger = run({0: [("A", 10.0)]}, (0, 2), account=100.0, maintenance_margin=0.02).ledger
    assert ledger["liquidations"].tolist() == [0, 1, 0]
    assert ledger["equity"].iloc[-1] == exactly(100 - 1000 * f32(0.09))


def test_orders_beyond_the_leverage_are_cut_by_one_share_and_the_cap_holds_after_costs(dataset):
    dataset(A=Symbol([100, 100]), B=Symbol([10, 10]))
    settings = {"leverage": 2.0, "taker_fee": 0.001, "slippage": 0.002}
    result = run({0: [("A", 15.0), ("B", -150.0)]}, (0, 1), **settings)
    # Both want 1500. With share s, costs are 1500 s (0.002 + 1.002 x 0.001) and 1500 s (0.002 + 0.998 x 0.001).
    share = 2000 / (3000 + 2 * 1500 * (0.004 + 2 * 0.001))
    held = result.positions[pd.Timestamp(bar(0))].get_stock_amount_dict()
    assert held == {"A": exactly(15 * share), "B": exactly(-150 * share)}
    assert result.ledger["gross"].iloc[0] == exactly(2 * result.ledger["equity"].iloc[0])
    assert result.ledger["net"].iloc[0] == pytest.approx(0, abs=1e-9)


def test_reductions_are_done_beyond_the_leverage_and_a_flip_opens_only_what_the_cap_leaves(dataset):
    dataset(A=Symbol([100, 100, 100, 100]), B=Symbol([100, 100, 100, 100], 0, {"open": [100, 100, 80, 80]}))
    trades = {0: [("A", 10.0), ("B", 10.0)], 2: [("A", 5.0), ("B", -3.0)], 3: [("A", -30.0)]}
    result = run(trades, (0, 3), leverage=2.0)
    held = {number: result.positions[pd.Timestamp(bar(number))].get_stock_amount_dict() for number in range(4)}
    assert held[1] == {"A": 10, "B": 10}
    # At the open of bar 2, B is at 80: equity 800, gross 1800, the cap 1600. 3 B sold: gross 1560, room for 0.4 A.
    assert held[2] == {"A": exactly(10.4), "B": 7}
    # At the open of bar 3: equity = 10.4 x 100 + 7 x 80 - 1000 + 200, gross after closing A = 560.
    room = 2 * (1040 + 560 - 40 - 1000 + 240) - 560
    assert held[3] == {"A": exactly(-room / 100), "B": 7}


def test_without_the_executor_orders_are_capped_one_by_one(dataset):
    dataset(A=Symbol([100, 100]), B=Symbol([10, 10]))
    exchange = perps.PerpExchange("60min", bar(0), bar(1), leverage=2.0, taker_fee=0.0)
    exchange.cover(pd.Timestamp(bar(0)), pd.Timestamp(bar(1)), "60min")
    position = perps.PerpPosition(cash=1000.0)
    for symbol, amount in (("A", 15.0), ("B", -150.0)):
        _deal(exchange, position, symbol, amount)
    assert position.get_stock_amount_dict() == {"A": 15.0, "B": exactly(-50.0)}


def _deal(exchange, position, symbol, amount):
    from qlib.backtest.decision import Order

    direction = Order.BUY if amount > 0 else Order.SELL
    end = pd.Timestamp(bar(1)) - pd.Timedelta(seconds=1)
    exchange.deal_order(Order(symbol, abs(amount), direction, pd.Timestamp(bar(0)), end), position=position)


# --- bars of several settlements


@pytest.fixture
def days(dataset):
    """Two days of hours, with settlements at 0, 8 and 16 o'clock, and the same as days."""
    hours = np.arange(48)
    close, open_ = 100.0 + hours, 99.5 + hours
    paid = np.where(hours % 8 == 0, 0.001 * (1 + hours // 8), 0.0)
    dataset("60min", A=Symbol(close, 0, {"open": open_, "funding_paid": paid}))
    daily = {"open": open_[::24], "funding_paid": paid.reshape(2, 24).sum(axis=1)}
    daily |= {"low": open_[::24], "high": close[23::24]}
    dataset("day", A=Symbol(close[23::24], 0, daily))
    return f32(paid)


def test_a_day_pays_its_settlements_at_their_instants_by_who_holds_then(days):
    rate = days[[0, 8, 16, 24, 32, 40]]
    ledger = run({0: [("A", 1.0)], 1: [("A", -1.0)]}, (0, 1), freq="day").ledger
    # Bought at the open of day 0, after the settlement of that instant; the closes of 7 and 15 o'clock are 107 and 115.
    # Sold at the open of day 1, after the settlement of that instant, whose last close is 123.
    assert ledger["funding"].tolist() == exactly([-107 * rate[1] - 115 * rate[2], -123 * rate[3]])

    at_close = run({0: [("A", 1.0)], 1: [("A", -1.0)]}, (0, 1), freq="day", deal_price="close").ledger
    assert at_close["funding"].tolist() == exactly([0, -123 * rate[3] - 131 * rate[4] - 139 * rate[5]])


def test_symbols_may_have_bars_at_one_frequency_only(dataset):
    """One without hours has no settlements that anybody knows; one without days takes no part."""
    day, hours = {"funding_paid": [0.001, 0.001]}, {"funding_paid": np.where(np.arange(48) % 8 == 0, 0.001, 0)}
    dataset("60min", A=Symbol([100] * 48, 0, hours), HOURS=Symbol([100] * 48, 0, hours))
    folder = dataset("day", A=Symbol([100, 100], 0, day), DAYS=Symbol([100, 100], 0, day))
    names = ("A", "DAYS", "HOURS")
    (folder / "instruments" / "all.txt").write_text("".join(f"{name}\t2026-01-01\t2026-01-02\n" for name in names))
    ledger = run({0: [("A", 1.0), ("DAYS", 1.0), ("HOURS", 1.0)]}, (0, 1), freq="day").ledger
    assert ledger["turnover"].tolist() == exactly([200, 0])
    assert ledger["funding"].tolist() == exactly([-200 * f32(0.001), -300 * f32(0.001)])
    assert ledger["funding_unknown"].tolist() == [0, 1]


def test_without_finer_bars_a_day_pays_the_sum_of_its_rates_on_what_was_held_at_its_open(days):
    sums = f32([0.001 + 0.002 + 0.003, 0.004 + 0.005 + 0.006])
    ledger = run({0: [("A", 1.0)]}, (0, 1), freq="day", funding_freq="day").ledger
    assert ledger["funding"].tolist() == exactly([0, -123 * sums[1]])


# --- what a backtest is given


def test_an_account_may_begin_with_positions(dataset):
    dataset(A=Symbol([100, 110, 120], 0, {"funding_paid": [0, 0.001, 0.001]}), B=Symbol([10, 10, 10]))
    account = {"cash": 1000.0, "A": -2.0, "B": {"amount": 3.0, "price": 9.0}}
    result = run({}, (1, 2), account=account)
    ledger = result.ledger
    rate = f32(0.001)
    assert ledger["funding"].tolist() == exactly([2 * 100 * rate, 2 * 110 * rate])
    equity = [1000 - 220 + 30 + 200 * rate, 1000 - 240 + 30 + 420 * rate]
    assert ledger["equity"].tolist() == exactly(equity)
    assert result.returns.iloc[0] == exactly(equity[0] / (1000 - 200 + 27) - 1)


def test_the_report_of_qlib_and_the_ledger_say_the_same(dataset):
    dataset(A=Symbol([100, 103, 104, 101], 0, {"funding_paid": [0, 0.001, 0, 0.002]}))
    result = run({0: [("A", 3.0)], 2: [("A", -4.0)]}, (0, 3), taker_fee=0.001, slippage=0.001)
    report, ledger = result.report, result.ledger
    before = np.array([1000.0, *ledger["equity"].iloc[:-1]])
    assert report["account"].tolist() == exactly(ledger["equity"].tolist())
    assert (report["cost"] * before).tolist() == exactly(ledger["fee"].tolist())
    assert (report["turnover"] * before).tolist() == exactly(ledger["turnover"].tolist())
    assert result.returns.tolist() == exactly((ledger["equity"].to_numpy() / before - 1).tolist())
    flows = ledger["price"] + ledger["funding"] - ledger["fee"] - ledger["slippage"]
    assert flows.tolist() == exactly((ledger["equity"].to_numpy() - before).tolist())


def test_bars_of_another_frequency_are_refused(dataset):
    dataset(A=Symbol([100, 100]))
    with pytest.raises(ValueError, match="goes through 60min bars, the exchange has day"):
        _qlib_run(Scripted({}), {"freq": "day"})


def _qlib_run(strategy, exchange, first=0, last=1):
    settings = {"class": "PerpExchange", "module_path": "perps.exchange", "kwargs": exchange}
    executor = {"class": "PerpExecutor", "module_path": "perps.executor", "kwargs": {"time_per_step": "60min"}}
    metrics, _ = qlib_backtest(
        start_time=bar(first),
        end_time=bar(last),
        strategy=strategy,
        executor=executor,
        benchmark=pd.Series([0.0], index=pd.DatetimeIndex([bar(first)], name="datetime")),
        account=1000.0,
        exchange_kwargs={"exchange": settings},
        pos_type="perps.position.PerpPosition",
    )
    return metrics["60min"]


def test_an_exchange_with_less_than_the_backtests_bars_is_refused(dataset):
    dataset(A=Symbol([100, 100, 100, 100]))
    with pytest.raises(ValueError, match="but the exchange has 60min bars from"):
        _qlib_run(Scripted({}), {"freq": "60min", "start_time": bar(0), "end_time": bar(1)}, 0, 2)


def test_a_backtest_that_ends_at_the_last_bar_of_a_calendar_without_future_says_so(dataset):
    dataset(future=0, A=Symbol([100, 100, 100]))
    with pytest.raises(ValueError, match="end one bar earlier"):
        run({}, (0, 2))
    assert len(run({}, (0, 1)).ledger) == 2


def test_other_positions_and_other_exchanges_are_refused(dataset):
    dataset(A=Symbol([100, 100]))
    nothing = pd.Series([0.0], index=pd.DatetimeIndex([bar(0)], name="datetime"))
    settings = {"benchmark": nothing, "account": 1000.0, "strategy": Scripted({})}
    span = {"start_time": bar(0), "end_time": bar(1)}
    exchange = {"exchange": perps.PerpExchange("60min")}
    with pytest.raises(TypeError, match="pos_type"):
        qlib_backtest(executor=perps.PerpExecutor("60min"), exchange_kwargs=exchange, **span, **settings)
    with pytest.raises(TypeError, match="PerpExchange"):
        qlib_backtest(executor=perps.PerpExecutor("60min"), exchange_kwargs={"freq": "60min"}, **span, **settings)


def test_settings_in_the_form_of_a_workflow_give_the_same_as_one_call(dataset):
    dataset(A=Symbol([100, 103, 104, 101], 0, {"funding_paid": [0, 0.001, 0, 0.002]}))
    trades = {0: [("A", 3.0)], 2: [("A", -4.0)]}
    report, positions = _qlib_run(Scripted(trades), {"freq": "60min", "slippage": 0.001}, 0, 3)
    single = perps.backtest(
        Scripted(trades), bar(0), bar(3), freq="60min", account=1000.0, exchange={"slippage": 0.001}
    )
    pd.testing.assert_frame_equal(report, single.report)
    pd.testing.assert_frame_equal(perps.ledger(positions), single.ledger)


@pytest.mark.parametrize("stock_fields", [False, True], ids=["plain data", "with factor and change"])
def test_plain_qlib_init_gives_the_same_result(dataset, stock_fields):
    close = [100, 140, 80, 81, 82]  # moves that Qlib's Chinese stocks may not make
    fields = {"funding_paid": [0, 0.001, 0, 0.002, 0]}
    if stock_fields:
        fields |= {"factor": [1] * 5, "change": [NAN, 0.4, -0.43, 0.0125, 0.0123]}
    folder = dataset(A=Symbol(close, 0, fields))
    trades = {0: [("A", 1.37)], 1: [("A", -2.11)], 2: [("A", 0.001)]}
    settings = {"taker_fee": 0.001, "slippage": 0.001}
    ours = run(trades, (0, 4), **settings)
    qlib.init(provider_uri=str(folder), region=REG_CN)
    plain = run(trades, (0, 4), **settings)
    pd.testing.assert_frame_equal(ours.ledger, plain.ledger)
    pd.testing.assert_frame_equal(ours.report, plain.report)
    assert ours.ledger["turnover"].tolist()[:3] == exactly([1.37 * 100.1, 2.11 * 100 * 0.999, 0.001 * 140 * 1.001])


def test_qlibs_own_strategies_trade_on_the_exchange(dataset):
    rows = {"A": [100, 101, 102], "B": [50, 49, 48], "C": [10, 11, 12]}
    dataset(**{name: Symbol(close) for name, close in rows.items()})
    index = pd.MultiIndex.from_product([[bar(0), bar(1)], list(rows)], names=["datetime", "instrument"])
    signal = pd.Series([1, 2, 3, 1, 2, 3.0], index=index)
    strategy = TopkDropoutStrategy(topk=2, n_drop=1, signal=signal, risk_degree=0.5)
    result = perps.backtest(strategy, bar(1), bar(2), freq="60min", account=1000.0)
    held = result.positions[pd.Timestamp(bar(1))].get_stock_amount_dict()
    assert held == {"C": exactly(250 / 10), "B": exactly(250 / 50)}  # at the open: no lots


def test_amounts_and_prices_are_counted_in_float64(dataset):
    dataset(A=Symbol([0.1, 0.1]))
    result = run({0: [("A", 1e7)]}, (0, 1), account=1e9)
    assert result.positions[pd.Timestamp(bar(1))].calculate_stock_value() == 1e7 * float(np.float32(0.1))
    assert isinstance(result.ledger["equity"].iloc[0], float)


def test_positions_survive_being_stored_as_an_artifact(dataset):
    dataset(A=Symbol([100, 103, 104], 0, {"funding_paid": [0, 0.001, 0]}))
    result = run({0: [("A", 3.0)]}, (0, 2))
    stored = pickle.loads(pickle.dumps(result.positions))  # noqa: S301 - our own
    pd.testing.assert_frame_equal(perps.ledger(stored), result.ledger)
    pd.testing.assert_frame_equal(perps.ledger_by_symbol(stored), result.by_symbol)


def test_what_has_left_a_universe_still_has_a_price(dataset):
    folder = dataset(bars=48, A=Symbol(range(100, 148)), B=Symbol([50] * 48))
    spans = ["A\t2026-01-01 00:00:00\t2026-01-01 23:59:59\n", "B\t2026-01-01 00:00:00\t2026-01-02 23:59:59\n"]
    (folder / "instruments" / "top50.txt").write_text("".join(spans))
    result = run({0: [("A", 1.0)], 40: [("A", -1.0)]}, (0, 47), codes="top50")
    assert result.ledger["delistings"].sum() == 0
    assert result.ledger["equity"].iloc[-1] == exactly(1000 + 139 - 100)  # opens of bars 0 and 40


@pytest.mark.parametrize(
    "limit", [("current", "0.001 * $volume"), {"buy": ["current", "0.001 * $volume"]}], ids=["both sides", "one side"]
)
def test_volume_limits_of_qlib_hold(dataset, limit):
    dataset(A=Symbol([100, 100], 0, {"volume": [1000, 1000]}))
    result = run({0: [("A", 5.0)]}, (0, 1), volume_threshold=limit)
    assert result.positions[pd.Timestamp(bar(0))].get_stock_amount_dict() == {"A": exactly(1.0)}


@pytest.mark.parametrize("seed", range(4))
def test_the_account_changes_by_what_the_ledger_says_also_in_accounts_that_are_liquidated(dataset, seed):
    random = np.random.default_rng(seed)
    symbols = {}
    for name in ("A", "B", "C"):
        close = 100 * np.exp(np.cumsum(0.03 * random.standard_normal(60)))
        open_ = np.concatenate([close[:1], close[:-1]]) * (1 + 0.01 * random.standard_normal(60))
        extremes = {"high": np.maximum(open_, close) * 1.02, "low": np.minimum(open_, close) * 0.98}
        fields = {"open": open_, **extremes, "funding_paid": 0.001 * random.standard_normal(60)}
        for values in (close, *(fields[field] for field in ("open", "high", "low"))):
            values[20:23] = np.nan
        symbols[name] = Symbol(close, 0, fields)
    dataset(**symbols)
    trades = {n: [(name, 40 * random.standard_normal()) for name in symbols] for n in range(60)}
    for deal_price in ("open", "close"):
        settings = {"leverage": 20.0, "maintenance_margin": 0.01, "taker_fee": 0.0005, "slippage": 0.0005}
        result = run(trades, (0, 59), deal_price=deal_price, **settings)
        ledger = result.ledger
        assert ledger["liquidations"].sum() > 0
        flows = ledger["price"] + ledger["funding"] - ledger["fee"] - ledger["slippage"]
        assert ledger["equity"].tolist() == pytest.approx((1000 + flows.cumsum()).tolist(), rel=1e-9, abs=1e-9)
        by_symbol = result.by_symbol.groupby(level="datetime")[["price", "funding", "fee", "turnover"]].sum()
        pd.testing.assert_frame_equal(by_symbol, ledger.loc[by_symbol.index, by_symbol.columns])


def test_a_benchmark_may_be_a_symbol_a_list_of_them_returns_or_nothing(dataset):
    dataset(A=Symbol([100, 110, 99]), B=Symbol([10, 10, 12]))
    index = pd.DatetimeIndex([bar(1), bar(2)], name="datetime")
    expected = {
        "A": [0.1, -0.1],
        ("A", "B"): [0.05, 0.05],
        None: [0.0, 0.0],
    }
    for benchmark, returns in expected.items():
        given = list(benchmark) if isinstance(benchmark, tuple) else benchmark
        result = perps.backtest(Scripted({}), bar(1), bar(2), freq="60min", benchmark=given)
        assert result.report["bench"].tolist() == pytest.approx(returns, abs=1e-6)
    own = pd.Series([0.3, 0.4], index=index)
    assert perps.backtest(Scripted({}), bar(1), freq="60min", benchmark=own).report["bench"].tolist() == exactly(
        [0.3, 0.4]
    )
    with pytest.raises(ValueError, match="benchmark is 'X': X has no bars"):
        perps.backtest(Scripted({}), bar(1), bar(2), freq="60min", benchmark="X")


def test_a_range_without_bars_and_an_unknown_position_are_refused(dataset):
    dataset(A=Symbol([100, 110, 99]))
    with pytest.raises(ValueError, match="the last 60min bar of the dataset is 2026-01-01 02:00:00"):
        run({}, (3, 5))
    with pytest.raises(ValueError, match="begins with X, which the exchange does not have"):
        run({}, (1, 2), account={"cash": 1.0, "X": {"amount": 1.0, "price": 1.0}})


def test_a_trade_too_small_to_be_booked_is_none(dataset):
    dataset(A=Symbol([100, 100]))
    result = run({0: [("A", 1.0)], 1: [("A", 1e-8)]}, (0, 1), slippage=0.1)
    assert result.positions[pd.Timestamp(bar(1))].get_stock_amount_dict() == {"A": 1.0}
    assert result.ledger[["slippage", "fee", "turnover", "price"]].iloc[1].tolist() == [0, 0, 0, 0]


def test_where_volume_is_limited_reductions_free_margin_before_others_take_it(dataset):
    dataset(A=Symbol([100, 100]), B=Symbol([100, 100]))
    limit = ("current", "1 * $volume")  # far beyond all orders
    trades = {0: [("A", 10.0)], 1: [("B", 8.0), ("A", -10.0)]}
    result = run(trades, (0, 1), leverage=1.0, volume_threshold=limit)
    assert result.positions[pd.Timestamp(bar(1))].get_stock_amount_dict() == {"B": 8.0}


def test_what_rounding_leaves_of_a_closed_position_is_not_held(dataset):
    assert 0.1 + 0.2 - 0.3 != 0
    dataset(A=Symbol([100] * 4))
    result = run({0: [("A", 0.1)], 1: [("A", 0.2)], 2: [("A", -0.3)]}, (0, 3))
    assert result.positions[pd.Timestamp(bar(2))].held() == []


def test_two_orders_of_a_bar_for_one_symbol_are_seen_one_after_the_other(dataset):
    dataset(A=Symbol([100, 100]))
    result = run({0: [("A", 10.0), ("A", -10.0)]}, (0, 1), leverage=1.0)
    assert result.ledger["turnover"].iloc[0] == exactly(2000)  # the second closes the first: nothing beyond the cap
    assert result.ledger["gross"].iloc[0] == 0


# --- prices of any size


@pytest.mark.parametrize("level", [1e-9, 1e-4, 1.0, 1e5])
def test_orders_are_done_at_the_open_whatever_a_price_is_counted_in(dataset, level):
    opens, closes = np.array([100.0, 101, 103, 99]), np.array([110.0, 90, 104, 98])
    dataset(A=Symbol(closes * level, 0, {"open": opens * level, "funding_paid": [0.0, 0.001, 0.0, 0.0]}))

    result = run({0: [("A", 2.0 / level)], 2: [("A", -2.0 / level)]}, (0, 3))

    opened, ended = f32(opens * level)[0], f32(opens * level)[2]
    funding = 2 / level * f32(closes * level)[0] * f32([0.001])[0]
    expected = 1000 + 2 / level * (ended - opened) - funding
    assert result.ledger["equity"].iloc[-1] == pytest.approx(expected, rel=1e-9)
    assert result.positions[pd.Timestamp(bar(3))].held() == []


# --- an executor inside of another one


class HandOn(BaseStrategy):
    """Does the orders of the level above at the first of its own bars."""

    def generate_trade_decision(self, execute_result=None):  # noqa: ARG002 - Qlib's
        begin, end = self.trade_calendar.get_step_time()
        given = self.outer_trade_decision.get_decision() if self.trade_calendar.get_trade_step() == 0 else []
        orders = [Order(one.stock_id, one.amount, one.direction, begin, end) for one in given]
        return TradeDecisionWO(orders, self)


def nested_run(nested, trades, account=1000.0):
    inner = PerpExecutor("60min")
    outer = nested("240min", inner, HandOn(), generate_portfolio_metrics=False)
    settings = {"freq": "60min", "start_time": bar(0), "end_time": bar(15), "taker_fee": 0.0, "leverage": 100.0}
    qlib_backtest(
        start_time=pd.Timestamp(bar(0)),
        end_time=pd.Timestamp(bar(12)),
        strategy=Scripted(trades, "60min"),
        executor=outer,
        benchmark=pd.Series([0.0], index=pd.DatetimeIndex([bar(0)], name="datetime")),
        account=account,
        exchange_kwargs={"exchange": {"class": "PerpExchange", "module_path": "perps.exchange", "kwargs": settings}},
        pos_type="perps.position.PerpPosition",
    )
    return inner


@pytest.fixture
def two_levels(tmp_path):
    rates = np.full(20, 0.0)
    rates[[8, 12]] = 0.01
    write_provider(tmp_path / "qlib_data", "240min", {"A": Symbol([100.0] * 5)}, 5)
    write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol([100.0] * 20, 0, {"funding_paid": rates})}, 20)
    perps.init(tmp_path / "qlib_data", experiments=tmp_path / "experiments")


def test_funding_is_paid_at_bars_at_which_nothing_is_decided_also_inside_of_another_executor(two_levels):
    inner = nested_run(PerpNestedExecutor, {0: [("A", 2.0)]})

    plain = run({0: [("A", 2.0)]}, (0, 15))
    assert plain.ledger["funding"].sum() == pytest.approx(-2 * 100 * 0.02, rel=1e-6)
    assert inner.position.calculate_value() == pytest.approx(plain.ledger["equity"].iloc[-1], rel=1e-9)


def test_qlibs_nested_executor_is_refused_in_a_sentence(two_levels):
    with pytest.raises(TypeError, match=r"would miss the funding and the liquidations.*PerpNestedExecutor"):
        nested_run(NestedExecutor, {0: [("A", 2.0)]})


def test_a_nested_executor_that_leaves_bars_out_is_refused(two_levels):
    with pytest.raises(ValueError, match="skip_empty_decision=True would leave bars out"):
        PerpNestedExecutor("240min", PerpExecutor("60min"), HandOn(), skip_empty_decision=True)
    with pytest.raises(TypeError, match="there is a PerpExecutor"):
        PerpNestedExecutor("240min", SimulatorExecutor("60min"), HandOn())
