"""Writes a raw folder column by column, in the writer's layout and schema: for synthetic and for recorded data. I/O.

The writer merges rows as they arrive and syncs every file; a year of a hundred symbols is written whole and once here,
so no file is merged and none is synced.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.units import DAY_MS, MINUTES_PER_DAY
from shared.datasets.candle import Candle
from shared.datasets.ledger import CANDLES, LedgerRow
from shared.datasets.row import Row
from shared.ledger.day import OLD_SETS, SETS
from shared.ledger.minutes import mask_from_minutes, mask_to_text
from shared.storage.layout import Partition
from shared.storage.parquet import arrow_schema

EXCHANGE = "okx"

Columns = Mapping[str, Any]
"""Column → values, or one value for all rows. Times are Unix ms."""


def day_of(milliseconds: int) -> date:
    """Return the UTC day that an instant lies in."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))).date()


def ms_of(day: date) -> int:
    """Return the Unix time of a day's midnight, in ms."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def write_rows(root: Path, kind: type[Row], rows: int, columns: Columns) -> int:
    """Write the rows of a dataset into their day files, sorted as the writer sorts; return how many files.

    Rows must be unique by the dataset's key; of a dataset with a file per symbol all are of one symbol.
    """
    table = _table(kind, rows, columns)
    order = [kind.time, *(name for name in kind.key if name != kind.time)]
    return _write_days(root, kind, table.sort_by([(name, "ascending") for name in order]).combine_chunks())


def write_candles(root: Path, symbol: str, opens: NDArray[np.int64], columns: Columns) -> int:
    """Write one symbol's 1-minute candles, already sorted by open; return how many files."""
    fixed = {"exchange": EXCHANGE, "symbol": symbol, "interval": "1m", "open_time": opens}
    return _write_days(root, Candle, _table(Candle, len(opens), fixed | dict(columns)))


def write_ledger(root: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows of the ledger (`ledger_rows`); return how many files."""
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    return write_rows(root, LedgerRow, len(rows), columns)


def ledger_rows(
    symbol: str, first: date, sets: Mapping[str, NDArray[np.bool_]], *, about: str = CANDLES
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the ledger about a dataset of one symbol. Pure.

    sets: name of a set → one truth value a minute from the midnight of `first` on. A day without a minute in any set
    has no row.
    """
    by_day = {name: minutes.reshape(-1, MINUTES_PER_DAY) for name, minutes in sets.items()}
    for number in range(len(next(iter(by_day.values())))):
        texts = {name: _runs(days[number]) for name, days in by_day.items()}
        if any(texts.values()):
            row = {"exchange": EXCHANGE, "about": about, "symbol": symbol, "day": ms_of(first) + number * DAY_MS}
            yield row | {"version": "1"} | dict.fromkeys((*SETS, *OLD_SETS), "") | texts


def _runs(minutes: NDArray[np.bool_]) -> str:
    if minutes.all():
        return f"0-{MINUTES_PER_DAY - 1}"
    return mask_to_text(mask_from_minutes(np.flatnonzero(minutes).tolist()))


def _table(kind: type[Row], rows: int, columns: Columns) -> pa.Table:
    """Put columns together; one that may be empty and is not given is."""
    schema = arrow_schema(kind)
    arrays = [
        pa.nulls(rows, field.type)
        if field.nullable and field.name not in columns
        else _column(columns[field.name], rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: Any, rows: int, wanted: pa.DataType) -> pa.Array:
    if isinstance(values, str | int | float):
        return pa.repeat(pa.scalar(values, wanted), rows)
    if isinstance(values, pa.Array):
        return values.cast(wanted)
    if pa.types.is_timestamp(wanted):
        return pa.array(values, pa.int64()).cast(pa.timestamp("ms")).cast(wanted)
    return pa.array(values, wanted)


def _write_days(root: Path, kind: type[Row], table: pa.Table) -> int:
    if not table.num_rows:
        return 0
    stamps = table[kind.time].cast(pa.int64()).to_numpy()
    numbers = stamps // DAY_MS
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    symbol = None if kind.file_stem else table["symbol"][0].as_py()
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        path = Partition(kind.dataset, day_of(stamps[start]), symbol).path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, end - start), path, compression="snappy")
    return len(starts)
