"""Quotes as dense arrays, bars x symbols, in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.backtest.high_performance_ds import BaseQuote
from qlib.utils.index_data import SingleData

type Floats = npt.NDArray[np.float64]


class PanelQuote(BaseQuote):
    """What Qlib's exchange asks for prices.

    Differs from Qlib's NumpyQuote in three ways: numbers come out as float64 (an amount times a float32 is a float32 in
    numpy 2, which rounds an account to 7 digits), bars are looked up by position in an array, and nothing about the
    trading hours of Shanghai is assumed.
    """

    def __init__(self, quote_df: pd.DataFrame, freq: str, bars: Sequence[pd.Timestamp]) -> None:
        """Arrange Qlib's frame (symbol, bar) on the bars of a calendar, also those at which no symbol has a price."""
        super().__init__(quote_df=quote_df, freq=freq)
        stamps = quote_df.index.get_level_values("datetime")
        self.times = pd.DatetimeIndex(bars).as_unit("ns")
        codes, names = pd.factorize(quote_df.index.get_level_values("instrument"), sort=True)
        self.columns: dict[str, int] = {name: column for column, name in enumerate(names)}
        rows = self.times.get_indexer(pd.DatetimeIndex(stamps).as_unit("ns"))
        self.fields: dict[str, Floats] = {}
        for name in quote_df.columns:
            values = np.full((len(self.times), len(names)), np.nan)
            values[rows, codes] = quote_df[name].to_numpy(dtype="float64")
            self.fields[name] = values
        self._nanoseconds = self.times.asi8
        self._last_span: tuple[Any, Any, slice] = (None, None, slice(0, 0))

    def get_all_stock(self) -> dict[str, int]:
        """Return the symbols that have quotes."""
        return self.columns

    def span(self, start_time: Any, end_time: Any) -> slice:
        """Return the rows of the bars that open between two times, both included."""
        if self._last_span[0] == start_time and self._last_span[1] == end_time:
            return self._last_span[2]
        first = int(np.searchsorted(self._nanoseconds, _nanoseconds(start_time), side="left"))
        last = int(np.searchsorted(self._nanoseconds, _nanoseconds(end_time), side="right"))
        self._last_span = (start_time, end_time, slice(first, last))
        return self._last_span[2]

    def get_data(self, stock_id: str, start_time: Any, end_time: Any, field: str, method: str | None = None) -> Any:
        """Return a field of a symbol in a span of bars, None where there is nothing; see Qlib's BaseQuote."""
        column, rows = self.columns.get(stock_id), self.span(start_time, end_time)
        if column is None or rows.stop <= rows.start:
            return None
        values = self.fields[field][rows, column]
        if len(values) == 1:
            return float(values[0])
        return SingleData(values, index=list(self.times[rows])) if method is None else _aggregate(values, method)


def _aggregate(values: Floats, method: str) -> float | bool | None:
    known = values[~np.isnan(values)]
    match method:
        case "ts_data_last":
            return float(known[-1]) if len(known) else None
        case "last":
            return float(values[-1])
        case "sum":
            return float(known.sum())
        case "mean":
            return float(known.mean()) if len(known) else float("nan")
        case "all":
            return bool(values.all())
    raise ValueError(f"method {method!r} is not supported")


def _nanoseconds(time: Any) -> int:
    return int(pd.Timestamp(time).as_unit("ns").value)
