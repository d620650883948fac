"""Day files on disk: merge a batch in, retire old days, tell which minutes are there. I/O."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from shared.coverage import mask_from_minutes, mask_to_text, span_mask
from shared.dataset import Partition, day_digest, day_folder, days, partitions
from shared.durable import fsync_path
from shared.events import BY_DATASET, Candle, Row
from shared.grid import MINUTE_MS, day_start, to_ms
from shared.parquet import merge, read_rows, table_of, write_table

log = structlog.get_logger()


@dataclass(frozen=True)
class Stored:
    """What one written candle file holds now."""

    partition: Partition
    runs: str
    newest: datetime


def write_batch(root: Path, rows: Mapping[Partition, list[Row]]) -> list[Stored]:
    """Merge rows into their files and make all of it durable; return what the candle files hold now.

    Each file: temporary file, fsync, rename. Then each folder: fsync. A crash at any instant leaves every file whole,
    old or new; redelivery merges to the same content.
    """
    stored = []
    folders: set[Path] = set()
    for partition, fresh in sorted(rows.items()):
        kind = BY_DATASET[partition.dataset]
        path = partition.path(root)
        merged = merge(kind, _stored_rows(kind, path), table_of(kind, fresh))
        new_folder = not path.parent.exists()
        write_table(path, merged, sync_folder=False)
        folders.add(path.parent)
        if new_folder:
            folders |= {path.parent.parent, root}
        if kind is Candle:
            stored.append(_stored(partition, merged.column("open_time")))
    for folder in folders:
        fsync_path(folder)
    return stored


def _stored_rows(kind: type[Row], path: Path) -> pa.Table | None:
    """Read what a file holds so far; None where there is none.

    A damaged file is put aside under another name: else everything would wait behind it, for ever. What it held counts
    as missing from then on.
    """
    if not path.exists():
        return None
    try:
        return read_rows(kind, path)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk refuses; pyarrow's own errors about a file's content carry no number
        aside = path.with_name(f"{path.name}.damaged")
        log.error("damaged file put aside", path=str(path), aside=str(aside), error=str(error))  # noqa: TRY400
        path.replace(aside)
        return None


def _stored(partition: Partition, open_times: pa.ChunkedArray) -> Stored:
    minutes = pc.subtract(open_times.cast(pa.int64()), to_ms(day_start(partition.day)))
    minutes = pc.divide(minutes, MINUTE_MS)
    return Stored(partition, mask_to_text(mask_of(minutes)), open_times[-1].as_py())


def mask_of(minutes: pa.ChunkedArray) -> int:
    """Return the mask of the sorted, unique minutes of a day (0..1439)."""
    first, last = minutes[0].as_py(), minutes[-1].as_py()
    if last - first + 1 == len(minutes):  # no hole inside: nearly always
        return span_mask(first, last)
    return mask_from_minutes(minutes.to_pylist())


def scan_day(root: Path, day: date) -> list[Stored]:
    """Return what the candle files of a day hold. Damaged files are named and left out."""
    found = []
    for partition, _ in partitions(root, Candle.dataset, day):
        try:
            times = read_rows(Candle, partition.path(root), ["open_time"]).column("open_time")
        except (OSError, ValueError) as error:
            log.error("unreadable file", path=str(partition.path(root)), error=str(error))  # noqa: TRY400
            continue
        if len(times):
            found.append(_stored(partition, times))
    return found


def retirable(
    raw_days: Iterable[date], newest: date, retention_days: int, converted: Callable[[date], bool]
) -> list[date]:
    """Return the days that are older than the retention and safely in Qlib. Pure."""
    return [day for day in raw_days if (newest - day).days > retention_days and converted(day)]


def retire(root: Path, today: date, retention_days: int, digests: Mapping[str, str]) -> list[date]:
    """Delete raw days that are past the retention, but never one that is not converted as it stands; return them.

    `digests` tells which version of which day the converter has put into Qlib; a day that changed since is kept.
    """
    retired: list[date] = []
    for dataset, kind in BY_DATASET.items():
        if not kind.retired:
            continue

        def is_converted(day: date, dataset: str = dataset, kind: type[Row] = kind) -> bool:
            # Only what has features is converted; the rest is bounded by its age alone.
            return not needs_conversion(kind) or digests.get(f"{dataset}/{day}") == day_digest(root, dataset, day)

        for day in retirable(days(root, dataset), today, retention_days, is_converted):
            shutil.rmtree(day_folder(root, dataset, day))
            retired.append(day)
            log.info("retired", dataset=dataset, day=str(day))
    return retired


def needs_conversion(kind: type[Row]) -> bool:
    """Return whether rows of this kind become Qlib features."""
    return bool(kind.features)
