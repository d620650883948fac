"""Reading the raw days: candles of one symbol, settlements, rankings. polars lives here. I/O."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from services.converter.features import Floats, Ints, Settlements
from shared.dataset import Partition
from shared.events import BY_DATASET, Candle, columns_of


class UnreadableError(ValueError):
    """A raw file that cannot be read; the text names it."""


@dataclass(frozen=True)
class Candles:
    """Columns of one symbol's candles. opens: Unix ms."""

    opens: Ints
    columns: dict[str, Floats]


def read_candles(root: Path, files: list[Partition], until: datetime) -> Candles:
    """Read the candles of some day files, as far as they open before `until`."""
    frame = _read(
        root,
        files,
        lambda rows: rows.filter(pl.col("open_time") < until).select(
            pl.col("open_time").dt.epoch("ms"), *(pl.col(name) for name in Candle.features)
        ),
    )
    columns = {name: frame[name].to_numpy().astype(np.float64) for name in Candle.features}
    return Candles(frame["open_time"].to_numpy().astype(np.int64), columns)


def read_settlements(root: Path, files: Iterable[Partition]) -> dict[str, Settlements]:
    """Read the settled funding rates by symbol, each in order of time."""
    chosen = list(files)
    if not chosen:
        return {}
    frame = _read(
        root,
        chosen,
        lambda rows: rows.select("symbol", pl.col("funding_time").dt.epoch("ms"), "funding_rate").sort(
            "symbol", "funding_time"
        ),
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
    frame = _read(
        root,
        chosen,
        lambda rows: rows.group_by("ranked_time").agg(pl.col("symbol").filter(pl.col("member"))).sort("ranked_time"),
    )
    return [(ranked.astimezone(UTC), frozenset(members)) for ranked, members in frame.iter_rows()]


_POLARS: dict[type, pl.DataType | type[pl.DataType]] = {
    str: pl.String,
    float: pl.Float64,
    int: pl.Int32,
    bool: pl.Boolean,
    datetime: pl.Datetime("ms", "UTC"),
}


def _read(root: Path, files: list[Partition], query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
    """Read files of one dataset as it is declared now: a column that an older file lacks is null there."""
    paths = [partition.path(root) for partition in files]
    columns = columns_of(BY_DATASET[files[0].dataset])
    schema = {name: _POLARS[plain] for name, (plain, _) in columns.items()}
    try:
        rows = pl.scan_parquet(
            paths, hive_partitioning=False, schema=schema, missing_columns="insert", extra_columns="ignore"
        )
        return query(rows).collect()
    except (PolarsError, OSError) as error:
        raise UnreadableError(f"{_first_unreadable(paths)}: {error}") from error


def _first_unreadable(paths: list[Path]) -> Path:
    """Find out which of some files it was: polars does not say."""
    for path in paths:
        try:
            pl.read_parquet(path)
        except (PolarsError, OSError):
            return path
    return paths[0].parent
