"""Which minutes does a file hold? As the completeness of its dataset counts them. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.datasets.channel import Sequence
from shared.datasets.registry import BY_DATASET, COMPLETENESS
from shared.grid import MINUTE, MINUTE_MS, MINUTES_PER_DAY, day_start, to_ms
from shared.ledger.day import DayLedger
from shared.ledger.minutes import mask_from_minutes, span_mask
from shared.storage.layout import Partition

type Ints = NDArray[np.int64]


class Stored(NamedTuple):
    """The minutes of one symbol."""

    exchange: str
    symbol: str
    ledger: DayLedger


class Border(NamedTuple):
    """The row of a neighbouring day that is next to this one."""

    number: int
    ms: int


def columns_of_rule(dataset: str) -> list[str]:
    """Return the columns that say which minutes a file of a dataset holds."""
    rule = COMPLETENESS[dataset]
    numbered = [rule.number] if isinstance(rule, Sequence) else []
    return ["exchange", "symbol", BY_DATASET[dataset].time, "source", *numbered]


def minutes(file: Partition, table: pa.Table) -> Iterator[Stored]:
    """Yield the minutes of rows of one symbol, one a minute; copies are counted once for each source."""
    opens = _numbers(table[BY_DATASET[file.dataset].time].cast(pa.int64()))
    numbers = (opens - to_ms(day_start(file.day))) // MINUTE_MS
    live = pc.equal(table["source"], "ws").to_numpy()
    ledger = DayLedger(received=mask_of(numbers[live]), healed=mask_of(numbers[~live]))
    yield Stored(table["exchange"][0].as_py(), table["symbol"][0].as_py(), ledger)


def instants(file: Partition, table: pa.Table) -> Iterator[Stored]:
    """Yield, for every symbol of a file, the minutes of its rows: what is stored was due.

    A row may be stamped some milliseconds late: it counts for its minute.
    """
    found: dict[tuple[str, str], DayLedger] = {}
    time, midnight = BY_DATASET[file.dataset].time, day_start(file.day)
    for row in table.select(["exchange", "symbol", time, "source"]).to_pylist():
        minute = mask_from_minutes([(row[time] - midnight) // MINUTE])
        live = row["source"] == "ws"
        fresh = DayLedger(wanted=minute, received=minute if live else 0, healed=0 if live else minute)
        key = row["exchange"], row["symbol"]
        found[key] = found.get(key, DayLedger()) | fresh
    return (Stored(exchange, symbol, ledger) for (exchange, symbol), ledger in found.items())


def unbroken(
    file: Partition, table: pa.Table, number: str, before: Border | None, after: Border | None
) -> Iterator[Stored]:
    """Yield the minutes of which the numbers prove that no row is missing, also those without a row. One symbol.

    In a run of numbers without a hole, every minute between that of its first row and that of its last is whole; these
    two are not, for want of a neighbour. before, after: the rows of the neighbouring days, where there are any.
    """
    time, midnight = BY_DATASET[file.dataset].time, to_ms(day_start(file.day))
    numbers, stamps = _numbers(table[number]), _numbers(table[time].cast(pa.int64()))
    rest = pc.invert(pc.equal(table["source"], "ws")).to_numpy()
    healed = mask_from_minutes(np.unique((stamps[rest] - midnight) // MINUTE_MS).tolist())
    borders = [border for border in (before, after) if border is not None]
    numbers = np.concatenate([numbers, np.array([border.number for border in borders], np.int64)])
    stamps = np.concatenate([stamps, np.array([border.ms for border in borders], np.int64)])
    order = np.argsort(numbers, kind="stable")
    whole = whole_minutes(numbers[order], (stamps[order] - midnight) // MINUTE_MS)
    ledger = DayLedger(received=whole & ~healed, healed=whole & healed)
    yield Stored(table["exchange"][0].as_py(), table["symbol"][0].as_py(), ledger)


def whole_minutes(numbers: Ints, minutes: Ints) -> int:
    """Return the minutes of a day that lie inside of a run of numbers. minutes: may lie outside of the day."""
    ends = np.flatnonzero(np.diff(numbers) != 1)
    firsts, lasts = minutes[np.append(0, ends + 1)], minutes[np.append(ends, len(numbers) - 1)]
    mask = 0
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        mask |= span_mask(max(0, first + 1), min(MINUTES_PER_DAY, last) - 1)
    return mask


def border_of(time: str, table: pa.Table, number: str, *, last: bool) -> Border:
    """Return the row of a file with the highest number, or with the lowest."""
    numbers = _numbers(table[number])
    at = int(numbers.argmax() if last else numbers.argmin())
    return Border(int(numbers[at]), int(_numbers(table[time].cast(pa.int64()))[at]))


def _numbers(column: pa.ChunkedArray) -> Ints:
    found: Ints = column.to_numpy().astype(np.int64)
    return found


def mask_of(minutes: Ints) -> int:
    """Return the mask of some minutes of a day (0..1439)."""
    bits = np.zeros(MINUTES_PER_DAY, np.bool_)
    bits[minutes] = True
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
