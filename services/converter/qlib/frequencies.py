"""Qlib's calendars: the 24/7 grid, as instants and as positions. Pure.

The calendar is arithmetic, never the union of the data: an outage of the whole market leaves NaN, it shifts nothing.
Position 0 is the origin, midnight UTC of the first raw day. Labels are the open of a bar, UTC without a zone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

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
    """Return the text of `count` bars from position `first` on: dates for days, date and time otherwise.

    origin: a midnight. The labels of a day differ from those of another in the date alone, so they are put together
    from both as bytes: a calendar of three years has 1.6 million of them.
    """
    day, ahead = divmod(first, frequency.bars_per_day)
    days = -(-(ahead + count) // frequency.bars_per_day)
    dates = np.datetime64(origin.date() + timedelta(days=day), "D") + np.arange(days)
    parts = [_spelled(dates, len("2025-04-05"))[:, None, :]]
    if frequency.bars_per_day > 1:
        opens = np.arange(frequency.bars_per_day) * np.timedelta64(frequency.minutes, "m")
        midnight = np.datetime64("1970-01-01", "s")
        times = _spelled(midnight + opens, len("1970-01-01T00:00:00"))[None, :, len("1970-01-01") :]
        parts.append(np.where(times == ord("T"), np.uint8(ord(" ")), times))
    parts.append(np.full((1, 1, 1), ord("\n"), np.uint8))
    shape = days, frequency.bars_per_day
    text = np.concatenate([np.broadcast_to(part, (*shape, part.shape[2])) for part in parts], axis=2)
    labels = text.reshape(-1, text.shape[2])[ahead : ahead + count]
    return labels.tobytes().decode("ascii")


def _spelled(instants: NDArray[np.datetime64], width: int) -> NDArray[np.uint8]:
    """Spell instants, a row of `width` characters each."""
    return np.datetime_as_string(instants).astype(f"S{width}").view(np.uint8).reshape(len(instants), width)


def future_bars(bars: int) -> int:
    """Return how many bars a future calendar has, where the calendar itself has `bars`."""
    return bars + FUTURE_BARS
