"""Where the money came from: the profit and loss of each bar, taken apart."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from perps.position import PerpPosition

_FLOWS = ("price", "funding", "fee", "slippage", "turnover")


def ledger(positions: Mapping[pd.Timestamp, PerpPosition]) -> pd.DataFrame:
    """Return one row a bar (quote currency) from the positions that a backtest with perpetuals returns.

    `portfolio, _ = qlib.backtest.backtest(…); report, positions = portfolio["60min"]`, or what Qlib's portfolio record
    stores as `positions_normal_60min.pkl`.

    - price: profit from prices alone, as if every trade was done without slippage
    - funding: received less paid
    - fee, slippage: costs, positive where they cost
    - turnover: value of all trades, forced ones included
    - gross, net: sum of |amount x price| and of amount x price at the end of the bar
    - equity: value of the account at the end of the bar; its change is price + funding - fee - slippage
    - liquidations, delistings, unfollowed: positions closed by force: for their margin, at the end of a life, since
      the dataset no longer followed their symbols (see "Ends" in `PerpExchange`)
    - funding_unknown: positions held without the dataset knowing the funding of the bar (counted as 0)
    """
    by_symbol = ledger_by_symbol(positions)
    bars = pd.DatetimeIndex(list(positions), name="datetime")
    sums = by_symbol.groupby(level="datetime")[[*_FLOWS, "notional"]].sum().reindex(bars, fill_value=0.0)
    sums["gross"] = by_symbol["notional"].abs().groupby(level="datetime").sum().reindex(bars, fill_value=0.0)
    frame = sums.rename(columns={"notional": "net"})
    frame["equity"] = [float(position.calculate_value()) for position in positions.values()]
    frame["liquidations"] = [len(position.flows.liquidated) for position in positions.values()]
    frame["delistings"] = [len(position.flows.delisted) for position in positions.values()]
    frame["unfollowed"] = [len(position.flows.unfollowed) for position in positions.values()]
    frame["funding_unknown"] = [len(position.flows.funding_unknown) for position in positions.values()]
    columns = [*_FLOWS, "gross", "net", "equity", "liquidations", "delistings", "unfollowed", "funding_unknown"]
    return frame[columns]


def begin_of(ledger: pd.DataFrame) -> float:
    """Return what the account was worth before the first bar of a ledger."""
    first = ledger.iloc[0]
    return float(first["equity"] - first["price"] - first["funding"] + first["fee"] + first["slippage"])


def ledger_by_symbol(positions: Mapping[pd.Timestamp, PerpPosition]) -> pd.DataFrame:
    """Return price, funding, fee, slippage, turnover and notional (signed, at the end) per bar and symbol.

    The index is (datetime, instrument); a symbol has a row for a bar in which it was held or traded.
    """
    rows = [row for bar, position in positions.items() for row in _rows(bar, position)]
    columns = ["datetime", "instrument", *_FLOWS, "notional"]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys([*_FLOWS, "notional"], "float64"))
    frame["datetime"] = pd.to_datetime(frame["datetime"])
    return frame.set_index(["datetime", "instrument"])


def _rows(bar: pd.Timestamp, position: PerpPosition) -> Iterator[tuple[Any, ...]]:
    flows, closing = position.flows, position.notionals()
    for symbol in sorted(flows.opening.keys() | flows.turnover.keys() | closing.keys()):
        slippage, end = flows.slippage.get(symbol, 0.0), closing.get(symbol, 0.0)
        price = end - flows.opening.get(symbol, 0.0) - flows.bought.get(symbol, 0.0) + slippage
        funding, fee = flows.funding.get(symbol, 0.0), flows.fee.get(symbol, 0.0)
        yield bar, symbol, price, funding, fee, slippage, flows.turnover.get(symbol, 0.0), end
