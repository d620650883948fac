"""Which minutes are there, and which are missing: sets of minutes per UTC day, as bit masks. Pure.

Bit m of a day's mask stands for the minute that opens m minutes after midnight UTC. A mask is an arbitrary Python
integer, so union, difference and count are one machine operation per 64 minutes. On the bus a mask is spelled as
inclusive runs ("0-99,101-1439"), readable in redis-cli.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache

from shared.grid import MINUTE, MINUTES_PER_DAY, day_start, days_between

FULL_DAY = (1 << MINUTES_PER_DAY) - 1


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
    found: list[Gap] = []
    days = days_between(begin, end)
    for day in days:
        mask = known(day)
        if mask == FULL_DAY:
            continue
        window = FULL_DAY if day not in (days[0], days[-1]) else day_mask(day, begin, end)
        for gap in gaps_of_mask(day, window & ~mask):
            joined = found and found[-1].end == gap.begin
            found.append(Gap(found.pop().begin, gap.end) if joined else gap)
    return found


def gaps_of_mask(day: date, mask: int) -> Iterator[Gap]:
    """Yield the runs of minutes of a day's mask."""
    midnight = day_start(day)
    for first, last in runs(mask):
        yield Gap(midnight + first * MINUTE, midnight + (last + 1) * MINUTE)


def last_of_mask(day: date, mask: int) -> datetime | None:
    """Return the open of the last minute of a day's mask; None where it is empty."""
    return day_start(day) + (mask.bit_length() - 1) * MINUTE if mask else None


@dataclass
class Coverage:
    """The minutes of one symbol that are known to be there, over any number of days."""

    days: dict[date, int] = field(default_factory=dict)

    def add(self, open_time: datetime) -> bool:
        """Mark one minute; return whether it was new."""
        day, bit = open_time.date(), 1 << ((open_time - day_start(open_time.date())) // MINUTE)
        mask = self.days.get(day, 0)
        self.days[day] = mask | bit
        return not mask & bit

    def add_span(self, begin: datetime, end: datetime) -> None:
        """Mark every minute that opens in [begin, end)."""
        for day in days_between(begin, end):
            self.days[day] = self.days.get(day, 0) | day_mask(day, begin, end)

    def add_mask(self, day: date, mask: int) -> None:
        """Mark the minutes of a mask."""
        self.days[day] = self.days.get(day, 0) | mask

    def add_masks(self, masks: Iterable[tuple[date, int]]) -> None:
        """Mark the minutes of the masks of some days."""
        for day, mask in masks:
            self.add_mask(day, mask)

    def discard(self, open_time: datetime) -> None:
        """Forget one minute."""
        day = open_time.date()
        self.days[day] = self.days.get(day, 0) & ~(1 << ((open_time - day_start(day)) // MINUTE))

    def __contains__(self, open_time: datetime) -> bool:
        day = open_time.date()
        return bool(self.days.get(day, 0) >> ((open_time - day_start(day)) // MINUTE) & 1)

    def gaps(self, begin: datetime, end: datetime) -> list[Gap]:
        """Return the missing minutes of [begin, end) as gaps, oldest first, joined across midnight."""
        return gaps_of(begin, end, lambda day: self.days.get(day, 0))

    def first(self) -> datetime | None:
        """Return the open of the first minute; None where there is none."""
        day = min((day for day, mask in self.days.items() if mask), default=None)
        return None if day is None else next(gaps_of_mask(day, self.days[day])).begin

    def last(self) -> datetime | None:
        """Return the open of the last minute; None where there is none."""
        day = max((day for day, mask in self.days.items() if mask), default=None)
        return None if day is None else last_of_mask(day, self.days[day])

    def count(self) -> int:
        """Return how many minutes are there."""
        return sum(mask.bit_count() for mask in self.days.values())

    def forget_before(self, day: date) -> None:
        """Drop the days before `day`: what is not asked for any more needs no memory."""
        for old in [known for known in self.days if known < day]:
            del self.days[old]


def split_gap(gap: Gap, minutes: int) -> list[Gap]:
    """Cut a gap into pieces of at most `minutes`, newest first (the freshest minutes are wanted first)."""
    pieces = []
    end = gap.end
    while end > gap.begin:
        begin = max(gap.begin, end - timedelta(minutes=minutes))
        pieces.append(Gap(begin, end))
        end = begin
    return pieces
