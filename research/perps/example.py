"""Funding against its costs: `PYTHONPATH=research .venv-research/bin/python -m perps.example qlib_data [top50]`.

Compares two strategies on all hours of a dataset: FundingCarry, which always holds whoever pays most, and FundingPairs,
which trades only where the expected funding exceeds fees and slippage. Prints where the money came from, as shares of
the account at the start.
"""

import sys
from collections.abc import Mapping

import pandas as pd
from qlib.data import D

from perps.pnl import begin_of
from perps.risk import risk
from perps.setup import init
from perps.simulation import Backtest, backtest
from perps.strategies import FundingCarry, FundingPairs

FREQ = "60min"
COSTS = {"taker_fee": 0.0005, "slippage": 0.0002, "leverage": 2}


def compare(folder: str, market: str = "all") -> tuple[pd.DataFrame, Mapping[str, Backtest]]:
    """Return a column for each strategy, and the backtests.

    folder: of Qlib's dataset. market: an instruments file of it; where it is no universe but everything, `all`.
    """
    init(folder)
    first = D.calendar(freq=FREQ)[1]
    strategies: dict[str, type[FundingCarry]] = {"FundingCarry": FundingCarry, "FundingPairs": FundingPairs}
    where = None if market == "all" else "$in_universe"
    runs = {
        name: backtest(strategy(topk=5, where=where), first, freq=FREQ, exchange={"codes": market, **COSTS})
        for name, strategy in strategies.items()
    }
    return pd.DataFrame({name: parts(run) for name, run in runs.items()}), runs


def parts(run: Backtest) -> pd.Series:
    """Return the parts of the total return in percent, and the mean of a bar and the Sharpe ratio with their errors."""
    sums = 100 * run.ledger[["price", "funding", "fee", "slippage"]].sum() / begin_of(run.ledger)
    measured = risk(run.returns, FREQ)["risk"]
    costs = sums["fee"] + sums["slippage"]
    return pd.Series(
        {
            "prices, %": sums["price"],
            "funding, %": sums["funding"],
            "fees and slippage, %": 0.0 - costs,
            "funding less costs, %": sums["funding"] - costs,
            "total, %": sums["price"] + sums["funding"] - costs,
            "mean of a bar, bp": 1e4 * measured["mean"],
            "its error, bp": 1e4 * measured["mean_error"],
            "Sharpe ratio": measured["information_ratio"],
            "its error": measured["information_ratio_error"],
        }
    )


if __name__ == "__main__":
    table, runs = compare(*sys.argv[1:])
    print(table.round(2).to_string())  # noqa: T201 - it is what the command is for
    for strategy, run in runs.items():
        for note in run.notes:
            print(f"{strategy}: {note}")  # noqa: T201 - the same
