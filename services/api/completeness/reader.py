"""The ledger as the api reads it: from the bus as far as it reaches, older days from their files. I/O."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import batched
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from services.api.completeness.days import Day
from shared.bus.bus import Bus
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import LedgerRow
from shared.ledger.day import OLD_SETS, SETS, ByDataset, DayLedger, from_old_sets, from_sets
from shared.ledger.replica import LedgerCopy
from shared.storage.layout import partitions, signature
from shared.storage.parquet import read_rows

log = structlog.get_logger()

_DAYS_AT_ONCE = 31
"""Read at a time: a request that was given up leaves what it has read to the next one."""
_KEPT_DAYS = 400
"""Days of files that are kept in memory: a year and a little."""


class LedgerReader:
    """Caches what was read, and reads only what has changed since."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._copy = LedgerCopy()
        self._days: dict[date, Day] = {}
        self._reading = asyncio.Lock()
        self._files: OrderedDict[date, tuple[str, Day]] = OrderedDict()
        self._files_lock = Lock()

    async def on_bus(self, bus: Bus) -> Mapping[date, Day] | None:
        """Return every day on the bus; None while the writer still scans its disk.

        Raises `BusError`; `ValueError` where the ledger is unreadable.
        """
        async with self._reading:
            if not await bus.ledger_ready():
                self._copy = LedgerCopy()  # Redis lost it: its versions start again, unrelated to ours
                return None
            await self._refresh(bus)
            for day in self._copy.known_days:
                datasets, known = self._copy.of_day(day), self._days.get(day)
                if known is None or not known.is_of(datasets):
                    self._days[day] = Day(day, datasets)
            for day in self._days.keys() - self._copy.known_days:
                del self._days[day]
            return dict(self._days)

    async def _refresh(self, bus: Bus) -> None:
        """Read what has changed, and what was never read in parts, the newest first."""
        unread = sorted((await bus.ledger_versions()).keys() - self._copy.known_days, reverse=True)
        wanted = self._copy.known_days
        for part in [*batched(unread, _DAYS_AT_ONCE)] or [()]:
            wanted.update(part)
            await self._copy.refresh(bus, wanted.__contains__)

    def stored(self, days: Iterable[date]) -> dict[date, Day]:
        """Read the files of some days; a day without one is left out. Blocks: call it in a thread.

        Raises `OSError`, and `ValueError` where a file is unreadable, with its name.
        """
        with self._files_lock:
            found = {day: known for day in days if (known := self._stored(day)) is not None}
            while len(self._files) > _KEPT_DAYS:
                self._files.popitem(last=False)
        return found

    def read_ahead(self, days: Iterable[date]) -> None:
        """Read the files of those days that the bus does not have. Blocks, and raises as `stored`."""
        self.stored(day for day in days if day not in self._days)

    def _stored(self, day: date) -> Day | None:
        for file, stat in partitions(self._data_dir, LedgerRow.dataset, day):
            version, path = signature(stat), file.path(self._data_dir)
            known = self._files.get(day)
            if known is None or known[0] != version:
                known = (version, Day(day, read_day(path)))
            self._files[day] = known
            self._files.move_to_end(day)
            return known[1]
        self._files.pop(day, None)
        return None


_READ = ["about", "symbol", *SETS, *OLD_SETS]
_APART = "|"
"""Stands in no set of minutes, nor in the name of a dataset."""


def read_day(path: Path) -> ByDataset:
    """Read the ledger of a day from its file. Raises `OSError`, and `ValueError` where it is unreadable."""
    try:
        table = read_rows(LedgerRow, path, _READ)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # pyarrow's own errors about a file's content carry no number
        raise ValueError(f"{path.name} is unreadable: {error}") from error
    names = _distinct(table["symbol"])
    symbols = [sys.intern(name) for name in names.dictionary.to_pylist()]
    said = _distinct(pc.binary_join_element_wise(*_texts(table), _APART))
    known = [_said(text, path) for text in said.dictionary.to_pylist()]
    found: ByDataset = {about: {} for about, _, _ in known}
    for symbol, number in zip(names.indices.to_pylist(), said.indices.to_pylist(), strict=True):
        about, ledger, old = known[number]
        found[about][symbols[symbol]] = ledger
        if old is not None:
            found.setdefault(FundingRate.dataset, {}).setdefault(symbols[symbol], old)
    return found


def _distinct(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return the distinct values of a column, and which of them is in each row: most rows of a day are alike."""
    return column.combine_chunks().dictionary_encode()


def _texts(table: pa.Table) -> list[pa.ChunkedArray]:
    """Return everything that a row says of its symbol; a set that the file does not have is empty."""
    return [table[name].fill_null("") for name in ("about", *SETS, *OLD_SETS)]


def _said(text: str, path: Path) -> tuple[str, DayLedger, DayLedger | None]:
    """Return the dataset that a row is about, what it says of it, and what an old row says of funding."""
    about, *sets, due, settled = text.split(_APART)
    if len(sets) != len(SETS):
        raise ValueError(f"{path.name} is unreadable: {text[:100]!r} are no sets of minutes")
    return about, from_sets(*sets), from_old_sets(due or None, settled or None)
