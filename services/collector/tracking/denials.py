"""Minutes of which the exchange said that it has no candle: how often, since when, and when to believe it. Pure.

An empty answer may be a hiccup, and a row may be late. So a denial is tried again soon, and is believed only after
answers that agree half an hour apart. A halt of the instrument explains itself: there, three denials are enough. So are
three answers with a row that cannot be true, which is counted in the same way.

Minutes that were denied alike are kept together as masks: a hole of a month costs as little as one of an hour.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import NamedTuple

from shared.grid import days_between
from shared.ledger.minutes import Coverage, Gap, day_mask

TIMES = 3
AGAIN_SECONDS = 10.0
"""Our seconds between two answers that count as two."""
AGREE = timedelta(minutes=30)
"""On the exchange's clock, between the first answer and the one that is believed."""
_MOST_SECONDS = 3600.0
"""The longest wait before a minute is asked for again that cannot be proven absent."""


class Denial(NamedTuple):
    """How often the exchange said that it has no such candle."""

    times: int
    first: datetime
    """When it said so first, on its clock."""
    last: float
    """When last, in seconds of our monotonic clock."""

    def rests(self, exchange_now: datetime, seconds: float, first_wait: float) -> bool:
        """Return whether it is too early to ask again."""
        if self.times >= TIMES and exchange_now - self.first < AGREE:
            return True
        wait = first_wait if self.times < TIMES else AGAIN_SECONDS * 2.0 ** min(max(0, self.times - TIMES), 20)
        return seconds - self.last < min(wait, _MOST_SECONDS)


@dataclass
class Denials:
    """The denied minutes of one symbol."""

    first_wait: float = AGAIN_SECONDS
    """Our seconds before a minute is asked for again that was denied once or twice."""
    _groups: dict[Denial, Coverage] = field(default_factory=dict)

    def note(self, holes: Iterable[Gap], exchange_now: datetime, seconds: float) -> None:
        """Count an answer that does not hold some minutes. What was denied a moment ago is not counted twice."""
        for day, fresh in _by_day(holes):
            left = fresh
            for denial, minutes in list(self._groups.items()):
                known = minutes.days.get(day, 0) & left
                left &= ~known
                if known and seconds - denial.last >= AGAIN_SECONDS:
                    minutes.discard_mask(day, known)
                    self._group(Denial(denial.times + 1, denial.first, seconds)).add_mask(day, known)
            if left:
                self._group(Denial(1, exchange_now, seconds)).add_mask(day, left)
        self._tidy()

    def _group(self, denial: Denial) -> Coverage:
        return self._groups.setdefault(denial, Coverage())

    def _tidy(self) -> None:
        for denial, minutes in list(self._groups.items()):
            if not minutes.days:
                del self._groups[denial]

    def drop(self, minutes: Mapping[date, int]) -> None:
        """Forget minutes: a row has come after all, or they have a verdict."""
        for known in self._groups.values():
            for day in known.days.keys() & minutes.keys():
                known.discard_mask(day, minutes[day])
        self._tidy()

    def forget_before(self, day: date) -> None:
        """Forget what is older than a day."""
        for minutes in self._groups.values():
            minutes.forget_before(day)
        self._tidy()

    def resting(self, exchange_now: datetime, seconds: float) -> Coverage:
        """Return the minutes that are not to be asked for now."""
        found = Coverage()
        for denial, minutes in self._groups.items():
            if denial.rests(exchange_now, seconds, self.first_wait):
                found.add_masks(minutes.days.items())
        return found

    def repeated(self) -> Iterator[tuple[date, int]]:
        """Yield the minutes that were denied often enough to be a halt, where there was one."""
        for denial, minutes in self._groups.items():
            if denial.times >= TIMES:
                yield from minutes.days.items()

    def agreed(self, exchange_now: datetime) -> Iterator[tuple[date, int]]:
        """Yield the minutes that were denied in answers that agree half an hour apart."""
        for denial, minutes in self._groups.items():
            if denial.times >= TIMES and exchange_now - denial.first >= AGREE:
                yield from minutes.days.items()

    def minutes(self) -> Coverage:
        """Return the minutes that are denied and without a verdict."""
        found = Coverage()
        for minutes in self._groups.values():
            found.add_masks(minutes.days.items())
        return found

    def count(self) -> int:
        """Return how many minutes are denied and without a verdict."""
        return sum(minutes.count() for minutes in self._groups.values())


def _by_day(holes: Iterable[Gap]) -> Iterator[tuple[date, int]]:
    for hole in holes:
        for day in days_between(hole.begin, hole.end):
            yield day, day_mask(day, hole.begin, hole.end)
