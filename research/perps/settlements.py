"""Settled funding rates as they were collected, also of times without a candle."""

from pathlib import Path

import pandas as pd

from perps.arguments import instant
from perps.raw import day_files, read_days

COLUMNS = ("funding_time", "symbol", "funding_rate", "interval_hours")


def settlements(
    data: str | Path | None = None,
    begin: str | pd.Timestamp | None = None,
    end: str | pd.Timestamp | None = None,
) -> pd.DataFrame:
    """Return the rates that were settled in [begin, end): columns `COLUMNS`, in the order of time.

    `$funding_paid` of a dataset has them where a symbol has candles; these are all that were collected. `data` is the
    collector's DATA_DIR; by default the environment's DATA_DIR, or `okx_data`. A positive rate, a share of the
    position, is paid by longs. Instants are UTC without a zone; `interval_hours` is NaN where it is not known.

    Raises `FileNotFoundError` where there are no funding rates, and `BadFileError` (a ValueError) where a file cannot
    be read, or has rows of another day than its own, or rows twice; ValueError where `begin` or `end` is no instant.
    """
    days = day_files(data, "funding", "funding_rates", "funding rates")
    first = instant("begin", min(days) if begin is None else begin)
    last = instant("end", pd.Timestamp.max if end is None else end)
    chosen = {day: path for day, path in days.items() if first.date() <= day <= last.date()}
    found = read_days(chosen, COLUMNS, ["funding_time"], ["exchange", "symbol", "funding_time"])
    inside = found[(found["funding_time"] >= first) & (found["funding_time"] < last)]
    return inside.sort_values(["funding_time", "symbol"], ignore_index=True)
