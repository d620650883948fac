"""What has changed on disk since the last conversion, of days that Qlib has, or should have? Reads only."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from services.converter.features.fields import BarRecipe
from services.converter.manifest import read_manifest
from services.converter.qlib.store import QlibStore
from services.converter.raw.files import scan, until_latest
from services.converter.stages.changes import changes_since
from services.converter.versions.versions import head_folder
from shared.grid import DAY, day_start
from shared.storage.segments import PendingRows


class LateDays(NamedTuple):
    """What has come since the last conversion, of days before its end."""

    end: datetime
    """Up to when Qlib reaches."""
    patches: int
    """Whole symbol days in Qlib that changed on disk."""
    before: int
    """Symbol days on disk before the calendar's origin: only another version of the dataset takes them in."""
    unreadable: tuple[str, ...] = ()
    """Files that may hide more of them, each with the reason."""


def late_days(
    data_dir: Path,
    qlib_dir: Path,
    recipe: BarRecipe = BarRecipe(),  # noqa: B008 - frozen
    *,
    latest: datetime | None = None,
    pending: PendingRows | None = None,
) -> LateDays | None:
    """Return what has changed on disk of the days that Qlib has, or should have; None before the first conversion.

    Rows that were healed, corrected or settled late are why. A conversion up to the same instant patches them in.
    pending: what an earlier look has read of the rows that wait to be merged.
    """
    root = head_folder(qlib_dir)
    manifest = read_manifest(root)
    store = QlibStore(root, converted=manifest.symbols())
    span = store.span()
    if span is None:
        return None
    origin, end = span
    raw, _ = until_latest(scan(data_dir, manifest.days, pending=pending), latest)
    changes = changes_since(manifest, raw, end, recipe, root=root)
    dirty = [day for symbol in store.names.possible(changes.dirty) for day in changes.dirty[symbol]]
    late = [day for day in dirty if day_start(day) <= end - DAY]
    before = sum(day_start(day) < origin for day in late)
    unreadable = (*changes.ledgers.unreadable.values(), *changes.definitions.unreadable.values())
    return LateDays(end, len(late) - before, before, unreadable)
