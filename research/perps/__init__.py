"""Qlib made right for perpetual futures: a market that never closes, funding, shorts, leverage.

    import perps
    perps.init("qlib_data")
    run = perps.backtest(perps.FundingCarry(topk=5), "2026-01-01", "2026-03-31", freq="60min")
    run.ledger["equity"].plot()

Everything works after a plain `qlib.init` as well, and from the YAML of `qrun` by `module_path: perps.…`.
"""

import gym_notices.notices

# gym comes along with Qlib and prints a notice on import; the kit does not use it.
gym_notices.notices.notices.clear()

from perps.exchange import PerpExchange  # noqa: E402 - qlib.backtest imports gym, see above
from perps.executor import PerpExecutor  # noqa: E402
from perps.features import features  # noqa: E402
from perps.pnl import ledger, ledger_by_symbol  # noqa: E402
from perps.position import PerpPosition  # noqa: E402
from perps.processors import CSZScore  # noqa: E402
from perps.rankings import rankings  # noqa: E402
from perps.risk import bars_per_year, risk  # noqa: E402
from perps.settlements import settlements  # noqa: E402
from perps.setup import DatasetError, init, refresh  # noqa: E402
from perps.simulation import Backtest, backtest  # noqa: E402
from perps.strategies import FundingCarry, FundingPairs, LongShortTopK  # noqa: E402

__all__ = [
    "Backtest",
    "CSZScore",
    "DatasetError",
    "FundingCarry",
    "FundingPairs",
    "LongShortTopK",
    "PerpExchange",
    "PerpExecutor",
    "PerpPosition",
    "backtest",
    "bars_per_year",
    "features",
    "init",
    "ledger",
    "ledger_by_symbol",
    "rankings",
    "refresh",
    "risk",
    "settlements",
]
