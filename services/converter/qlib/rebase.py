"""Another span of the calendar: history has arrived from before it, or it went on beyond now. I/O.

When the origin moves back every position grows by the same amount, so every bin and calendar is written again: into a
new version beside the one that is read, which goes on as it is. So is a calendar that gets shorter.
"""

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np

from services.converter.qlib.bins import DamagedBinError, read_bin, read_extent
from services.converter.qlib.frequencies import FREQUENCIES, calendar_lines, future_bars
from services.converter.qlib.store import QlibStore
from shared.storage.qlib_layout import INSTRUMENTS, bins_of, calendar_path, calendars_of


def with_span(store: QlibStore, span: tuple[datetime, datetime], begin_version: Callable[[], Path]) -> QlibStore:
    """Return a store whose calendar begins, and ends at the latest, with a span: the same one, or a copy.

    The copy lies in a new version that no reader has seen. span: [from, until); it begins at a midnight, that of the
    store or one before. begin_version: makes the empty folder of a new version.
    """
    known = store.span()
    if known is None or (known[0] == span[0] and known[1] <= span[1]):
        return store
    origin, until = span[0], min(known[1], span[1])
    moved = QlibStore(begin_version(), converted=store.converted)
    for symbol in store.symbols():
        moved.folder(symbol).mkdir(parents=True)
    calendars_of(moved.root).mkdir(parents=True)
    for frequency in FREQUENCIES:
        ahead, bars = frequency.position(origin, known[0]), frequency.bars_until(origin, until)
        _write(calendar_path(moved.root, frequency.name), calendar_lines(frequency, origin, 0, bars))
        if frequency.future:
            text = calendar_lines(frequency, origin, 0, future_bars(bars))
            _write(calendar_path(moved.root, frequency.name, future=True), text)
        for symbol in store.symbols():
            paths = sorted(store.folder(symbol).glob(bins_of(frequency.name)))
            end = _end_of_values(paths, bars - ahead) if known[1] > span[1] else None
            for path in paths:
                _move(path, moved.folder(symbol) / path.name, ahead, end)
    if (store.root / INSTRUMENTS).is_dir():
        shutil.copytree(store.root / INSTRUMENTS, moved.root / INSTRUMENTS)
    return moved


def last_value(store: QlibStore, until: datetime) -> datetime | None:
    """Return the end of the last minute before an instant of which a bin has a value; None without any."""
    known = store.span()
    if known is None:
        return None
    minutely = FREQUENCIES[0]
    bars = minutely.bars_until(known[0], min(known[1], until))
    paths = [path for symbol in store.symbols() for path in store.folder(symbol).glob(bins_of(minutely.name))]
    return known[0] + _end_of_values(paths, bars) * minutely.step


def _end_of_values(paths: Iterable[Path], bars: int) -> int:
    """Return the position after the last value, among the first `bars`, that one of some bins has."""
    end = 0
    for path in paths:
        with suppress(DamagedBinError):  # it is named when its symbol is converted
            held = read_bin(path)
            if held is not None and held.position < bars:
                known = np.flatnonzero(~np.isnan(held.values[: bars - held.position]))
                end = max(end, held.position + int(known[-1]) + 1 if len(known) else 0)
    return end


def _move(path: Path, target: Path, ahead: int, end: int | None) -> None:
    """Copy a bin with another first position, up to a bar. A damaged one stays so, and is found in the new version."""
    try:
        extent = read_extent(path)
    except DamagedBinError:
        if path.is_file():
            shutil.copyfile(path, target)
        return
    if extent is None or (end is not None and extent[0] >= end):
        return
    values = np.fromfile(path, "<f4", count=-1 if end is None else 1 + end - extent[0])
    values[0] += ahead
    values.tofile(target)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
