"""Day files on disk: merge a batch in, retire old days, tell which minutes are there. I/O."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import structlog

from services.writer.ledger_store import Changes, Known, make_way, read_or_put_aside, settled_of, stored_of, update_day
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import Verdict
from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.storage.files import fsync_path, reason_of
from shared.storage.layout import Partition, day_digest, day_folder, days, partitions, signature
from shared.storage.parquet import merge, table_of, write_table

log = structlog.get_logger()

type Written = dict[date, dict[str, Known]]
"""Day → symbol → what the ledger says of it now."""


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
        if kind is Candle:
            known = stored_of(partition, merged, signature(path.stat()))
            changes.candles[partition.day][partition.symbol or ""] = known
        if kind is FundingRate:
            changes.settled[partition.day] = settled_of(partition.day, merged)
    for folder in folders:
        fsync_path(folder)
    changes.tell(verdicts)
    return {day: update_day(root, changes, day) for day in sorted(changes.days())}


def retirable(
    raw_days: Iterable[date], newest: date, retention_days: int, converted: Callable[[date], bool]
) -> list[date]:
    """Return the days that are older than the retention and safely in Qlib. Pure."""
    return [day for day in raw_days if (newest - day).days > retention_days and converted(day)]


class Retired(NamedTuple):
    """The days that were deleted. failed: what could not be, each in a sentence."""

    days: list[date]
    failed: list[str]


def retire(root: Path, today: date, retention_days: int, digests: Mapping[str, str]) -> Retired:
    """Delete raw days that are past the retention, but never one that is not converted as it stands.

    `digests` tells which version of which day the converter has put into Qlib; a day that changed since is kept.
    """
    retired = Retired([], [])
    for dataset, kind in BY_DATASET.items():
        if not kind.retired:
            continue

        def is_converted(day: date, dataset: str = dataset, kind: type[Row] = kind) -> bool:
            # What the converter does not read is bounded by its age alone.
            return not kind.converted or digests.get(f"{dataset}/{day}") == day_digest(root, dataset, day)

        try:
            gone = retirable(days(root, dataset), today, retention_days, is_converted)
        except OSError as error:
            retired.failed.append(f"{root / dataset}: {reason_of(error)}")
            continue
        for day in gone:
            try:
                _delete(root, dataset, day)
            except OSError as error:
                retired.failed.append(f"{day_folder(root, dataset, day)}: {reason_of(error)}")
            else:
                retired.days.append(day)
                log.info("retired", dataset=dataset, day=str(day))
    return retired


def _delete(root: Path, dataset: str, day: date) -> None:
    """Delete the folder of a day. Of one that is a link only the day's own files go: others may lie where it leads."""
    folder = day_folder(root, dataset, day)
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for file, _ in list(partitions(root, dataset, day)):
        file.path(root).unlink(missing_ok=True)
    folder.unlink()
