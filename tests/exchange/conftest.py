"""Recordings made for the tests: two days of a few instruments with everything that recordings have in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MINUTE = 60_000
HOUR = 60 * MINUTE
BEGIN = 1_748_736_000_000  # 2025-06-01T00:00Z
MINUTES = 36 * 60
END = BEGIN + MINUTES * MINUTE


@dataclass
class Recording:
    """A folder, and what was put into it: rows by instId and time."""

    folder: Path
    candles: dict[str, dict[int, tuple[float, ...]]]
    funding: dict[str, dict[int, float]]


def walk(price: float, decimals: int, minutes: int, seed: int, quiet: float = 0.05) -> list[tuple[float, ...]]:
    """Make rows of open, high, low, close, volume."""
    dice = np.random.default_rng(seed)
    traded = dice.random(minutes) > quiet
    levels = np.round(price * np.exp(np.cumsum(dice.normal(0, 1e-3, minutes + 1) * np.append(False, traded))), decimals)
    high = np.round(np.maximum(levels[:-1], levels[1:]) * np.where(traded, 1.0007, 1), decimals)
    low = np.round(np.minimum(levels[:-1], levels[1:]) * np.where(traded, 0.9993, 1), decimals)
    volume = np.round(dice.lognormal(8, 2, minutes), 3) * traded
    return list(zip(*(column.tolist() for column in (levels[:-1], high, low, levels[1:], volume)), strict=True))


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Recording:
    """ADA complete; PEPE tiny prices, a gap, duplicates; LATE listed late; GONE ends early; quiet rows everywhere."""
    shapes = {
        "ADA_USDT": (0.7, 4, 0, MINUTES),
        "1000PEPEUSDT": (0.00000123, 10, 0, MINUTES),
        "LATE/USDT:USDT": (12.5, 3, 34 * 60, MINUTES),
        "GONE-USDT-SWAP": (70_000.0, 1, 0, 34 * 60 + 30),
    }
    inst_ids = dict(zip(shapes, ("ADA", "1000PEPE", "LATE", "GONE"), strict=True))
    candles: dict[str, dict[int, tuple[float, ...]]] = {}
    rows: list[tuple] = []
    for seed, (symbol, (price, decimals, first, last)) in enumerate(shapes.items()):
        made = walk(price, decimals, last - first, seed)
        times = [BEGIN + (first + index) * MINUTE for index in range(len(made))]
        kept = {time: row for time, row in zip(times, made, strict=True) if not _in_gap(symbol, time)}
        candles[f"{inst_ids[symbol]}-USDT-SWAP"] = kept
        rows += [(symbol, time, *row) for time, row in kept.items()]
    # A first version of some rows, before the row that counts, and everything out of order.
    rows = [(row[0], row[1], *(value * 2 for value in row[2:])) for row in rows[100:150]] + rows
    order = np.random.default_rng(7).permutation(np.arange(50, len(rows)))
    rows = rows[:50] + [rows[index] for index in order]
    folder = tmp_path_factory.mktemp("recording")
    write(folder / "candles_1m.parquet", ("symbol", "timestamp", "open", "high", "low", "close", "volume"), rows)
    funding = {
        "ADA-USDT-SWAP": dict(zip(range(BEGIN, END, 8 * HOUR), (1e-4, -2.5e-5, 3.75e-3, 1.234e-06, 0.0), strict=True)),
        # From 8 h to 4 h on the way.
        "1000PEPE-USDT-SWAP": {
            BEGIN + hour * HOUR: 0.0001 * (index - 3) for index, hour in enumerate((0, 8, 16, 20, 24, 28, 32, 36))
        },
        "GONE-USDT-SWAP": {BEGIN + 8 * HOUR: 0.0125},
    }
    settled = [
        (inst_id.removesuffix("-SWAP").replace("-", "_"), time + jitter, rate)
        for inst_id, rates in funding.items()
        for jitter, (time, rate) in zip((0, 1, 3, 2, 0, 13, 1, 0), rates.items(), strict=False)
    ]
    settled.append(("NOCANDLES", BEGIN, 0.5))
    write(folder / "funding.parquet", ("symbol", "timestamp", "funding_rate"), settled)
    return Recording(folder, candles, funding)


def _in_gap(symbol: str, time: int) -> bool:
    return symbol == "1000PEPEUSDT" and 35 * HOUR + 10 * MINUTE <= time - BEGIN < 35 * HOUR + 14 * MINUTE


def write(path: Path, names: tuple[str, ...], rows: list[tuple], timestamp: pa.DataType | None = None) -> None:
    """Write rows as Parquet; the time column in any type."""
    table = pa.table(dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True)))
    index = names.index("timestamp")
    table = table.set_column(index, "timestamp", table["timestamp"].cast(timestamp or pa.timestamp("ms", "UTC")))
    pq.write_table(table, path)
