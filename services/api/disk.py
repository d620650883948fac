"""What is on disk: the raw files of DATA_DIR and the Qlib data of QLIB_DIR, by names, sizes, first and last lines."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pydantic import BaseModel, Field

from shared.datasets.registry import BY_DATASET
from shared.storage.layout import days, partitions
from shared.storage.qlib_layout import ALL, BIN_NAME, FUTURE, LISTS, calendars_of, features_of, market_path
from shared.storage.segments import segments_of

FRESH_SECONDS = 10.0
"""For how long a scan is reused: data changes once a minute, and a scan reads the sizes of some ten thousand files."""


class RawDataset(BaseModel):
    """One dataset of DATA_DIR."""

    dataset: str
    first_day: date | None = Field(description="First UTC day that has a file")
    last_day: date | None = Field(description="Last UTC day that has a file")
    days: int = Field(description="UTC days that have a file")
    files: int
    bytes: int
    waiting_files: int = Field(default=0, description="Segments of new rows that are not in day files yet")
    waiting_bytes: int = Field(default=0, description="Their bytes")
    symbols: int | None = Field(description="Symbols that have a file; null where a file holds all symbols of a day")


class QlibFrequency(BaseModel):
    """The bars of one frequency."""

    frequency: str
    first_bar: str | None = Field(description="First instant of the calendar, as Qlib reads it (UTC)")
    last_bar: str | None = Field(description="Last instant of the calendar: bars up to here are complete")
    bars: int = Field(description="Instants of the calendar")
    symbols: int = Field(description="Symbols that have bars of this frequency")
    bytes: int = Field(description="Bytes of the bins")


class QlibData(BaseModel):
    """The provider folder of Qlib."""

    symbols: int = Field(description="Symbols in instruments/all.txt, delisted ones included")
    frequencies: list[QlibFrequency]


class Space(BaseModel):
    """How full the disk of a folder is."""

    setting: str = Field(description="Setting that names the folder")
    folder: str
    device: int = Field(description="Folders with the same number share a disk")
    free_bytes: int = Field(description="What the services may still use")
    total_bytes: int


class Disk(BaseModel):
    """Everything on disk."""

    raw: list[RawDataset]
    qlib: QlibData
    spaces: list[Space]


def scan(data_dir: Path, qlib_dir: Path) -> Disk:
    """Scan both folders; what is not there counts as empty. Raises `OSError` where a folder may not be read."""
    return Disk(
        raw=[raw_dataset(data_dir, dataset) for dataset in BY_DATASET],
        qlib=QlibData(symbols=_symbols(market_path(qlib_dir, ALL)), frequencies=qlib_frequencies(qlib_dir)),
        spaces=spaces(data_dir, qlib_dir),
    )


def spaces(data_dir: Path, qlib_dir: Path) -> list[Space]:
    """Return how full the disks of both folders are. Raises `OSError` where that cannot be read."""
    return [space("DATA_DIR", data_dir), space("QLIB_DIR", qlib_dir)]


def space(setting: str, folder: Path) -> Space:
    """Return how full the disk of a folder is, or of the one that it would be made in."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = os.statvfs(there)
    free, used = usage.f_bavail * usage.f_frsize, (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    return Space(
        setting=setting,
        folder=str(folder),
        device=there.stat().st_dev,
        free_bytes=free,
        total_bytes=free + used,
    )


def raw_dataset(root: Path, dataset: str) -> RawDataset:
    """Sum up one dataset; days whose folder is empty do not count."""
    found: list[date] = []
    sizes: list[int] = []
    symbols: set[str] = set()
    for day in days(root, dataset):
        files = list(partitions(root, dataset, day))
        if files:
            found.append(day)
        sizes += [stat.st_size for _, stat in files]
        symbols |= {partition.symbol for partition, _ in files if partition.symbol is not None}
    waiting = _sizes_of(segment.path(root) for segment in segments_of(root, [dataset]))
    return RawDataset(
        dataset=dataset,
        first_day=found[0] if found else None,
        last_day=found[-1] if found else None,
        days=len(found),
        files=len(sizes),
        bytes=sum(sizes),
        waiting_files=len(waiting),
        waiting_bytes=sum(waiting),
        symbols=len(symbols) if BY_DATASET[dataset].file_stem is None else None,
    )


def _sizes_of(paths: Iterable[Path]) -> list[int]:
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # merged meanwhile
            found.append(path.stat().st_size)
    return found


def qlib_frequencies(root: Path) -> list[QlibFrequency]:
    """Sum up every frequency that has a calendar, the finest first."""
    sizes, symbols = _bins(features_of(root))
    found = []
    for path in calendars_of(root).glob(LISTS):
        frequency = path.stem
        if frequency.endswith(FUTURE) or path.name.startswith("."):
            continue
        first, last, bars = calendar_span(path)
        found.append(
            QlibFrequency(
                frequency=frequency,
                first_bar=first,
                last_bar=last,
                bars=bars,
                symbols=symbols[frequency],
                bytes=sizes[frequency],
            )
        )
    return sorted(found, key=lambda frequency: (-frequency.bars, frequency.frequency))


def calendar_span(path: Path) -> tuple[str | None, str | None, int]:
    """Return the first line, the last line and the number of lines of a calendar, from its ends alone.

    Every line of a calendar is equally long, so the number follows from the size, whatever the history.
    """
    with path.open("rb") as calendar:
        first = calendar.readline()
        if not first.strip():
            return None, None, 0
        width = len(first.rstrip(b"\n")) + 1
        size = calendar.seek(0, os.SEEK_END)
        calendar.seek(max(0, size - width - 1))
        last = calendar.read().rstrip(b"\n").rsplit(b"\n", 1)[-1]
    return first.decode().strip(), last.decode().strip(), (size + 1) // width


def _bins(features: Path) -> tuple[Counter[str], Counter[str]]:
    """Return the bytes of all bins, and the number of symbols that have one, by frequency."""
    sizes: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    with suppress(FileNotFoundError):
        for folder in os.scandir(features):
            if not folder.name.startswith(".") and folder.is_dir():
                symbols.update(_add_bins(folder.path, sizes))
    return sizes, symbols


def _add_bins(folder: str, sizes: Counter[str]) -> set[str]:
    frequencies = set()
    for entry in os.scandir(folder):
        if match := BIN_NAME.fullmatch(entry.name):
            with suppress(FileNotFoundError):
                sizes[match["frequency"]] += entry.stat().st_size
                frequencies.add(match["frequency"])
    return frequencies


def _symbols(instruments: Path) -> int:
    with suppress(FileNotFoundError):
        lines = instruments.read_text(encoding="utf-8").splitlines()
        return len({line.split("\t", 1)[0] for line in lines if line.strip()})
    return 0


@dataclass
class DiskReader:
    """Scans in a thread, one at a time, and reuses a fresh result."""

    data_dir: Path
    qlib_dir: Path
    _disk: Disk | None = None
    _scanned: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> Disk:
        """Return what is on disk, at most `FRESH_SECONDS` old. Raises `OSError`."""
        async with self._lock:
            if self._disk is None or time.monotonic() - self._scanned > FRESH_SECONDS:
                self._disk = await asyncio.to_thread(scan, self.data_dir, self.qlib_dir)
                self._scanned = time.monotonic()
            return self._disk
