"""Strategies and runs that tests of the backtest share."""

from collections.abc import Mapping, Sequence

import pandas as pd
import perps
from qlib.backtest.decision import Order, TradeDecisionWO
from qlib.strategy.base import BaseStrategy

from tests.research.provider import bar

Trades = Mapping[int, Sequence[tuple[str, float]]]


class Scripted(BaseStrategy):
    """Trades as given: number of the bar in the dataset → [(symbol, signed amount)]."""

    def __init__(self, trades: Trades, freq: str = "60min") -> None:
        super().__init__()
        self.trades = {pd.Timestamp(bar(number, freq)): orders for number, orders in trades.items()}

    def generate_trade_decision(self, execute_result=None) -> TradeDecisionWO:  # noqa: ARG002 - Qlib's
        begin, end = self.trade_calendar.get_step_time()
        orders = [
            Order(symbol, abs(amount), Order.BUY if amount > 0 else Order.SELL, begin, end)
            for symbol, amount in self.trades.get(begin, [])
        ]
        return TradeDecisionWO(orders, self)


def run(
    trades: Trades, bars: tuple[int, int], *, freq: str = "60min", account=1000.0, benchmark=None, **exchange
) -> perps.Backtest:
    """Run a script over bars [first, last] with an exchange of the given settings; no fee unless one is given."""
    first, last = (bar(number, freq) for number in bars)
    settings = {"taker_fee": 0.0, "leverage": 100.0, "maintenance_margin": 0.0} | exchange
    strategy = Scripted(trades, freq)
    return perps.backtest(strategy, first, last, freq=freq, account=account, benchmark=benchmark, exchange=settings)
