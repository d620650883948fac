"""The ledger on disk: one file per UTC day, beside the data it speaks of. I/O.

What is stored is read from the files themselves and remembered with their signatures, so that a start looks only into
files that changed; what the collector found out is added to it.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from services.writer.metrics import DAMAGED
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import LedgerRow, Verdict
from shared.grid import MINUTE, MINUTE_MS, day_start, to_ms
from shared.ledger.day import NOTHING, DayLedger, by_day, from_row, to_row
from shared.ledger.minutes import last_of_mask, mask_from_minutes, span_mask
from shared.storage.files import free_name, replace_text
from shared.storage.layout import Partition, day_folder, partitions, signature
from shared.storage.parquet import read_partition, table_of, write_table
from shared.symbol import Symbol

log = structlog.get_logger()


@dataclass(frozen=True)
class DayRecord:
    """What the ledger knows about one symbol's day."""

    exchange: str
    ledger: DayLedger = NOTHING
    version: str = ""


@dataclass
class Changes:
    """What a batch adds to the ledger."""

    candles: dict[date, dict[str, DayRecord]] = field(default_factory=lambda: defaultdict(dict))
    """Candle files as they are now: they replace what was known of them."""
    settled: dict[date, dict[str, DayRecord]] = field(default_factory=dict)
    """Funding files as they are now, whole: they replace what was known of them."""
    verdicts: dict[date, dict[str, DayRecord]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Add what the collector found out."""
        for verdict in verdicts:
            for day, found in by_day(verdict):
                for symbol in verdict.symbols:
                    before = self.verdicts[day].get(symbol, DayRecord(verdict.exchange))
                    self.verdicts[day][symbol] = replace(before, ledger=before.ledger | found)

    def days(self) -> set[date]:
        """Return the days that change."""
        return {*self.candles, *self.settled, *self.verdicts}


def apply_changes(before: Mapping[str, DayRecord], changes: Changes, day: date) -> dict[str, DayRecord]:
    """Return the symbols of a day that a batch changes, as they are then. Pure."""
    after: dict[str, DayRecord] = {}
    for symbol, file in changes.candles.get(day, {}).items():
        known = before.get(symbol, file)
        stored = replace(known.ledger, received=file.ledger.received, healed=file.ledger.healed)
        after[symbol] = DayRecord(known.exchange, stored, file.version)
    for symbol in {*before, *changes.settled[day]} if day in changes.settled else ():
        file = changes.settled[day].get(symbol, DayRecord(""))
        known = after.get(symbol) or before.get(symbol, DayRecord(file.exchange))
        found = replace(known.ledger, due=known.ledger.due | file.ledger.due, settled=file.ledger.settled)
        after[symbol] = replace(known, ledger=found)
    for symbol, record in changes.verdicts.get(day, {}).items():
        known = after.get(symbol) or before.get(symbol, DayRecord(record.exchange))
        after[symbol] = replace(known, ledger=known.ledger | record.ledger)
    return {symbol: known for symbol, known in after.items() if known != before.get(symbol, DayRecord(known.exchange))}


def update_day(root: Path, changes: Changes, day: date) -> dict[str, DayRecord]:
    """Write what changes on a day durably; return the symbols that changed."""
    before = read_day(root, day)
    after = apply_changes(before, changes, day)
    if after:
        _write_day(root, day, {**before, **after})
    return after


def read_day(root: Path, day: date) -> dict[str, DayRecord]:
    """Return what the file of a day knows; a damaged one is put aside and knows nothing: it is made again."""
    table = read_or_put_aside(root, Partition(LedgerRow.dataset, day))
    rows = [] if table is None else table.to_pylist()
    return {row["symbol"]: DayRecord(row["exchange"], from_row(row), row["version"]) for row in rows}


def _write_day(root: Path, day: date, known: Mapping[str, DayRecord]) -> None:
    rows = [to_row(one.exchange, Symbol(symbol), day, one.ledger, one.version) for symbol, one in sorted(known.items())]
    path = Partition(LedgerRow.dataset, day).path(root)
    make_way(path.parent)
    write_table(path, table_of(LedgerRow, rows))


def scan_day(root: Path, day: date) -> tuple[dict[str, DayRecord], dict[str, DayRecord]]:
    """Bring the ledger of a day in line with the files that are there; return what it knew before, and now.

    Only files whose signature changed are read. A candle file that is gone takes its minutes with it, unless the whole
    day is gone: then the retention did it, and what was known stays.
    """
    known = read_day(root, day)
    changes = Changes()
    there = {file.symbol or "": signature(stat) for file, stat in partitions(root, Candle.dataset, day)}
    for symbol, version in there.items():
        if symbol not in known or known[symbol].version != version:
            changes.candles[day][symbol] = _look_into(root, Partition(Candle.dataset, day, symbol), version)
    if day_folder(root, Candle.dataset, day).exists():
        for symbol in known.keys() - there.keys():
            if known[symbol].version:
                changes.candles[day][symbol] = DayRecord(known[symbol].exchange)
    funding = read_or_put_aside(root, Partition(FundingRate.dataset, day))
    changes.settled[day] = {} if funding is None else settled_of(day, funding)
    return known, known | update_day(root, changes, day)


def changed_since(before: Mapping[str, DayRecord], now: Mapping[str, DayRecord]) -> dict[str, DayRecord]:
    """Return the symbols that are known differently now. Pure."""
    return {symbol: known for symbol, known in now.items() if before.get(symbol) != known}


def _look_into(root: Path, file: Partition, version: str) -> DayRecord:
    table = read_or_put_aside(root, file, ["exchange", "open_time", "source"])
    return stored_of(file, table, version) if table is not None and len(table) else DayRecord("")


def stored_of(file: Partition, table: pa.Table, version: str) -> DayRecord:
    """Return which minutes a candle file holds, by where they came from."""
    minutes = pc.divide(pc.subtract(table["open_time"].cast(pa.int64()), to_ms(day_start(file.day))), MINUTE_MS)
    live = pc.equal(table["source"], "ws")
    received, healed = mask_of(minutes.filter(live)), mask_of(minutes.filter(pc.invert(live)))
    return DayRecord(table["exchange"][0].as_py(), DayLedger(received=received, healed=healed), version)


def settled_of(day: date, table: pa.Table) -> dict[str, DayRecord]:
    """Return at which minutes of a day whose funding was settled."""
    found: dict[str, DayRecord] = {}
    midnight = day_start(day)
    for row in table.select(["exchange", "symbol", "funding_time"]).to_pylist():
        minute = mask_from_minutes([(row["funding_time"] - midnight) // MINUTE])
        before = found.get(row["symbol"], DayRecord(row["exchange"]))
        found[row["symbol"]] = replace(before, ledger=before.ledger | DayLedger(due=minute, settled=minute))
    return found


def mask_of(minutes: pa.ChunkedArray) -> int:
    """Return the mask of the sorted, unique minutes of a day (0..1439)."""
    if not len(minutes):
        return 0
    first, last = minutes[0].as_py(), minutes[-1].as_py()
    if last - first + 1 == len(minutes):  # no hole inside: nearly always
        return span_mask(first, last)
    return mask_from_minutes(minutes.to_pylist())


def newest_of(day: date, ledger: DayLedger) -> datetime | None:
    """Return the open of the newest stored candle of a day."""
    return last_of_mask(day, ledger.stored)


def read_or_put_aside(root: Path, partition: Partition, columns: list[str] | None = None) -> pa.Table | None:
    """Read a file; None where there is none, or where it does not hold what its name says.

    Such a one is put aside under another name, its reason beside it: else everything would wait behind it, for ever.
    What it held counts as missing from then on, and is fetched again.

    Raises `OSError` where the disk refuses: that says nothing about the file.
    """
    path = partition.path(root)
    if not os.path.lexists(path):
        return None
    try:
        return read_partition(root, partition, columns)
    except FileNotFoundError:
        if not path.is_symlink():  # retired meanwhile
            return None
        reason = "a link that leads nowhere"
    except (ValueError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_THE_FILE:
            raise  # pyarrow's own errors about a file's content carry no number
        reason = str(error)
    put_aside(path, reason)
    DAMAGED.labels(partition.dataset).inc()
    return None


_OF_THE_FILE = {errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV}
"""What the system says of something that is no file, or not ours to read: it would stand in the way for ever."""


def make_way(folder: Path) -> None:
    """Put aside what stands where the folder of a day belongs: a file, or a link that leads nowhere."""
    if os.path.lexists(folder) and not folder.is_dir():
        put_aside(folder, "no folder, where the folder of a day belongs")


def put_aside(path: Path, reason: str) -> None:
    """Give something that stands in the way another name, durably, with the reason beside it."""
    aside = free_name(path.with_name(f"{path.name}.damaged"))
    log.error("damaged file put aside", path=str(path), aside=str(aside), error=reason)
    path.replace(aside)
    replace_text(free_name(aside.with_name(f"{aside.name}.txt")), f"{reason}\n")
