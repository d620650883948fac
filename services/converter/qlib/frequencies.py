"""Qlib's calendars: the 24/7 grid, as instants and as positions. Pure.

The calendar is arithmetic, never the union of the data: an outage of the whole market leaves NaN, it shifts nothing.
Position 0 is the origin, midnight UTC of the first raw day. Labels are the open of a bar, UTC without a zone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from shared.grid import MINUTES_PER_DAY

FUTURE_BARS = 30
"""Bars of a `_future` calendar beyond the data: Qlib's backtest reads one bar past its last."""


@dataclass(frozen=True)
class Frequency:
    """One row of the table of frequencies: Qlib's name, minutes a bar, and whether a future calendar is written."""

    name: str
    minutes: int
    future: bool

    @property
    def step(self) -> timedelta:
        """Return the length of a bar."""
        return timedelta(minutes=self.minutes)

    @property
    def bars_per_day(self) -> int:
        """Return how many bars a UTC day has; a frequency divides the day."""
        return MINUTES_PER_DAY // self.minutes

    def position(self, origin: datetime, open_time: datetime) -> int:
        """Return the position of the bar that an instant lies in."""
        return (open_time - origin) // self.step

    def bars_until(self, origin: datetime, until: datetime) -> int:
        """Return how many bars are over at `until`: a bar counts when its last minute does."""
        return max(0, (until - origin) // self.step)


#: Every frequency that is written. Qlib resamples 24/7 markets wrongly, so all are native; one row each.
FREQUENCIES = (
    Frequency("1min", 1, future=False),
    Frequency("5min", 5, future=True),
    Frequency("15min", 15, future=True),
    Frequency("30min", 30, future=True),
    Frequency("60min", 60, future=True),
    Frequency("240min", 240, future=True),
    Frequency("day", MINUTES_PER_DAY, future=True),
)


def calendar_lines(frequency: Frequency, origin: datetime, first: int, count: int) -> str:
    """Return the text of `count` bars from position `first` on: dates for days, date and time otherwise."""
    start = np.datetime64(origin.replace(tzinfo=None), "s")
    opens = start + np.arange(first, first + count) * np.timedelta64(frequency.minutes * 60, "s")
    if frequency.minutes % MINUTES_PER_DAY == 0:
        labels = np.datetime_as_string(opens, unit="D")
    else:
        labels = np.char.replace(np.datetime_as_string(opens, unit="s"), "T", " ")
    return "".join(f"{label}\n" for label in labels)


def future_bars(bars: int) -> int:
    """Return how many bars a future calendar has, where the calendar itself has `bars`."""
    return bars + FUTURE_BARS
