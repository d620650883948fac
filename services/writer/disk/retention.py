"""What may be deleted: raw days past the retention that are in Qlib as they stand; and what comes too late. I/O."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import structlog

from shared.datasets.registry import BY_DATASET, AnyEvent, rows_of
from shared.datasets.row import Row
from shared.storage.files import reason_of
from shared.storage.layout import day_folder, days, partition_of, partitions
from shared.storage.versions import day_digest

log = structlog.get_logger()


def is_past(day: date, today: date, retention_days: int) -> bool:
    """Return whether a day is beyond the retention."""
    return (today - day).days > retention_days


def is_retired(event: AnyEvent, today: date, retention_days: int) -> bool:
    """Return whether an event belongs to a day that the retention has deleted or will delete next."""
    return any(row.retired and is_past(partition_of(row).day, today, retention_days) for row in rows_of(event))


def retirable(
    raw_days: Iterable[date], newest: date, retention_days: int, converted: Callable[[date], bool]
) -> list[date]:
    """Return the days that are older than the retention and safely in Qlib. Pure."""
    return [day for day in raw_days if is_past(day, newest, retention_days) and converted(day)]


class Retired(NamedTuple):
    """The days that were deleted. failed: what could not be, each in a sentence."""

    days: list[date]
    failed: list[str]


def retire(root: Path, today: date, retention_days: int, digests: Mapping[str, str]) -> Retired:
    """Delete raw days that are past the retention, but never one that is not converted as it stands.

    `digests` says which version of which day the converter has put into Qlib; a day that changed since is kept.
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
