"""CalendarDataset: training, validation and test as shares of the time that there is data for.

Data grows every day, so dates in a workflow would have to be moved by hand; shares of the calendar need not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from qlib.data import D
from qlib.data.dataset import DatasetH

LABEL_BARS = 2
"""Bars that the label of `perps.handlers` looks ahead at a horizon of 1, one more than the horizon.

Without a gap as long as that, one segment would learn another's prices.
"""

MINIMUM_BARS = 10
"""Fewer bars than these cannot be divided into three parts that mean anything."""

Segment = tuple[pd.Timestamp, pd.Timestamp]


def divide(calendar: Sequence[pd.Timestamp], shares: Mapping[str, float], gap: int = LABEL_BARS) -> dict[str, Segment]:
    """Divide a calendar into consecutive segments of the given shares, with `gap` bars between them left out.

    Returns the first and the last bar of each segment. Raises `ValueError` where shares are not positive or more than
    the whole, or where there are too few bars.
    """
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"segments {dict(shares)}: shares of the calendar are positive and at most 1 together")
    if len(calendar) < MINIMUM_BARS:
        raise ValueError(
            f"{len(calendar)} bars of data are too few to train and test on: collect more, or take a shorter frequency"
        )
    segments, done = {}, 0.0
    for number, (name, share) in enumerate(shares.items()):
        first, end = round(done * len(calendar)), round((done + share) * len(calendar))
        last = end - 1 - (gap if number < len(shares) - 1 else 0)
        if last < first:
            raise ValueError(f"segment {name}: {share:.0%} of {len(calendar)} bars leave nothing beside a gap of {gap}")
        segments[name] = (calendar[first], calendar[last])
        done += share
    return segments


class CalendarDataset(DatasetH):
    """Qlib's DatasetH whose segments may be shares, in the order of time: `{train: 0.6, valid: 0.2, test: 0.2}`.

    Segments of dates, `{train: [2025-04-05, 2025-11-30], ...}`, work as in DatasetH. `freq` is the handler's, whose
    calendar is divided, between `begin` and `end` where they are given.
    """

    def __init__(
        self,
        handler: Any,
        segments: Mapping[str, Any],
        *,
        freq: str = "day",
        begin: Any = None,
        end: Any = None,
        gap: int = LABEL_BARS,
        **kwargs: Any,
    ) -> None:
        if all(isinstance(share, int | float) for share in segments.values()):
            segments = divide(D.calendar(start_time=begin, end_time=end, freq=freq), segments, gap)
        super().__init__(handler=handler, segments=dict(segments), **kwargs)
