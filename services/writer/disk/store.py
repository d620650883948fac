"""The raw folder as the writer works on it: rows are appended as segments, and merged into the day files later. I/O."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from services.writer.disk.compaction import compact, merge_tables
from services.writer.disk.ledger import (
    ByDay,
    Records,
    changed_since,
    ledger_version,
    make_way,
    neighbours,
    read_day,
    read_or_put_aside,
    record_of,
    unite,
)
from services.writer.disk.pending import added_by, only_with, rows_of_verdicts, with_pending
from services.writer.disk.stored import columns_of_rule
from shared.datasets.ledger import LedgerRow, Verdict
from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.storage.files import remove_stale_temporaries
from shared.storage.layout import Partition, segments_folder, signature, work_folder
from shared.storage.parquet import merge, table_of
from shared.storage.segments import PendingRows, Segment, append, by_partition, prepare, segments_of

type Written = dict[date, Records]
"""Day → what the ledger says now of what has changed."""


class Recovered(NamedTuple):
    """What a crash left. temporaries: how many files. lost: datasets of which a segment could not be read."""

    temporaries: int
    lost: frozenset[str]


class _Appended(NamedTuple):
    """A segment as it was written. at: in seconds of the monotonic clock."""

    signature: str
    rows: int
    at: float


@dataclass
class RawStore:
    """What is in segments, and what these add to the ledger's files. Only one process may work on a folder so.

    `append` and `compact` may run at the same time, in two threads; each for itself must not run twice.
    """

    root: Path
    segments: dict[Segment, _Appended] = field(default_factory=dict)
    """Those that this process has appended and that are not merged."""
    _added: ByDay = field(default_factory=dict)
    """What they add to the ledger's files."""
    _merging: ByDay = field(default_factory=dict)
    """The same of those that are being merged right now."""
    _files: dict[date, tuple[str | None, Records]] = field(default_factory=dict)
    """What the ledger's files say of the days that segments touch, with the version that was read."""
    _numbered: PendingRows = field(init=False)

    def __post_init__(self) -> None:
        self._numbered = PendingRows(self.root)

    # --- what comes

    def recover(self) -> Recovered:
        """Merge the segments that a crash left, and remove what was being written."""
        for folder in (work_folder(self.root), *self._segment_folders()):
            make_way(self.root, folder)
        removed = remove_stale_temporaries(self.root)
        lost = compact(self.root, segments_of(self.root), {})
        for dataset, kind in BY_DATASET.items():
            if not kind.rare and (self.root / dataset).is_dir():
                prepare(self.root, kind)
        return Recovered(removed, frozenset(lost))

    def append(self, rows: Mapping[type[Row], Sequence[Row]], verdicts: Sequence[Verdict] = ()) -> Written:
        """Make rows and verdicts durable; return what the ledger says now of what they change. Raises `OSError`."""
        tables = {kind: table_of(kind, some) for kind, some in rows.items() if some}
        if found := rows_of_verdicts(verdicts):
            tables[LedgerRow] = table_of(LedgerRow, found)
        added: ByDay = {}
        for kind, table in tables.items():
            if kind.rare:
                merge_tables(self.root, {file: [part] for file, part in by_partition(kind, table).items()}, {})
            else:
                self._append(kind, table)
                unite(added, added_by(kind, table, self._numbers))
        return self._take_in(added)

    def _append(self, kind: type[Row], table: pa.Table) -> None:
        self._make_way(kind)
        segment = append(self.root, kind, _in_order(kind, table))
        written = signature(segment.path(self.root).stat())
        self.segments[segment] = _Appended(written, table.num_rows, time.monotonic())

    def _segment_folders(self) -> list[Path]:
        """Return where segments lie, the folder of all of them first."""
        folders = [segments_folder(self.root, kind.dataset) for kind in BY_DATASET.values() if not kind.rare]
        return [folders[0].parent, *folders]

    def _make_way(self, kind: type[Row]) -> None:
        segments = segments_folder(self.root, kind.dataset)
        for folder in (work_folder(self.root), segments.parent, segments):
            make_way(self.root, folder)

    def _numbers(self, file: Partition) -> ByDay:
        """Return what is stored of a day of numbered rows, and of those beside it, as files and segments have it."""
        self._numbered.refresh([BY_DATASET[file.dataset]])
        waiting = self._numbered.rows().waiting

        def read(one: Partition, columns: list[str]) -> pa.Table | None:
            stored = read_or_put_aside(self.root, one)
            parts = [*([] if stored is None else [stored]), *waiting.get(one, ())]
            return merge(BY_DATASET[one.dataset], None, pa.concat_tables(parts)).select(columns) if parts else None

        found: ByDay = {}
        for one in (file, *neighbours(file)):
            if (table := read(one, columns_of_rule(one.dataset))) is not None:
                found[one.day] = record_of(self.root, one, table, "", read)
        return found

    def _take_in(self, added: ByDay) -> Written:
        before = {day: self.known(day) for day in added}
        unite(self._added, added)
        return {day: changed_since(known, only_with(known, added[day])) for day, known in before.items()}

    # --- what is known

    def known(self, day: date) -> Records:
        """Return what the ledger says of a day, by the files and by segments."""
        version = ledger_version(self.root, day)
        if day not in self._files or self._files[day][0] != version:
            self._files[day] = version, read_day(self.root, day)
        return self.with_pending(day, self._files[day][1])

    def with_pending(self, day: date, disk: Records) -> Records:
        """Add what is in segments to what the ledger's file of a day says."""
        return with_pending(with_pending(disk, self._merging.get(day, {})), self._added.get(day, {}))

    @property
    def days(self) -> set[date]:
        """Return the days of which segments hold something that is counted."""
        return {*self._added, *self._merging}

    @property
    def rows(self) -> int:
        """Return how many rows are not merged."""
        return sum(one.rows for one in self.segments.values())

    @property
    def oldest(self) -> float | None:
        """Return when the first of them was written, in seconds of the monotonic clock; None where there is none."""
        return min((one.at for one in self.segments.values()), default=None)

    def is_damaged(self) -> bool:
        """Return whether a segment is not what was written any more."""
        return any(_signature(segment.path(self.root)) != one.signature for segment, one in [*self.segments.items()])

    # --- compaction

    def begin_compaction(self) -> list[Segment]:
        """Choose what `merge` merges: all that is there now, whoever put it there. Not while `append` runs."""
        unite(self._merging, self._added)
        self._added = {}
        return sorted({*self.segments, *segments_of(self.root)})

    def merge(self, chosen: Sequence[Segment], is_retired: Callable[[Partition], bool] = lambda _: False) -> None:
        """Merge segments into the day files. Raises `OSError`: then all of it may be done again."""
        compact(self.root, chosen, self._merging, is_retired)

    def end_compaction(self, chosen: Sequence[Segment]) -> Written:
        """Forget what was merged; return what the ledger says of it now. Not while `append` runs."""
        merged, self._merging = self._merging, {}
        for segment in chosen:
            self.segments.pop(segment, None)
        self._files.clear()
        return {
            day: {key: one for key, one in self.known(day).items() if key in records} for day, records in merged.items()
        }

    def give_up_compaction(self) -> None:
        """Take back what `begin_compaction` chose: it is to be merged later."""
        merging, self._merging = self._merging, {}
        unite(merging, self._added)
        self._added = merging


def _in_order(kind: type[Row], table: pa.Table) -> pa.Table:
    """Order rows so that those of a day file are beside each other: a reader splits them without a copy."""
    by = [kind.time] if kind.file_stem else ["symbol", kind.time]
    return table.sort_by([(name, "ascending") for name in by])


def _signature(path: Path) -> str | None:
    try:
        return signature(path.stat())
    except OSError:
        return None
