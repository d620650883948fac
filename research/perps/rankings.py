"""Rankings, whole: who was in the universe when, and the ranks of all others."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pandas as pd

from perps.arguments import instant
from perps.raw import day_files, read_days

COLUMNS = (
    "ranked_time",
    "rank",
    "symbol",
    "funding_rate",
    "interval_hours",
    "score",
    "member",
    "rank_by",
    "funding_time",
)


def rankings(
    data: str | Path | None = None,
    begin: str | pd.Timestamp | None = None,
    end: str | pd.Timestamp | None = None,
    *,
    at: str | pd.Timestamp | None = None,
) -> pd.DataFrame:
    """Return rankings of all swaps, one row per ranking and symbol, indexed by (ranked_time, rank).

    With `at` the one that was in force at an instant, indexed by rank; otherwise all that were made in [begin, end).
    `data` is the collector's DATA_DIR; by default the environment's DATA_DIR, or `okx_data`. `funding_rate` is what the
    symbol was ranked by, a share of the position; `member` says whether it was in the universe from then on. Instants
    are UTC without a zone, as Qlib's are.

    Raises:
        FileNotFoundError: `data` is no DATA_DIR with rankings in it.
        BadFileError: a file cannot be read, or has rows of another day, or rows twice; a ValueError.
        ValueError: `begin`, `end` or `at` is no instant.
        LookupError: no ranking had been made at the instant.

    """
    days = day_files(data, "universe", "universe", "rankings")
    if at is not None:
        return _in_force(days, instant("at", at))
    first = instant("begin", min(days) if begin is None else begin)
    last = instant("end", pd.Timestamp.max if end is None else end)
    found = _read({day: path for day, path in days.items() if first.date() <= day <= last.date()})
    return found[(found["ranked_time"] >= first) & (found["ranked_time"] < last)].set_index(["ranked_time", "rank"])


def _in_force(days: dict[date, Path], at: pd.Timestamp) -> pd.DataFrame:
    for day in sorted((day for day in days if day <= at.date()), reverse=True):
        found = _read({day: days[day]})
        made = found.loc[found["ranked_time"] <= at, "ranked_time"]
        if len(made):
            return found[found["ranked_time"] == made.max()].set_index("rank")
    raise LookupError(f"no ranking had been made at {at}; the first day with one is {min(days)}")


def _read(files: Mapping[date, Path]) -> pd.DataFrame:
    found = read_days(files, COLUMNS, ["ranked_time", "funding_time"], ["exchange", "ranked_time", "symbol"])
    return found.sort_values(["ranked_time", "rank"], ignore_index=True)
