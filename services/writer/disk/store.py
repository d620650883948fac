"""Day files on disk: merge a batch in, and return which minutes are there then. I/O."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import structlog

from services.writer.disk.ledger import (
    Changes,
    Records,
    make_way,
    neighbours,
    read_or_put_aside,
    record_of,
    update_day,
)
from services.writer.disk.stored import columns_of_rule
from shared.datasets.ledger import Verdict
from shared.datasets.registry import BY_DATASET, COMPLETENESS
from shared.datasets.row import Row
from shared.storage.files import fsync_path
from shared.storage.layout import Partition, signature
from shared.storage.parquet import merge, table_of, write_table

log = structlog.get_logger()

type Written = dict[date, Records]
"""Day → what the ledger says now of what has changed."""


def write_batch(root: Path, rows: Mapping[Partition, list[Row]], verdicts: Sequence[Verdict] = ()) -> Written:
    """Merge rows into their files and make all of it durable, the ledger last; return what the ledger says now.

    Each file: temporary file, fsync, rename. Then each folder: fsync. A crash at any instant leaves every file whole,
    old or new; redelivery merges to the same content.
    """
    changes = Changes()
    folders: set[Path] = set()
    for partition, fresh in sorted(rows.items()):
        kind = BY_DATASET[partition.dataset]
        path = partition.path(root)
        merged = merge(kind, read_or_put_aside(root, partition), table_of(kind, fresh))
        make_way(path.parent)
        new_folder = not path.parent.exists()
        write_table(path, merged, sync_folder=False)
        folders.add(path.parent)
        if new_folder:
            folders |= {path.parent.parent, root}
        if partition.dataset in COMPLETENESS:
            changes.add_file(partition, record_of(root, partition, merged, signature(path.stat())))
            for beside in neighbours(root, partition):
                changes.add_file(beside, _look_again(root, beside))
    for folder in folders:
        fsync_path(folder)
    changes.add(verdicts)
    return {day: update_day(root, changes, day) for day in sorted(changes.days())}


def _look_again(root: Path, file: Partition) -> Records:
    table = read_or_put_aside(root, file, columns_of_rule(file.dataset))
    return {} if table is None else record_of(root, file, table, signature(file.path(root).stat()))
