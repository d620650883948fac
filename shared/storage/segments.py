"""Rows that are durable and in no day file yet: small Parquet files that the writer appends and merges later.

    okx_data/_segments/kline_1m/00001743811260123456-9f3a01c2.parquet    rows of any day and symbol
    okx_data/_segments/kline_1m/none.parquet                             no rows: some readers fail where no file is
    okx_data/_wip/                                                       whatever is being written

A segment never changes, and its name never returns. The writer merges segments into the day files and deletes them
then, in this order: so whoever lists and reads the segments first, and the day files after that, misses no row. What
it finds in both is the same row, and merges to one.
"""

import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.grid import DAY, FIRST_DAY, MINUTE_MS, MINUTES_PER_DAY, day_start, to_ms
from shared.storage.files import OF_THE_FILE, fsync_path
from shared.storage.layout import Partition, entries_in, segments_folder, work_folder
from shared.storage.parquet import (
    ContentError,
    merge,
    read_partition,
    read_written,
    table_of,
    write_parquet,
    write_table,
)

_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{8}\.parquet")
_DAY_MS = MINUTES_PER_DAY * MINUTE_MS


@dataclass(frozen=True, order=True)
class Segment:
    """One file of rows of a dataset. Names order by time, as far as the host's clock does."""

    dataset: str
    name: str

    def path(self, root: Path) -> Path:
        """Return where it lies under DATA_DIR."""
        return segments_folder(root, self.dataset) / self.name


def append(root: Path, kind: type[Row], rows: pa.Table) -> Segment:
    """Make rows durable as a new segment, whole or not at all: also its name is when this returns."""
    segment = Segment(kind.dataset, f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet")
    path = segment.path(root)
    new_folder = prepare(root, kind)
    staged = staging_path(root, kind.dataset, path)
    try:
        write_parquet(staged, rows, compression="zstd", dataset=kind.dataset)
        fsync_path(staged)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    for named in [path.parent, *([path.parent.parent, root] if new_folder else [])]:
        fsync_path(named)
    return segment


def staging_path(root: Path, dataset: str, path: Path) -> Path:
    """Return where a file of a dataset is written before it gets its name: outside of all datasets.

    Where its folder leads to another disk, it is written there: a rename stays on its disk. Makes the folders.
    """
    work = work_folder(root)
    for folder in (work, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    folder = work if work.stat().st_dev == path.parent.stat().st_dev else path.parent
    return folder / f".{dataset}.{path.name}.{os.getpid()}.tmp"


def prepare(root: Path, kind: type[Row]) -> bool:
    """Make the folder for the segments of a dataset, and in it the file without rows; return whether it is new."""
    folder = segments_folder(root, kind.dataset)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _NONE).exists():
        write_table(folder / _NONE, table_of(kind, []))
    return is_new


_NONE = "none.parquet"


def segments_of(root: Path, datasets: Iterable[str] = BY_DATASET) -> list[Segment]:
    """Return the segments that there are, in order. Whatever else lies in their folders is none of them."""
    found = []
    for dataset in datasets:
        with entries_in(segments_folder(root, dataset)) as entries:
            found += [Segment(dataset, entry.name) for entry in entries if _NAME.fullmatch(entry.name)]
    return sorted(found)


def read_segment(root: Path, segment: Segment) -> pa.Table:
    """Read a segment and verify that it holds what was written.

    Raises:
        ContentError: it does not.
        FileNotFoundError: it is merged and gone.
        OSError: the disk does not give it, which says nothing about its content.

    """
    return read_written(BY_DATASET[segment.dataset], segment.path(root))


def by_partition(kind: type[Row], rows: pa.Table) -> dict[Partition, pa.Table]:
    """Split rows by the day file that they belong to. Pure; the order of the rows of a file stays."""
    if not rows.num_rows:
        return {}
    days = rows[kind.time].cast(pa.int64()).to_numpy() // _DAY_MS
    symbols = None if kind.file_stem else rows["symbol"].combine_chunks().dictionary_encode()
    if isinstance(symbols, pa.ChunkedArray):
        symbols = symbols.combine_chunks()
    codes = np.zeros(len(days), np.int64) if symbols is None else symbols.indices.to_numpy().astype(np.int64)
    order = np.lexsort((days, codes))
    if (np.diff(order) != 1).any():
        rows, days, codes = rows.take(order), days[order], codes[order]
    cuts = np.flatnonzero((np.diff(days) != 0) | (np.diff(codes) != 0)) + 1
    begins, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(days)]
    names = [None] if symbols is None else symbols.dictionary.to_pylist()
    return {
        Partition(kind.dataset, _day_of(int(days[begin])), names[codes[begin]]): rows.slice(begin, end - begin)
        for begin, end in zip(begins, ends, strict=True)
    }


_FIRST_NUMBER = to_ms(day_start(FIRST_DAY)) // _DAY_MS


def _day_of(number: int) -> date:
    return FIRST_DAY + (number - _FIRST_NUMBER) * DAY


@dataclass
class Pending:
    """What the segments of a dataset hold, kept up with the disk: each is read once, and forgotten once it is gone.

    unreadable: segment → why. The writer puts such a one aside; no one else has to.
    """

    root: Path
    kind: type[Row]
    unreadable: Mapping[Segment, str] = field(default_factory=dict)
    _read: dict[Segment, dict[Partition, pa.Table]] = field(default_factory=dict)

    def refresh(self) -> list[Segment]:
        """Read what is new; return those that were read now."""
        there = segments_of(self.root, [self.kind.dataset])
        self._read = {segment: self._read[segment] for segment in there if segment in self._read}
        unreadable, fresh = {}, []
        for segment in there:
            if segment in self._read:
                continue
            try:
                self._read[segment] = by_partition(self.kind, read_segment(self.root, segment))
            except FileNotFoundError:  # merged meanwhile: its rows are in the day files, which are read after this
                continue
            except (ContentError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
                    raise
                unreadable[segment] = f"{segment.path(self.root)}: {error}"
                continue
            fresh.append(segment)
        self.unreadable = unreadable
        return fresh

    def tables(self) -> dict[Partition, list[pa.Table]]:
        """Return the rows by the day file that they belong to, copies among them, in the order of the segments."""
        found: dict[Partition, list[pa.Table]] = {}
        for _, tables in sorted(self._read.items()):
            for partition, rows in tables.items():
                found.setdefault(partition, []).append(rows)
        return found

    def versions(self) -> dict[Partition, str]:
        """Name, for each day file that the rows belong to, which segments hold rows of it, in order: "one+another"."""
        names: dict[Partition, list[str]] = {}
        for segment, tables in sorted(self._read.items()):
            for partition in tables:
                names.setdefault(partition, []).append(segment.name.removesuffix(".parquet"))
        return {file: "+".join(of) for file, of in names.items()}


@dataclass(frozen=True)
class RawRows:
    """Reads days as they are, whether their rows are in the day file or wait in segments to be merged.

    waiting: the rows of segments, as they were before the first day file is read: then no row is missed.
    """

    root: Path
    waiting: Mapping[Partition, Sequence[pa.Table]] = field(default_factory=dict)

    def read(self, file: Partition, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a day, or some columns: sorted, unique, the newest knowledge.

        Raises as `read_partition` does; `FileNotFoundError` where there is neither a file nor a row.
        """
        names = None if columns is None else list(columns)
        if file not in self.waiting:
            return read_partition(self.root, file, names)
        merged = merge(BY_DATASET[file.dataset], None, pa.concat_tables(self.parts(file)))
        return merged if names is None else merged.select(names)

    def parts(self, file: Partition) -> list[pa.Table]:
        """Return the day file, where there is one, and what waits for it, each by itself. Raises as `read`."""
        waiting = [*self.waiting.get(file, ())]
        try:
            return [read_partition(self.root, file), *waiting]
        except FileNotFoundError:
            if not waiting:
                raise
            return waiting

    def merged(self, file: Partition, stored: pa.Table) -> pa.Table:
        """Merge what waits for a day file into rows that were read of it."""
        waiting = self.waiting.get(file)
        return merge(BY_DATASET[file.dataset], stored, pa.concat_tables(waiting)) if waiting else stored

    def only(self, files: Iterable[Partition]) -> "RawRows":
        """Return the same without what waits of other days: little enough to be sent to another process."""
        return replace(self, waiting={file: self.waiting[file] for file in files if file in self.waiting})


@dataclass
class PendingRows:
    """What the segments of a folder hold, kept up with the disk."""

    root: Path
    _pending: dict[str, Pending] = field(default_factory=dict)

    def refresh(self, kinds: Iterable[type[Row]]) -> None:
        """Read the segments of some datasets that are new."""
        for kind in kinds:
            self._pending.setdefault(kind.dataset, Pending(self.root, kind)).refresh()

    def versions(self, dataset: str) -> dict[Partition, str]:
        """Name which segments hold rows of each day file of a dataset."""
        return self._pending[dataset].versions() if dataset in self._pending else {}

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Return which segments cannot be read, each with the reason."""
        return tuple(why for pending in self._pending.values() for why in pending.unreadable.values())

    def rows(self) -> RawRows:
        """Return a reader of day files, and of what is known to wait for them now."""
        return RawRows(
            self.root, {file: found for pending in self._pending.values() for file, found in pending.tables().items()}
        )
