"""A backtest with perpetual futures in one call."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from qlib.backtest import backtest as qlib_backtest
from qlib.data import D

from perps.arguments import (
    account_of,
    check_names,
    exchange_of,
    instant,
    names_of,
    returns_of,
    strategy_of,
    symbols_of,
)
from perps.bars import own, within
from perps.exchange import PerpExchange
from perps.executor import PerpExecutor
from perps.operators import bar_return
from perps.pnl import begin_of
from perps.position import PerpPosition
from perps.risk import frequency_of, too_short

_SHOWN = 5
"""Symbols that a note names."""

_OF_EXECUTOR = names_of(PerpExecutor) - {"time_per_step", "start_time", "end_time"}
"""Settings of the executor that are not those of the whole backtest."""


class Backtest(NamedTuple):
    """What a backtest returns."""

    report: pd.DataFrame
    """Qlib's report, one row a bar: return (without fees, but with slippage), cost (fees), bench, account, …"""
    positions: dict[pd.Timestamp, PerpPosition]
    """Bar → what was held at its end."""
    ledger: pd.DataFrame
    """Price, funding, fees, … of each bar; see `perps.ledger`."""
    by_symbol: pd.DataFrame
    """The same per symbol; see `perps.ledger_by_symbol`."""

    @property
    def returns(self) -> pd.Series:
        """Return of each bar with everything in it: what `perps.risk` measures."""
        returns: pd.Series = self.report["return"] - self.report["cost"]
        return returns

    @property
    def gross(self) -> pd.Series:
        """Return of each bar before costs, which are fees and slippage: prices and funding alone."""
        before = self.ledger["equity"].shift(1, fill_value=begin_of(self.ledger))
        gross: pd.Series = (self.ledger["price"] + self.ledger["funding"]) / before
        return gross

    @property
    def notes(self) -> list[str]:
        """Return in sentences what has to be known about the figures; none where there is nothing."""
        short = too_short(self.returns, frequency_of(pd.DatetimeIndex(self.ledger.index)))
        return [note for note in (short, *closed_for_no_known_reason(self.positions)) if note is not None]


def backtest(
    strategy: Any,
    start_time: pd.Timestamp | str,
    end_time: pd.Timestamp | str | None = None,
    *,
    freq: str = "day",
    account: float | dict[str, Any] = 100_000.0,
    benchmark: Any = None,
    exchange: dict[str, Any] | None = None,
    **executor: Any,
) -> Backtest:
    """Run a strategy (an instance, or Qlib's config of one) from a first to a last bar.

    start_time, end_time: when the bars open, in UTC; a date alone is the first bar of that day. The end is the
        last bar of data where it is left out or later
    account: quote currency at the start, or {"cash": …, symbol: signed amount, …}
    benchmark: a symbol, a list of symbols (their mean), a Series of returns; None compares with nothing (0)
    exchange: settings of `PerpExchange`, such as {"slippage": 0.0002, "leverage": 5}
    executor: settings of `PerpExecutor`

    Raises ValueError where the dataset does not have the bars, and for an argument that makes no sense, by its name;
    TypeError for one that does not exist.
    """
    check_names("perps.backtest", executor, _OF_EXECUTOR, names_of(PerpExchange))
    if not executor.get("generate_portfolio_metrics", True):
        raise ValueError("generate_portfolio_metrics is False: it must be True, as the report is made of the metrics")
    given = exchange_of(exchange)
    check_names("exchange", given, names_of(PerpExchange))
    money = account_of(account)
    plan = strategy_of(strategy)
    begin = instant("start_time", start_time)
    last = D.calendar(freq=own("freq", freq))[-1]
    end = last if end_time is None else min(instant("end_time", end_time), last)
    within(begin, end, freq)
    runner = PerpExecutor(time_per_step=freq, **executor)
    settings = {"class": "PerpExchange", "module_path": "perps.exchange", "kwargs": {"freq": freq, **given}}
    metrics, _ = qlib_backtest(
        start_time=begin,
        end_time=end,
        strategy=plan,
        executor=runner,
        benchmark=_benchmark(benchmark, begin, end, freq),
        account=money,
        exchange_kwargs={"exchange": settings},
        pos_type="perps.position.PerpPosition",
    )
    ((report, positions),) = metrics.values()
    return Backtest(report, positions, runner.ledger, runner.ledger_by_symbol)


def closed_for_no_known_reason(positions: Mapping[pd.Timestamp, PerpPosition]) -> list[str]:
    """Return a sentence on the positions that were closed since the dataset no longer followed their symbols."""
    closed = [f"{symbol} ({bar})" for bar, held in positions.items() for symbol in held.flows.unfollowed]
    if not closed:
        return []
    shown = ", ".join(closed[:_SHOWN]) + (f" and {len(closed) - _SHOWN} more" if len(closed) > _SHOWN else "")
    note = (
        f"{len(closed)} positions were closed at the last known price, with costs, as no longer followed: nothing was "
        f"seen of their symbols for too long, and the dataset knows of no delisting: {shown}"
    )
    return [note]


def _benchmark(benchmark: Any, begin: pd.Timestamp, end: pd.Timestamp, freq: str) -> pd.Series:
    """Return the returns to compare with.

    Qlib would ask for a Chinese index where there is none, and for daily bars of a symbol whatever the frequency.
    """
    if benchmark is None:
        return pd.Series([0.0], index=pd.DatetimeIndex([begin], name="datetime"))
    if isinstance(benchmark, pd.Series):
        return returns_of(benchmark)
    symbols = symbols_of("benchmark", benchmark)
    returns = D.features(symbols, [bar_return()], begin, end, freq=freq).iloc[:, 0]
    missing = sorted(set(symbols) - set(returns.index.get_level_values("instrument")))
    if missing:
        raise ValueError(
            f"benchmark is {benchmark!r}: {', '.join(missing)} has no bars between {begin} and {end}; each symbol "
            "must have bars in that time"
        )
    return returns.astype("float64").groupby(level="datetime").mean().fillna(0.0)
