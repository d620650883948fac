"""Merge segments into the day files, so that readers of these find what was appended. I/O.

All of it may be done again: a crash at any instant leaves every file whole, old or new, and every row in a segment or
in its day file, or in both.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import structlog

from services.writer.disk.ledger import (
    Changes,
    Records,
    make_way,
    neighbours,
    read_or_put_aside,
    readable,
    record_of,
    unite,
    update_day,
)
from services.writer.disk.pending import verdicts_in
from services.writer.disk.stored import columns_of_rule
from services.writer.metrics import COMPACTED
from shared.datasets.channel import Sequence as Numbered
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET, COMPLETENESS
from shared.ledger.day import NOTHING
from shared.storage.durable import Durable
from shared.storage.files import fsync_path
from shared.storage.layout import Partition
from shared.storage.parquet import merge, version_of, write_parquet
from shared.storage.segments import Segment, by_partition, read_segment, staging_path

log = structlog.get_logger()

ROWS_AT_ONCE = 250_000
"""Rows in memory at a time, about 120 bytes each; a segment is never split."""

type Tables = dict[Partition, list[pa.Table]]


def compact(
    root: Path,
    segments: Iterable[Segment],
    verdicts: Mapping[date, Records],
    is_retired: Callable[[Partition], bool] = lambda _: False,
) -> set[str]:
    """Merge segments into day files and into the ledger, then delete them; return of which datasets one was lost.

    verdicts: what is known to have been in segments of the ledger: one that was damaged loses nothing. is_retired:
    rows of such a file are dropped, or the retention would be undone. Raises `OSError` where the disk refuses: nothing
    is lost then.
    """
    known = {day: found for day, records in verdicts.items() if (found := _verdicts_of(records))}
    lost: set[str] = set()
    for group, tables in _groups(root, segments, lost):
        merge_tables(root, {file: parts for file, parts in tables.items() if not is_retired(file)}, known)
        known = {}
        for segment in group:
            segment.path(root).unlink(missing_ok=True)
    if known:
        merge_tables(root, {}, known)
    return lost


def _verdicts_of(records: Records) -> Records:
    found = {key: replace(one, ledger=one.ledger.without_stored()) for key, one in records.items()}
    return {key: one for key, one in found.items() if one.ledger != NOTHING}


def _groups(root: Path, segments: Iterable[Segment], lost: set[str]) -> Iterator[tuple[list[Segment], Tables]]:
    """Yield segments with their rows, so many at a time as memory is given for; add to `lost` those of no use."""
    group, tables, rows = list[Segment](), defaultdict[Partition, list[pa.Table]](list), 0
    for segment in segments:
        table = _read_or_put_aside(root, segment)
        if table is None:
            lost.add(segment.dataset)
            continue
        group.append(segment)
        for file, part in by_partition(BY_DATASET[segment.dataset], table).items():
            tables[file].append(part)
        rows += table.num_rows
        if rows >= ROWS_AT_ONCE:
            yield group, tables
            group, tables, rows = [], defaultdict(list), 0
    if group:
        yield group, tables


def _read_or_put_aside(root: Path, segment: Segment) -> pa.Table | None:
    path = segment.path(root)
    if not os.path.lexists(path):
        said = "fetched again" if segment.dataset in COMPLETENESS else "lost, unless memory holds it"
        log.warning("a segment is gone", path=str(path), rows=said)
    return readable(root, path, segment.dataset, partial(read_segment, root, segment))


class _Staged(NamedTuple):
    """A day file that is written and has not got its name."""

    file: Partition
    temporary: Path
    path: Path


def merge_tables(root: Path, tables: Mapping[Partition, Sequence[pa.Table]], verdicts: Mapping[date, Records]) -> None:
    """Merge rows into their files and make all of it durable, the ledger last.

    Every file is written under another name, then all of them are synced, then each gets its name, then the folders are
    synced.
    """
    changes = Changes()
    unite(changes.verdicts, verdicts)
    staged: list[_Staged] = []
    durable = Durable(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        durable.open()
        for file, parts in sorted(tables.items()):
            if BY_DATASET[file.dataset] is LedgerRow:
                for part in parts:
                    unite(changes.verdicts, {file.day: verdicts_in(part)})
            elif (one := _stage(root, file, parts, changes)) is not None:
                staged.append(one)
        durable.sync([one.temporary for one in staged])
        _name(root, staged)
    finally:
        for one in staged:
            one.temporary.unlink(missing_ok=True)
    _count_numbered(root, tables, changes)
    for day in sorted(changes.days()):
        update_day(root, changes, day)


def _stage(root: Path, file: Partition, parts: Sequence[pa.Table], changes: Changes) -> _Staged | None:
    """Write what a file holds with more rows, and note what the ledger will say of it; None where nothing changes."""
    kind, path = BY_DATASET[file.dataset], file.path(root)
    stored = read_or_put_aside(root, file)
    merged = merge(kind, stored, pa.concat_tables(parts))
    make_way(root, path.parent)
    if stored is not None and merged.equals(stored):
        _note(root, file, merged, version_of(path, path.stat()), changes)
        return None
    temporary = staging_path(root, file.dataset, path)
    write_parquet(temporary, merged)
    COMPACTED.labels(file.dataset).inc(temporary.stat().st_size)
    # A rename changes neither the size nor the time nor the inode: the file will have this version.
    _note(root, file, merged, version_of(temporary, temporary.stat()), changes)
    return _Staged(file, temporary, path)


def _name(root: Path, staged: Sequence[_Staged]) -> None:
    """Give files their names, durably; also the folders of new days, and of new datasets."""
    folders: set[Path] = set()
    for one in staged:
        one.temporary.replace(one.path)
        folders |= {one.path.parent, one.path.parent.parent, root}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        fsync_path(folder)


def _note(root: Path, file: Partition, merged: pa.Table, version: str, changes: Changes) -> None:
    if file.dataset in COMPLETENESS and not isinstance(COMPLETENESS[file.dataset], Numbered):
        changes.add_file(file, record_of(root, file, merged, version))


def _count_numbered(root: Path, changed: Iterable[Partition], changes: Changes) -> None:
    """Count the minutes of numbered rows again, also of the days beside: a run of numbers goes over midnight."""
    numbered = {file for file in changed if isinstance(COMPLETENESS.get(file.dataset), Numbered)}
    for file in numbered.union(*map(neighbours, numbered)):
        table = read_or_put_aside(root, file, columns_of_rule(file.dataset))
        if table is not None:
            path = file.path(root)
            changes.add_file(file, record_of(root, file, table, version_of(path, path.stat())))
