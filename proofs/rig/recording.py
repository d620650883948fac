"""A recording as the judge reads it: candles_1m.parquet and funding.parquet → arrays by symbol.

It shares no code with the simulator that replays the recording nor with the services that carry it to Qlib: what is
compared in the end must not have passed through one common mistake.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.units import MINUTE_MS

PRICES_AND_VOLUME = ("open", "high", "low", "close", "volume")
_QUOTES = ("USDT", "USDC", "USD")


class UnusableRecordingError(Exception):
    """The folder holds no recording; the text says what is missing and what is expected."""


@dataclass(frozen=True)
class Recorded:
    """One symbol: opens in Unix ms, ascending and unique, and the recorded values."""

    opens: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    settled_times: NDArray[np.int64]
    settled_rates: NDArray[np.float64]


def symbol_in_qlib(name: str) -> str:
    """Return our name of a recorded symbol: ADA, ADAUSDT, ADA/USDT:USDT, ADA-USDT-SWAP and ADA_USDT are ADA_USDT."""
    bare = re.sub(r"([:].*|-SWAP|[-_]PERP)$", "", name.strip().upper())
    parts = [part for part in re.split(r"[/\-_]", bare) if part]
    if len(parts) > 1:
        return "_".join(parts)
    for quote in _QUOTES:
        if bare.endswith(quote) and len(bare) > len(quote):
            return f"{bare.removesuffix(quote)}_{quote}"
    return f"{bare}_USDT"


def read_recording(folder: Path) -> dict[str, Recorded]:
    """Read a recording by symbol. Of two rows for the same minute the later one in the file counts.

    Raises `UnusableRecordingError`.
    """
    candles = _read(folder / "candles_1m.parquet", ("symbol", "timestamp", *PRICES_AND_VOLUME))
    funding = _read(folder / "funding.parquet", ("symbol", "timestamp", "funding_rate"))
    # A candle belongs to the minute that its time lies in.
    candle_ms, funding_ms = (
        _milliseconds(candles["timestamp"]) // MINUTE_MS * MINUTE_MS,
        _milliseconds(funding["timestamp"]),
    )
    # Exchanges stamp settlements some milliseconds late; the settlement itself is on the minute.
    funding_ms = (funding_ms + MINUTE_MS // 2) // MINUTE_MS * MINUTE_MS
    found = {}
    funding_names = _names(funding)
    for name, rows in _rows_by_name(_names(candles)).items():
        opens, keep = _last_of_each(candle_ms[rows])
        values = {field: candles[field].to_numpy().astype(np.float64)[rows][keep] for field in PRICES_AND_VOLUME}
        settled = np.flatnonzero(funding_names == name)
        times, kept = _last_of_each(funding_ms[settled])
        rates = funding["funding_rate"].to_numpy().astype(np.float64)[settled][kept]
        found[name] = Recorded(opens, values, times, rates)
    if not found:
        raise UnusableRecordingError(f"{folder / 'candles_1m.parquet'} holds no rows")
    return found


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    if not path.exists():
        raise UnusableRecordingError(f"{path} is not there: a recording is a folder with this file")
    schema = pq.read_schema(path)
    if missing := [name for name in columns if name not in schema.names]:
        raise UnusableRecordingError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(schema.names)}")
    return pq.read_table(path, columns=list(columns))


def _milliseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return Unix ms of timestamps of any unit, or of integers in s, ms, us or ns (recognised by their size)."""
    if pa.types.is_timestamp(column.type):
        naive = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
        return np.asarray(naive.to_numpy() // 1_000_000, np.int64)
    numbers = column.cast(pa.int64()).to_numpy().astype(np.int64)
    if not len(numbers):
        return np.zeros(0, np.int64)
    digits = len(str(int(np.max(np.abs(numbers)))))
    scale = {10: (1000, 1), 13: (1, 1), 16: (1, 1000), 19: (1, 1_000_000)}
    if digits not in scale:
        raise UnusableRecordingError(f"timestamps of {digits} digits are neither s, ms, us nor ns")
    times, divided_by = scale[digits]
    return np.asarray(numbers * times // divided_by, np.int64)


def _names(table: pa.Table) -> NDArray[np.str_]:
    encoded = pc.dictionary_encode(table["symbol"].cast(pa.string())).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    names = np.array([symbol_in_qlib(name) for name in encoded.dictionary.to_pylist()], dtype=object)
    return np.asarray(names[encoded.indices.to_numpy()]) if len(names) else names


def _rows_by_name(names: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    return {str(name): np.flatnonzero(names == name) for name in sorted(set(names))}


def _last_of_each(times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the distinct times in order, and for each the index of its last row."""
    backwards, first = np.unique(times[::-1], return_index=True)
    return backwards, len(times) - 1 - first
