"""The bars of a dataset: which frequencies it has, and which bars lie in a span."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from qlib.data import D
from qlib.data.storage.file_storage import FileCalendarStorage
from qlib.utils.time import Freq

MINUTES_PER_DAY = 1440


def frequencies() -> dict[str, pd.Timedelta]:
    """Return the frequencies that the dataset has bars of, the finest first, with the length of a bar."""
    kinds = FileCalendarStorage(freq="day", future=False).support_freq
    return dict(sorted(((str(k), Freq.get_timedelta(k.count, k.base)) for k in kinds), key=lambda item: item[1]))


def has(freq: str) -> bool:
    """Return whether the dataset has bars of a frequency of its own; Qlib would make up a calendar otherwise."""
    return freq in frequencies()


def own(name: str, freq: Any) -> str:
    """Return a frequency as it is given; ValueError where the dataset has no bars of it."""
    if not isinstance(freq, str) or not has(freq):
        raise ValueError(f"{name} is {freq!r}: it must be one that the dataset has bars of, {', '.join(frequencies())}")
    return freq


def within(begin: pd.Timestamp, end: pd.Timestamp, freq: str) -> Sequence[pd.Timestamp]:
    """Return the bars that open from one instant to another, both included; ValueError where there is none."""
    bars: Sequence[pd.Timestamp] = D.calendar(begin, end, freq=freq)
    if not len(bars):
        every = D.calendar(freq=freq)
        raise ValueError(
            f"from start_time {begin} to end_time {end} there is no bar: the first {freq} bar of the dataset is "
            f"{every[0]}, the last {freq} bar of the dataset is {every[-1]}"
        )
    return bars


def bars_per_day(freq: str) -> int:
    """Return how many bars a UTC day has. Raises `ValueError` where `freq` does not divide a day."""
    count, unit = Freq.parse(freq)
    if unit == Freq.NORM_FREQ_DAY and count == 1:
        return 1
    if unit != Freq.NORM_FREQ_MINUTE or MINUTES_PER_DAY % count:
        raise ValueError(f"{freq}: neither a day nor minutes that divide one, such as 60min or 1min")
    bars: int = MINUTES_PER_DAY // count
    return bars
