"""Where a row lives on disk. The only file that knows the layout of DATA_DIR.

    okx_data/kline_1m/date=2025-04-05/BTC_USDT_20250405.parquet      one file per symbol and UTC day
    okx_data/funding/date=2025-04-05/funding_rates_20250405.parquet  one file per UTC day
    okx_data/top50_symbols.json                                      the current universe
    okx_data/_segments/kline_1m/…                                    new rows, see `shared.storage.segments`
    okx_data/_wip/                                                   files while they are written
    okx_data/_damaged/kline_1m/…                                     what could not be read, each with the reason

Hive folders, so DuckDB, Polars, Spark and pandas read a range with one line and prune by date.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import structlog

from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.grid import FIRST_DAY, LAST_DAY
from shared.symbol import SymbolError, belongs, parse_symbol, suffix_of

log = structlog.get_logger()

_UNIVERSE_FILE = "top50_symbols"
_RANKINGS_FILE = "rankings"
_DAY_FOLDER = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})\Z")


def universe_file(root: Path, exchange: str) -> Path:
    """Return the file that names the members of the universe now: a JSON array of symbols."""
    return root / f"{_UNIVERSE_FILE}{suffix_of(exchange).lower()}.json"


def rankings_file(root: Path, exchange: str) -> Path:
    """Return the file that holds the last rankings, whole."""
    return root / f"{_RANKINGS_FILE}{suffix_of(exchange).lower()}.json"


def segments_folder(root: Path, dataset: str) -> Path:
    """Return the folder of the rows that are in no day file yet.

    It lies outside of the dataset's own, where readers must find whole day files and nothing else.
    """
    return root / "_segments" / dataset


def work_folder(root: Path) -> Path:
    """Return the folder in which files are written before they get their names."""
    return root / "_wip"


def damaged_path(root: Path, path: Path) -> Path:
    """Return where a damaged file is kept that lay at `path`: outside of the dataset, which many readers read whole."""
    return root / "_damaged" / path.parent.relative_to(root) / f"{path.name}.damaged"


class OutsideError(ValueError):
    """A name that would lead out of its folder."""


@dataclass(frozen=True, order=True)
class Partition:
    """One Parquet file: a dataset's rows of one UTC day, of one symbol where the dataset has a file per symbol."""

    dataset: str
    day: date
    symbol: str | None = None

    def path(self, root: Path) -> Path:
        """Return where the file lies under DATA_DIR. Raises `OutsideError` where it would lie elsewhere, or be hidden.

        A file whose symbol cannot be one would be written, and never listed.
        """
        stem = BY_DATASET[self.dataset].file_stem
        if stem is None and not _is_symbol(self.symbol or ""):
            raise OutsideError(f"{(self.symbol or '')[:100]!r} is not the name of a file of {self.dataset}")
        return child(day_folder(root, self.dataset, self.day), f"{stem or self.symbol}_{_compact(self.day)}.parquet")


def child(folder: Path, name: str) -> Path:
    """Return a file of a folder. Raises `OutsideError` where the name is more than a name."""
    if name in {"", ".", ".."} or set(name) & {"/", "\\", "\0"}:
        raise OutsideError(f"{name[:100]!r} is not the name of a file in {folder}")
    return folder / name


def day_folder(root: Path, dataset: str, day: date) -> Path:
    """Return the folder of one UTC day."""
    return root / dataset / f"date={day.isoformat()}"


def _compact(day: date) -> str:
    return day.isoformat().replace("-", "")  # strftime spells the year 999 with three digits


def partition_of(row: Row) -> Partition:
    """Return the file that a row belongs to. Raises `OutsideError` where its symbol is not one of its exchange."""
    if not belongs(row.symbol, row.exchange):
        raise OutsideError(f"{row.symbol[:100]!r} is no symbol of {row.exchange[:100]!r}")
    instant: datetime = getattr(row, row.time)
    return Partition(row.dataset, instant.date(), None if row.file_stem else row.symbol)


def days(root: Path, dataset: str) -> list[date]:
    """Return the days that have a folder, in order."""
    return list(days_with_change(root, dataset))


def days_with_change(root: Path, dataset: str) -> dict[date, int]:
    """Return the days that have a folder, in order, with the time at which a name in it changed last, in ns.

    A link in a circle is no folder, like any other name that leads nowhere.
    """
    found = {}
    with entries_in(root / dataset) as entries:
        for entry in entries:
            day = _day_of(entry.name)
            if day is not None and (status := _stat_of(entry)) is not None and stat.S_ISDIR(status.st_mode):
                found[day] = status.st_mtime_ns
    return dict(sorted(found.items()))


@contextmanager
def entries_in(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Give the entries of a folder: none, where there is no such folder."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        yield iter(())
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        _warn_once(str(folder), error)
        yield iter(())
        return
    with entries:
        yield entries


_WARNED: set[str] = set()


def _warn_once(path: str, error: OSError) -> None:
    """Say once per path that what lies there is left out."""
    if path not in _WARNED:
        _WARNED.add(path)
        log.warning("cannot be looked into, left out", path=path, why=error.strerror)


def _day_of(name: str) -> date | None:
    """Return the day of a folder's name; None for one that is none of ours, such as date=2026-02-30."""
    if (match := _DAY_FOLDER.match(name)) is None:
        return None
    try:
        day = date.fromisoformat(match[1])
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None


def _stat_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Look at an entry; None where it is gone meanwhile, or is a link that leads nowhere."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_once(entry.path, error)
        return None


def partitions(root: Path, dataset: str, day: date) -> Iterator[tuple[Partition, os.stat_result]]:
    """Yield the files of one day with their stat.

    Temporary and foreign files are not among them; a folder under the name of a file is, and cannot be read.
    """
    stem = BY_DATASET[dataset].file_stem
    suffix = f"_{_compact(day)}.parquet"
    with entries_in(day_folder(root, dataset, day)) as entries:
        for entry in entries:
            name = entry.name.removesuffix(suffix)
            ours = name != entry.name and (name == stem if stem is not None else _is_symbol(name))
            if ours and (status := _stat_of(entry)) is not None:
                yield Partition(dataset, day, name if stem is None else None), status


def _is_symbol(name: str) -> bool:
    try:
        parse_symbol(name)
    except SymbolError:
        return False
    return True


def signature(status: os.stat_result) -> str:
    """Name one version of a file: it differs after every atomic replace."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
