"""Calendars as arithmetic, where a file of Qlib's is the grid: every bar of every UTC day, none left out.

Qlib parses a calendar label by label into an array of timestamps, and every frame that it makes turns a part of that
array into an index again. A year at 1min is half a million labels. The converter writes nothing but the grid, so here
the labels are compared with it as bytes, and then computed. A file with another text is left to Qlib.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.cache import H
from qlib.data.data import Cal, LocalCalendarProvider, LocalProvider
from qlib.data.storage.file_storage import FileCalendarStorage
from qlib.log import get_module_logger
from qlib.utils.time import Freq

from perps.bars import MINUTES_PER_DAY, bars_per_day

_NANOSECONDS_A_MINUTE = 60 * 10**9
_DATE = b"YYYY-MM-DD"
"""Stands for the date in the text of a day."""


class Places(Mapping[pd.Timestamp, int]):
    """The place of each bar in a calendar that is a grid, as the dict would say that Qlib keeps beside a calendar."""

    def __init__(self, bars: pd.DatetimeIndex, minutes: int) -> None:
        """bars: at least one, `minutes` apart."""
        self._bars = bars
        self._first, self._last = bars[0], bars[-1]
        self._step = minutes * _NANOSECONDS_A_MINUTE

    def __getitem__(self, time: Any) -> int:
        # Compared first: the nanoseconds of a time in the year 1500 are no number that pandas has.
        if isinstance(time, datetime) and time.tzinfo is None and self._first <= time <= self._last:
            place, rest = divmod(pd.Timestamp(time).value - self._first.value, self._step)
            if not rest:
                return int(place)
        raise KeyError(time)

    def __iter__(self) -> Iterator[pd.Timestamp]:
        return iter(self._bars)

    def __len__(self) -> int:
        return len(self._bars)


type Calendar = tuple[pd.DatetimeIndex, Places]


def grid_of(path: Path, bars_a_day: int) -> Calendar | None:
    """Return the calendar in a file; None where the file is not, to the last byte, a grid that begins at a midnight.

    bars_a_day: of the frequency; it divides the minutes of a day. The file is read from one handle, a day at a time:
    one that is replaced meanwhile, as the converter does, is read as it was.
    """
    minutes = MINUTES_PER_DAY // bars_a_day
    day_text = _day_text(minutes)
    width, bars = len(day_text) // bars_a_day, 0
    with path.open("rb") as file:
        first = _date(file.read(len(_DATE)))
        if first is None:
            return None
        file.seek(0)
        day = first
        while text := file.read(len(day_text)):
            if len(text) % width or not day_text.replace(_DATE, str(day).encode()).startswith(text):
                return None
            bars += len(text) // width
            day += timedelta(days=1)
    opens = np.datetime64(first, "ns") + np.arange(bars) * np.timedelta64(minutes, "m")
    calendar = pd.DatetimeIndex(opens)
    return calendar, Places(calendar, minutes)


def _day_text(minutes: int) -> bytes:
    """Return the lines of a day: dates for days, date and time otherwise, as the converter and Qlib write them."""
    if minutes == MINUTES_PER_DAY:
        return _DATE + b"\n"
    times = (f" {at // 60:02}:{at % 60:02}:00\n".encode() for at in range(0, MINUTES_PER_DAY, minutes))
    return b"".join(_DATE + time for time in times)


def _date(text: bytes) -> date | None:
    try:
        return date.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None


class GridCalendarProvider(LocalCalendarProvider):
    """Qlib's calendars from its files, computed where a file is the grid. `perps.init` chooses this provider.

    The same instants by the same rules: a calendar is kept until `H.clear()` (`perps.refresh` and `qlib.init` do that),
    however its file grows, and what has no `_future` file is its own future. What Qlib asks for in order to read bars
    is a `DatetimeIndex`, of which a frame takes its times at once.
    """

    def calendar(self, start_time: Any = None, end_time: Any = None, freq: str = "day", future: bool = False) -> Any:
        """Return a calendar, or a part of it; see Qlib's CalendarProvider."""
        if future:  # only a backtest asks for it, and wants nothing but Qlib's array
            return self.timestamps(start_time, end_time, freq, future)
        return super().calendar(start_time, end_time, freq, future)

    def timestamps(self, start_time: Any = None, end_time: Any = None, freq: str = "day", future: bool = False) -> Any:
        """Return the same as Qlib does: an array of `pd.Timestamp`. The first call makes all, and they are kept."""
        found = super().calendar(start_time, end_time, freq, future)
        if not isinstance(found, pd.DatetimeIndex):
            return found
        bars, places = self._get_calendar(freq, future)
        key = f"{freq}_future_{future}_timestamps"
        if key not in H["c"]:
            H["c"][key] = bars.astype(object).to_numpy()
        first = places[found[0]] if len(found) else 0
        return H["c"][key][first : first + len(found)]

    def _get_calendar(self, freq: str, future: bool) -> tuple[Any, Any]:
        flag = f"{freq}_future_{future}"  # where Qlib keeps it
        if flag not in H["c"]:
            found = self._grid(freq, future=future)
            H["c"][flag] = super()._get_calendar(freq, future) if found is None else found
        kept: tuple[Any, Any] = H["c"][flag]
        return kept

    def _grid(self, freq: str, *, future: bool) -> tuple[Any, Any] | None:
        storage = self.backend_obj(freq=freq, future=future)
        if not isinstance(storage, FileCalendarStorage) or Freq(freq) not in storage.support_freq:
            return None
        path = storage.uri
        if future and not path.exists():
            get_module_logger("data").warning(f"{freq} has no future calendar, {path}: the calendar itself is taken")
            return self._get_calendar(freq, future=False)
        # By file, as Qlib caches its lines: what two names of a frequency show is equally old.
        key = f"grid{path}"
        if key not in H["c"]:
            H["c"][key] = _grid_at(path, freq)
        kept: Calendar | None = H["c"][key]
        return kept


def _grid_at(path: Path, freq: str) -> Calendar | None:
    """Return the calendar in a file, None where it is no grid of that frequency, or there is no file."""
    try:
        return grid_of(path, bars_per_day(freq))
    except (ValueError, FileNotFoundError):  # neither a day nor a part of one; Qlib says what it says of no file
        return None


class GridProvider(LocalProvider):
    """Qlib's `D` on top of it: `D.calendar` returns what it does without the kit, an array of `pd.Timestamp`."""

    def calendar(self, start_time: Any = None, end_time: Any = None, freq: str = "day", future: bool = False) -> Any:
        """Return a calendar, or a part of it; see Qlib's CalendarProvider."""
        # Another provider of calendars may have been given to `perps.init`.
        ask = getattr(Cal, "timestamps", Cal.calendar)
        return ask(start_time, end_time, freq, future)
