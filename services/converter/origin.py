"""Moving the calendar's origin back: history has arrived from before it. I/O.

Every position grows by the same amount, so every bin and calendar is written anew: into a new version beside the one
that is read, which goes on as it is.
"""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from services.converter.calendars import FREQUENCIES, calendar_lines, future_bars
from services.converter.qlib_store import DamagedBinError, QlibStore, read_extent
from services.converter.remembered import take_along


def with_origin(store: QlibStore, origin: datetime, begin_version: Callable[[], Path]) -> QlibStore:
    """Return a store whose position 0 is `origin`: the same one, or a copy in a new version of which nobody knows yet.

    origin: a midnight, that of the store or one before. begin_version: makes the empty folder of a new version.
    """
    span = store.span()
    if span is None or span[0] == origin:
        return store
    moved = QlibStore(begin_version())
    for symbol in store.symbols():
        moved.folder(symbol).mkdir(parents=True)
    (moved.root / "calendars").mkdir(parents=True)
    for frequency in FREQUENCIES:
        ahead, bars = frequency.position(origin, span[0]), frequency.bars_until(origin, span[1])
        _write(moved.root / "calendars" / f"{frequency.name}.txt", calendar_lines(frequency, origin, 0, bars))
        if frequency.future:
            text = calendar_lines(frequency, origin, 0, future_bars(bars))
            _write(moved.root / "calendars" / f"{frequency.name}_future.txt", text)
        for symbol in store.symbols():
            for path in store.folder(symbol).glob(f"*.{frequency.name}.bin"):
                _move(path, moved.folder(symbol) / path.name, ahead)
    if (store.root / "instruments").is_dir():
        shutil.copytree(store.root / "instruments", moved.root / "instruments")
    take_along(store.root, moved.root)
    return moved


def _move(path: Path, target: Path, ahead: int) -> None:
    """Copy a bin with another first position. A damaged one stays damaged, so that it is found in the new version."""
    try:
        read_extent(path)
    except DamagedBinError:
        if path.is_file():
            shutil.copyfile(path, target)
        return
    values = np.fromfile(path, "<f4")
    values[0] += ahead
    values.tofile(target)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
