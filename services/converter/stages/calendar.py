"""From when until when does the calendar go, and in which folder does it lie? I/O."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime
from typing import NamedTuple

from services.converter.features.asof import Ints
from services.converter.qlib.rebase import last_value, with_span
from services.converter.qlib.store import QlibStore
from services.converter.raw.days import UnreadableError, read_candles
from services.converter.raw.files import RawFiles
from services.converter.raw.remembered import take_along
from services.converter.stages.run import Goal
from services.converter.versions.changing import LockedVersions
from services.converter.versions.versions import VersionError
from shared.datasets.candle import Candle
from shared.grid import DAY, MINUTE, day_start, from_ms


class NothingToConvertError(Exception):
    """There is no raw day before the instant asked for."""


class CalendarTarget(NamedTuple):
    """The folder that a run writes, and the span [origin, end) of its calendar."""

    store: QlibStore
    origin: datetime
    end: datetime
    why_left_out: str = ""
    """Why a version that begins earlier could not be made, where that was tried."""


def target_of(store: QlibStore, raw: RawFiles, goal: Goal, versions: LockedVersions) -> CalendarTarget:
    """Return where to write: the head, or a new version where its calendar begins earlier, or has to end earlier.

    Where another version cannot be made, the head goes on without the earlier days; a rebuild needs it, and raises.

    Raises:
        NothingToConvertError: no raw day lies before `goal.until`.
        VersionError: a rebuild needs a new version, and there is no place for one.

    """
    end = _end(store, raw, goal)
    origin = _origin(store, raw, end, history=goal.history)
    try:
        moved = with_span(store, (origin, end), versions.begin)
        if moved is not store:
            take_along(store.root, moved.root)
    except (VersionError, OSError) as error:
        if goal.rebuild:
            raise
        versions.abandon()  # new days need no other version
        same = QlibStore(versions.head, converted=store.converted)
        return CalendarTarget(same, _origin(same, raw, end, history=False), end, str(error))
    return CalendarTarget(moved, origin, end)


def _end(store: QlibStore, raw: RawFiles, goal: Goal) -> datetime:
    """Return the instant up to which minutes are converted.

    What is visible already stays visible, but for a rebuild, which drops what is later than `goal.latest`.
    """
    span, latest = store.span(), goal.latest
    known = span[1] if span else None
    until = _newest_minute(raw) if goal.until is None else goal.until
    if latest is not None:
        until = min(until, latest) if until else None
        if goal.rebuild and known is not None and known > latest:
            known = last_value(store, latest)
    ends = [end for end in (known, until) if end is not None]
    if not ends or (span is None and not any(day_start(day) < max(ends) for day in raw.of(Candle))):
        raise NothingToConvertError(f"no raw candle in {raw.root} before {until or latest or 'now'}")
    return max(ends)


def _newest_minute(raw: RawFiles) -> datetime | None:
    """Return the end of the newest minute on disk; a day of which no file can be read holds none."""
    for day in sorted(raw.of(Candle), reverse=True):
        ends = [from_ms(int(opens.max())) + MINUTE for opens in _opens(raw, day)]
        if ends:
            return max(ends)
    return None


def _origin(store: QlibStore, raw: RawFiles, end: datetime, *, history: bool) -> datetime:
    """Return the origin of the grid: as it is, or the first day with a candle; with `history` it may move back.

    Raises `NothingToConvertError` where there is no grid, and no file can be read.
    """
    span = store.span()
    if span is not None and not history:
        return span[0]
    before = span[0] if span is not None else end
    for day in sorted(raw.of(Candle)):
        if day_start(day) < before and any(True for _ in _opens(raw, day)):
            return day_start(day)
    if span is None:
        raise NothingToConvertError(f"no raw candle in {raw.root} before {end} can be read")
    return span[0]


def _opens(raw: RawFiles, day: date) -> Iterator[Ints]:
    """Yield the opens of the candles of a day, for each file that can be read and has any."""
    for file in raw.partitions(Candle, [day]):
        with suppress(UnreadableError):  # it is reported when its symbol is converted
            opens = read_candles(raw.rows, [file], day_start(day) + DAY).opens
            if len(opens):
                yield opens
