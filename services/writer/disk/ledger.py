"""The ledger on disk: one file per UTC day, beside the data it speaks of. I/O.

What is stored is read from the files themselves and remembered with their signatures, so that a start looks only into
files that changed; what the collector found out is added to it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import structlog

from services.writer.disk.stored import Border, border_of, columns_of_rule, instants, minutes, unbroken
from services.writer.metrics import DAMAGED
from shared.datasets.channel import DueInstants, EveryMinute, Sequence
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET, COMPLETENESS
from shared.exchanges.registry import EXCHANGES
from shared.ledger.day import NOTHING, ByDataset, DayLedger, from_row, to_row
from shared.ledger.minutes import last_of_mask
from shared.storage.files import OF_THE_FILE, free_name, fsync_path, replace_text
from shared.storage.layout import Partition, damaged_path, day_folder, partitions, signature
from shared.storage.parquet import read_partition, table_of, version_of, write_table
from shared.storage.versions import signature_in
from shared.symbol import Symbol, belongs

log = structlog.get_logger()


class Key(NamedTuple):
    """Whose day it is."""

    dataset: str
    symbol: str


@dataclass(frozen=True)
class DayRecord:
    """What the ledger knows about a dataset's day of one symbol."""

    exchange: str
    ledger: DayLedger = NOTHING
    version: str = ""


type Records = dict[Key, DayRecord]
type ByDay = dict[date, Records]


def unite(found: ByDay, added: Mapping[date, Records]) -> None:
    """Add to what is known of some days."""
    for day, records in added.items():
        known = found.setdefault(day, {})
        for key, one in records.items():
            known[key] = united(known.get(key), one)


def united(known: DayRecord | None, added: DayRecord) -> DayRecord:
    """Return a record with what another one adds to it; it stays that of the same file."""
    if known is None:
        return added
    return replace(known, exchange=known.exchange or added.exchange, ledger=known.ledger | added.ledger)


@dataclass
class Changes:
    """What a batch adds to the ledger."""

    files: dict[date, Records] = field(default_factory=lambda: defaultdict(dict))
    """What files hold now: it replaces what was known to be stored."""
    shared: dict[date, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Datasets among them whose one file holds all symbols: of one that `files` does not name, nothing is stored."""
    verdicts: dict[date, Records] = field(default_factory=lambda: defaultdict(dict))

    def add_file(self, file: Partition, records: Records) -> None:
        """Add what a file holds now."""
        self.files[file.day] |= records
        if file.symbol is None:
            self.shared[file.day].add(file.dataset)

    def days(self) -> set[date]:
        """Return the days that change."""
        return {*self.files, *self.verdicts}


def apply_changes(before: Mapping[Key, DayRecord], changes: Changes, day: date) -> Records:
    """Return the records of a day that a batch changes, as they are then. Pure."""
    files, shared = changes.files.get(day, {}), changes.shared.get(day, set())
    emptied = {key: DayRecord(known.exchange) for key, known in before.items() if key.dataset in shared}
    after: Records = {}
    for key, file in (emptied | files).items():
        known = before.get(key, file)
        stored = replace(known.ledger, received=file.ledger.received, healed=file.ledger.healed)
        after[key] = DayRecord(known.exchange, replace(stored, wanted=stored.wanted | file.ledger.wanted), file.version)
    for key, record in changes.verdicts.get(day, {}).items():
        known = after.get(key) or before.get(key, DayRecord(record.exchange))
        after[key] = replace(known, ledger=known.ledger | record.ledger)
    return {key: known for key, known in after.items() if known != before.get(key, DayRecord(known.exchange))}


def update_day(root: Path, changes: Changes, day: date) -> Records:
    """Write what changes on a day durably; return the records that changed."""
    before = read_day(root, day)
    after = apply_changes(before, changes, day)
    if after:
        _write_day(root, day, {**before, **after})
    return after


def read_day(root: Path, day: date) -> Records:
    """Return what the file of a day knows; a damaged one is put aside and knows nothing: it is made again."""
    table = read_or_put_aside(root, Partition(LedgerRow.dataset, day))
    found: Records = {}
    for row in [] if table is None else table.to_pylist():
        for about, ledger in from_row(row):
            key, own = Key(about, row["symbol"]), about == row["about"]
            if own or key not in found:  # what an old row says of funding yields to a row of its own
                found[key] = DayRecord(row["exchange"], ledger, row["version"] if own else "")
    return found


def ledger_version(root: Path, day: date) -> str | None:
    """Return the version of a day's ledger; None where there is none, or no file."""
    try:
        return signature(Partition(LedgerRow.dataset, day).path(root).stat())
    except OSError:
        return None


def add_verdicts(root: Path, day: date, books: ByDataset) -> Records:
    """Add what was found out of a day, without what was stored, which the data files say; return what has changed."""
    changes = Changes()
    for about, symbols in books.items():
        for symbol, known in symbols.items():
            exchange = next((name for name in EXCHANGES if belongs(symbol, name)), "")
            verdicts = known.without_stored()
            if exchange and verdicts != NOTHING:
                changes.verdicts[day][Key(about, symbol)] = DayRecord(exchange, verdicts)
    return update_day(root, changes, day)


def _write_day(root: Path, day: date, known: Mapping[Key, DayRecord]) -> None:
    rows = [
        to_row(one.exchange, Symbol(symbol), day, one.ledger, one.version, about=about)
        for (about, symbol), one in sorted(known.items())
    ]
    path = Partition(LedgerRow.dataset, day).path(root)
    make_way(root, path.parent)
    write_table(path, table_of(LedgerRow, rows))


def scan_day(root: Path, day: date) -> tuple[Records, Records]:
    """Bring the ledger of a day in line with the files that are there; return what it knew before, and now."""
    known = read_day(root, day)
    changes = Changes()
    for dataset in COMPLETENESS:
        if BY_DATASET[dataset].file_stem is None:
            _scan_files(root, day, dataset, known, changes)
        else:
            _scan_shared_file(root, Partition(dataset, day), changes)
    return known, known | update_day(root, changes, day)


def _scan_files(root: Path, day: date, dataset: str, known: Records, changes: Changes) -> None:
    """Read the files of a dataset with one for each symbol, as far as their signature changed.

    A file that is gone takes its minutes with it, unless the whole day is gone: then the retention did it, and what was
    known stays.
    """
    there = {file.symbol or "": (file, stat) for file, stat in partitions(root, dataset, day)}
    for symbol, (file, stat) in there.items():
        key = Key(dataset, symbol)
        if key not in known or signature_in(known[key].version) != signature(stat):
            version = version_of(file.path(root), stat)
            table = read_or_put_aside(root, file, columns_of_rule(dataset))
            changes.add_file(file, {key: DayRecord("")} if table is None else record_of(root, file, table, version))
    if day_folder(root, dataset, day).exists():
        for key in [key for key in known if key.dataset == dataset and key.symbol not in there]:
            if known[key].version:
                changes.files[day][key] = DayRecord(known[key].exchange)


def _scan_shared_file(root: Path, file: Partition, changes: Changes) -> None:
    table = read_or_put_aside(root, file, columns_of_rule(file.dataset))
    changes.add_file(file, {} if table is None else record_of(root, file, table, ""))


def changed_since(before: Mapping[Key, DayRecord], now: Mapping[Key, DayRecord]) -> Records:
    """Return the records that are known differently now. Pure."""
    return {key: known for key, known in now.items() if before.get(key) != known}


type Read = Callable[[Partition, list[str]], pa.Table | None]
"""Returns some columns of what is stored of a day; None where nothing is."""


def record_of(root: Path, file: Partition, table: pa.Table, version: str, read: Read | None = None) -> Records:
    """Return what a file holds, as the completeness of its dataset counts it.

    version: of the file. read: how the days beside it are read, by default from their files.
    """
    read = read or partial(read_or_put_aside, root)
    rule = COMPLETENESS[file.dataset]
    match rule:
        case EveryMinute():
            found = minutes(file, table)
        case DueInstants():
            found = instants(file, table)
        case Sequence():
            found = unbroken(file, table, rule.number, _border(read, file, rule, -1), _border(read, file, rule, +1))
    version = version if file.symbol is not None else ""
    return {Key(file.dataset, one.symbol): DayRecord(one.exchange, one.ledger, version) for one in found}


def neighbours(file: Partition) -> list[Partition]:
    """Return the days beside one of numbered rows, whose minutes depend on it: a run of numbers goes over midnight."""
    return [replace(file, day=file.day + timedelta(days=side)) for side in (-1, 1)]


def _border(read: Read, file: Partition, rule: Sequence, side: Literal[-1, 1]) -> Border | None:
    """Return the row of the neighbouring day that is next to this one, where it is stored."""
    neighbour = replace(file, day=file.day + timedelta(days=side))
    table = read(neighbour, columns_of_rule(file.dataset))
    return None if table is None else border_of(BY_DATASET[file.dataset].time, table, rule.number, last=side < 0)


def newest_of(day: date, ledger: DayLedger) -> datetime | None:
    """Return the open of the newest stored minute of a day."""
    return last_of_mask(day, ledger.stored)


def read_or_put_aside(root: Path, partition: Partition, columns: list[str] | None = None) -> pa.Table | None:
    """Read a file; None where there is none, or where it does not hold what its name says.

    Such a one is put aside under another name, its reason beside it: else everything would wait behind it, for ever.
    What it held counts as missing from then on, and is fetched again.

    Raises `OSError` where the disk refuses: that says nothing about the file.
    """
    path = partition.path(root)
    return readable(root, path, partition.dataset, partial(read_partition, root, partition, columns))


def readable(root: Path, path: Path, dataset: str, read: Callable[[], pa.Table]) -> pa.Table | None:
    """Return what `read` makes of a file; else as `read_or_put_aside`."""
    if not os.path.lexists(path):
        return None
    try:
        return read()
    except FileNotFoundError:
        if not path.is_symlink():  # retired meanwhile
            return None
        reason = "a link that leads nowhere"
    except (ValueError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in OF_THE_FILE:
            raise  # pyarrow's own errors about a file's content carry no number
        reason = str(error)
    put_aside(root, path, reason)
    DAMAGED.labels(dataset).inc()
    return None


def make_way(root: Path, folder: Path) -> None:
    """Put aside what stands where a folder of ours belongs: a file, or a link that leads nowhere."""
    if os.path.lexists(folder) and not folder.is_dir():
        put_aside(root, folder, "no folder, where a folder belongs")


def put_aside(root: Path, path: Path, reason: str) -> None:
    """Move something that stands in the way out of it, durably, with the reason beside it."""
    aside = free_name(damaged_path(root, path))
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.replace(aside)
    except OSError:  # it lies on another disk, or what is in the way there is no folder
        aside = free_name(path.with_name(f"_{path.name}.damaged"))
        path.replace(aside)
    log.error("damaged file put aside", path=str(path), aside=str(aside), error=reason)
    fsync_path(aside.parent)
    replace_text(free_name(aside.with_name(f"{aside.name}.txt")), f"{reason}\n")
