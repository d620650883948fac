"""A backtest with perpetual futures in one call."""

from typing import Any, NamedTuple

import pandas as pd
from qlib.backtest import backtest as qlib_backtest
from qlib.data import D

from perps.executor import PerpExecutor
from perps.position import PerpPosition


class Backtest(NamedTuple):
    """What a backtest returns."""

    report: pd.DataFrame
    """Qlib's report, one row a bar: return (without fees), cost, bench, account, turnover, …"""
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

    start_time, end_time: when the bars open; a date alone is the first bar of that day. The end is the last bar of data
        where it is left out or later
    account: quote currency at the start, or {"cash": …, symbol: signed amount, …}
    benchmark: a symbol, a list of symbols (their mean), a Series of returns; None compares with nothing (0)
    exchange: settings of `PerpExchange`, such as {"slippage": 0.0002, "leverage": 5}
    executor: settings of `PerpExecutor`

    Raises ValueError where the dataset does not have the bars.
    """
    begin, last = pd.Timestamp(start_time), D.calendar(freq=freq)[-1]
    end = last if end_time is None else min(pd.Timestamp(end_time), last)
    if begin > end:
        raise ValueError(f"from {begin} to {end} there is no bar: the last {freq} bar of the dataset is {last}")
    runner = PerpExecutor(time_per_step=freq, **executor)
    settings = {"class": "PerpExchange", "module_path": "perps.exchange", "kwargs": {"freq": freq, **(exchange or {})}}
    metrics, _ = qlib_backtest(
        start_time=begin,
        end_time=end,
        strategy=strategy,
        executor=runner,
        benchmark=_benchmark(benchmark, begin, end, freq),
        account=dict(account) if isinstance(account, dict) else account,
        exchange_kwargs={"exchange": settings},
        pos_type="perps.position.PerpPosition",
    )
    ((report, positions),) = metrics.values()
    return Backtest(report, positions, runner.ledger, runner.ledger_by_symbol)


def _benchmark(benchmark: Any, begin: pd.Timestamp, end: pd.Timestamp, freq: str) -> pd.Series:
    """Return the returns to compare with.

    Qlib would ask for a Chinese index where there is none, and for daily bars of a symbol whatever the frequency.
    """
    if benchmark is None:
        return pd.Series([0.0], index=pd.DatetimeIndex([begin], name="datetime"))
    if isinstance(benchmark, pd.Series):
        return benchmark
    symbols = [benchmark] if isinstance(benchmark, str) else list(benchmark)
    returns = D.features(symbols, ["$close / Ref($close, 1) - 1"], begin, end, freq=freq).iloc[:, 0]
    if returns.empty:
        raise ValueError(f"benchmark {benchmark}: no bars of it between {begin} and {end}")
    return returns.astype("float64").groupby(level="datetime").mean().fillna(0.0)
