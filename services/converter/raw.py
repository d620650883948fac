"""Reading the raw days: candles of one symbol, settlements, rankings. polars lives here. I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from services.converter.features import Floats, Ints, Settlements
from shared.dataset import Partition
from shared.events import Candle


@dataclass(frozen=True)
class Candles:
    """Columns of one symbol's candles. opens: Unix ms."""

    opens: Ints
    columns: dict[str, Floats]


def read_candles(root: Path, files: list[Partition], until: datetime) -> Candles:
    """Read the candles of some day files, as far as they open before `until`."""
    frame = (
        _scan(root, files)
        .filter(pl.col("open_time") < until)
        .select(pl.col("open_time").dt.epoch("ms"), *(pl.col(name) for name in Candle.features))
        .collect()
    )
    columns = {name: frame[name].to_numpy().astype(np.float64) for name in Candle.features}
    return Candles(frame["open_time"].to_numpy().astype(np.int64), columns)


def read_settlements(root: Path, files: Iterable[Partition]) -> dict[str, Settlements]:
    """Read the settled funding rates by symbol, each in order of time."""
    chosen = list(files)
    if not chosen:
        return {}
    frame = (
        _scan(root, chosen)
        .select("symbol", pl.col("funding_time").dt.epoch("ms"), "funding_rate")
        .sort("symbol", "funding_time")
        .collect()
    )
    return {
        str(symbol): Settlements(
            part["funding_time"].to_numpy().astype(np.int64), part["funding_rate"].to_numpy().astype(np.float64)
        )
        for (symbol,), part in frame.group_by("symbol", maintain_order=True)
    }


def read_rankings(root: Path, files: Iterable[Partition]) -> list[tuple[datetime, frozenset[str]]]:
    """Read who was a member after each ranking, in order of time; a ranking that nobody won is an empty set."""
    chosen = list(files)
    if not chosen:
        return []
    frame = (
        _scan(root, chosen)
        .group_by("ranked_time")
        .agg(pl.col("symbol").filter(pl.col("member")))
        .sort("ranked_time")
        .collect()
    )
    return [(ranked.astimezone(UTC), frozenset(members)) for ranked, members in frame.iter_rows()]


def _scan(root: Path, files: list[Partition]) -> pl.LazyFrame:
    return pl.scan_parquet([partition.path(root) for partition in files], hive_partitioning=False)
