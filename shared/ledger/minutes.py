"""Which minutes are there, and which are missing: sets of minutes per UTC day, as bit masks. Pure.

Bit m of a day's mask stands for the minute that opens m minutes after midnight UTC. A mask is an arbitrary Python
integer, so union, difference and count are one machine operation per 64 minutes. On the bus a mask is spelled as
inclusive runs ("0-99,101-1439"), readable in redis-cli.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType

from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start, days_between

FULL_DAY = (1 << MINUTES_PER_DAY) - 1
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, order=True)
class Gap:
    """Minutes whose opens lie in [begin, end)."""

    begin: datetime
    end: datetime

    @property
    def minutes(self) -> int:
        """Number of minutes inside."""
        return (self.end - self.begin) // MINUTE


def span_mask(first: int, last: int) -> int:
    """Return the mask of minutes first..last of a day, both inclusive; nothing where first > last."""
    return ((1 << (last - first + 1)) - 1) << first if first <= last else 0


def mask_from_minutes(minutes: Iterable[int]) -> int:
    """Return the mask of some minutes of a day (0..1439)."""
    mask = 0
    for minute in minutes:
        mask |= 1 << minute
    return mask


def runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield the runs (first, last), both inclusive, of the minutes in a mask, in order."""
    position = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        position += skip
        length = (~mask & (mask + 1)).bit_length() - 1
        yield position, position + length - 1
        mask >>= length
        position += length


def mask_to_text(mask: int) -> str:
    """Spell a mask as runs: 0-99,101-1439."""
    return ",".join(f"{first}-{last}" for first, last in runs(mask))


@lru_cache(maxsize=8192)
def is_mask_text(text: str) -> bool:
    """Return whether a text is what `mask_to_text` spells: runs of minutes of a day, in order and apart."""
    last = -2
    for run in text.split(",") if text else ():
        match = _RUN.fullmatch(run)
        if match is None:
            return False
        first, end = int(match[1]), int(match[2])
        if not last + 1 < first <= end < MINUTES_PER_DAY:
            return False
        last = end
    return True


_RUN = re.compile(r"(0|[1-9][0-9]{0,3})-(0|[1-9][0-9]{0,3})")


@lru_cache(maxsize=8192)
def mask_from_text(text: str) -> int:
    """Read `mask_to_text` back. Equal masks are one object: most days of most symbols are full.

    Raises `ValueError` for what is no run of minutes of a day: a mask of a far number takes all the memory there is.
    """
    mask = 0
    for run in filter(None, text.split(",")):
        first, last = map(int, run.split("-"))
        if not 0 <= first <= last < MINUTES_PER_DAY:
            raise ValueError(f"{run[:100]!r} is no run of the minutes of a day")
        mask |= span_mask(first, last)
    return mask


def day_mask(day: date, begin: datetime, end: datetime) -> int:
    """Return the mask of the minutes of a day whose opens lie in [begin, end)."""
    midnight = day_start(day)
    first = max(0, -((midnight - begin) // MINUTE))
    last = min(MINUTES_PER_DAY, -((midnight - end) // MINUTE)) - 1
    return span_mask(first, last)


def gaps_of(begin: datetime, end: datetime, known: Callable[[date], int]) -> list[Gap]:
    """Return the minutes of [begin, end) that are not known as gaps, oldest first, joined across midnight."""
    days = days_between(begin, end)
    ends = {*days[:1], *days[-1:]}
    lacking = (
        (day, (day_mask(day, begin, end) if day in ends else FULL_DAY) & ~mask)
        for day in days
        if (mask := known(day)) != FULL_DAY
    )
    return joined(gap for day, mask in lacking for gap in gaps_of_mask(day, mask))


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Join gaps, oldest first, where one begins as another ends."""
    found: list[Gap] = []
    for gap in gaps:
        joins = found and found[-1].end == gap.begin
        found.append(Gap(found.pop().begin, gap.end) if joins else gap)
    return found


def gaps_of_mask(day: date, mask: int) -> Iterator[Gap]:
    """Yield the runs of minutes of a day's mask."""
    midnight = day_start(day)
    for first, last in runs(mask):
        yield Gap(midnight + first * MINUTE, midnight + (last + 1) * MINUTE)


def last_of_mask(day: date, mask: int) -> datetime | None:
    """Return the open of the last minute of a day's mask; None where it is empty."""
    return day_start(day) + (mask.bit_length() - 1) * MINUTE if mask else None


class Coverage:
    """The minutes of one symbol that are known to be there, over any number of days."""

    def __init__(self, days: Mapping[date, int] | None = None) -> None:
        self._days = dict(days or {})
        self.days: Mapping[date, int] = MappingProxyType(self._days)
        """Day → its mask. It is changed by the methods alone, so that no change goes unnoticed."""
        self._changed: tuple[set[date], ...] = ()
        self._count: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coverage) and self._days == other._days

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Coverage({self._days!r})"

    def note_changes(self, changed: set[date]) -> None:
        """Add every day that changes from now on to a set, and those that are there already."""
        self._changed = (*self._changed, changed)
        changed.update(self._days)

    def _set(self, day: date, mask: int) -> None:
        self._days[day] = mask
        self._count = None
        for changed in self._changed:
            changed.add(day)

    def add(self, open_time: datetime) -> bool:
        """Mark one minute; return whether it was new."""
        day, bit = open_time.date(), 1 << (open_time.hour * 60 + open_time.minute)
        mask = self._days.get(day, 0)
        if mask & bit:
            return False
        self._set(day, mask | bit)
        return True

    def add_span(self, begin: datetime, end: datetime) -> None:
        """Mark every minute that opens in [begin, end)."""
        for day in days_between(begin, end):
            self.add_mask(day, day_mask(day, begin, end))

    def add_mask(self, day: date, mask: int) -> None:
        """Mark the minutes of a mask."""
        known = self._days.get(day, 0)
        if mask & ~known:
            self._set(day, known | mask)

    def add_masks(self, masks: Iterable[tuple[date, int]]) -> None:
        """Mark the minutes of the masks of some days."""
        for day, mask in masks:
            self.add_mask(day, mask)

    def discard(self, open_time: datetime) -> None:
        """Forget one minute."""
        self.discard_mask(open_time.date(), 1 << (open_time.hour * 60 + open_time.minute))

    def discard_mask(self, day: date, mask: int) -> None:
        """Forget the minutes of a mask. A day without any is forgotten whole."""
        known = self._days.get(day, 0)
        if known & mask:
            self._set(day, known & ~mask)
            if not self._days[day]:
                del self._days[day]

    def __contains__(self, open_time: datetime) -> bool:
        mask = self._days.get(open_time.date(), 0)
        return bool(mask >> (open_time.hour * 60 + open_time.minute) & 1)

    def gaps(self, begin: datetime, end: datetime) -> list[Gap]:
        """Return the missing minutes of [begin, end) as gaps, oldest first, joined across midnight."""
        return gaps_of(begin, end, lambda day: self._days.get(day, 0))

    def first(self) -> datetime | None:
        """Return the open of the first minute; None where there is none."""
        day = min(self._days, default=None)
        return None if day is None else next(gaps_of_mask(day, self._days[day])).begin

    def last(self) -> datetime | None:
        """Return the open of the last minute; None where there is none."""
        day = max(self._days, default=None)
        return None if day is None else last_of_mask(day, self._days[day])

    def count(self) -> int:
        """Return how many minutes are there."""
        if self._count is None:
            self._count = sum(mask.bit_count() for mask in self._days.values())
        return self._count

    def forget_before(self, day: date) -> None:
        """Drop the days before `day`: what is not asked for any more needs no memory."""
        for old in [known for known in self._days if known < day]:
            del self._days[old]
            self._count = None
            for changed in self._changed:
                changed.add(old)


class Lacking:
    """Where a mask of minutes is to be full, day by day: a day is looked at again only once it was noted as changed."""

    def __init__(self, known: Callable[[date], int]) -> None:
        self.changed: set[date] = set()
        """Days to be looked at again: whatever `known` depends on notes its changes here."""
        self._known = known
        self._open: dict[date, int] = {}
        """Day → the minutes that lack, where some do; of the days that were looked at."""
        self._looked_at: tuple[date, date] | None = None
        """The first and the last of these days: all between were, too."""
        self._found: tuple[datetime, datetime, list[Gap]] | None = None

    def gaps(self, begin: datetime, end: datetime) -> list[Gap]:
        """Return the minutes of [begin, end) that lack as gaps, oldest first, joined across midnight, as `gaps_of`."""
        if not self.changed and self._found is not None and self._found[:2] == (begin, end):
            return self._found[2]
        found: list[Gap] = []
        if begin < end:
            first, last = begin.date(), (end - _INSTANT).date()
            self._look(first, last)
            masks = ((day, self._open[day] & day_mask(day, begin, end)) for day in sorted(self._open) if day <= last)
            found = joined(gap for day, mask in masks for gap in gaps_of_mask(day, mask))
        self._found = begin, end, found
        return found

    def _look(self, first: date, last: date) -> None:
        """Look at the days first..last that changed or were never looked at, and forget those before them."""
        known_first, known_last = self._looked_at or (first, first - DAY)
        if first > known_last or last < known_first:  # apart: nothing that is known is of use
            self._open.clear()
            known_first, known_last = first, first - DAY
        if first > known_first:
            self._open = {day: mask for day, mask in self._open.items() if day >= first}
        fresh = {first + number * DAY for number in range((known_first - first).days)}
        fresh |= {known_last + number * DAY for number in range(1, (last - known_last).days + 1)}
        self._looked_at = first, max(last, known_last)
        for day in fresh | self.changed:
            if first <= day <= self._looked_at[1]:
                self._open.pop(day, None)
                if lacks := FULL_DAY & ~self._known(day):
                    self._open[day] = lacks
        self.changed.clear()


def split_gap(gap: Gap, minutes: int) -> list[Gap]:
    """Cut a gap into pieces of at most `minutes`, newest first (the freshest minutes are wanted first)."""
    pieces = []
    end = gap.end
    while end > gap.begin:
        begin = max(gap.begin, end - timedelta(minutes=minutes))
        pieces.append(Gap(begin, end))
        end = begin
    return pieces
