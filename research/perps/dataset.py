"""CalendarDataset: training, validation and test as shares of the time that there is data for.

Data grows every day, so dates in a workflow would have to be moved by hand; shares of the calendar need not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from qlib.data import D
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP

from perps.arguments import check_names, instant, names_of

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


def first_bar(market: Any, freq: str) -> pd.Timestamp | None:
    """Return when a market had its first member; None where that is unknown, or it never had one.

    A young installation has history from before its first ranking, at which `top50` is empty.
    """
    if not isinstance(market, str):
        return None
    spans = D.list_instruments(D.instruments(market), freq=freq)
    begins = [begin for found in spans.values() for begin, _ in found]
    return min(begins, default=None)


def _market_of(handler: Any) -> Any:
    """Return the instruments of a handler, or of Qlib's settings of one."""
    if isinstance(handler, Mapping):
        return handler.get("kwargs", {}).get("instruments")
    return getattr(handler, "instruments", None)


def is_constant(columns: pd.DataFrame) -> bool:
    """Return whether no column has two different values."""
    least, most = columns.min(), columns.max()
    return bool(((least == most) | least.isna()).all())


def check_trainable(frame: pd.DataFrame, what: str) -> None:
    """Raise `ValueError` where a training set is empty, or its label or all of its features are constant.

    LightGBM fits a constant to those without an error. frame: columns in the groups `feature` and `label`. what: it is
    about, for the message.
    """
    advice = "take more symbols (MARKET=all), a longer span or a shorter frequency"
    if frame.empty:
        raise ValueError(
            f"nothing to learn from: no row of {what} has a label. Labels compare symbols with each other at the same "
            f"bar, so at least two of them must have one: {advice}"
        )
    groups = frame.columns.get_level_values(0) if frame.columns.nlevels > 1 else pd.Index([])
    for group in ("label", "feature"):
        columns = frame.loc[:, groups == group] if group in groups else None
        if columns is not None and not columns.empty and is_constant(columns):
            raise ValueError(f"nothing to learn from: the {group}s of {what} are constant: {advice}")


class CalendarDataset(DatasetH):
    """Qlib's DatasetH whose segments may be shares, in the order of time: `{train: 0.6, valid: 0.2, test: 0.2}`.

    Segments of dates, `{train: [2025-04-05, 2025-11-30], ...}`, work as in DatasetH. `freq` is the handler's, whose
    calendar is divided, between `begin` and `end` where they are given. All other arguments are DatasetH's; TypeError
    where it has no such one.
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
        check_names(type(self).__name__, kwargs, names_of(DatasetH) | {"handler_kwargs"})
        if all(isinstance(share, int | float) for share in segments.values()):
            begin = None if begin is None else instant("begin", begin)
            end = None if end is None else instant("end", end)
            market = _market_of(handler)
            calendar = D.calendar(start_time=begin or first_bar(market, freq), end_time=end, freq=freq)
            try:
                segments = divide(calendar, segments, gap)
            except ValueError as error:
                known = len(D.calendar(start_time=begin, end_time=end, freq=freq))
                raise ValueError(
                    f"{market}: {error}; the dataset has {known:,} {freq} bars, {len(calendar):,} of them since the "
                    "first member. MARKET=all takes every symbol from its first bar on, NAME=60min has 24 bars a day"
                ) from error
        super().__init__(handler=handler, segments=dict(segments), **kwargs)

    def prepare(self, segments: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the data of some segments; see DatasetH. Raises `ValueError` where there is nothing to learn from."""
        found = super().prepare(segments, *args, **kwargs)
        if kwargs.get("data_key") == DataHandlerLP.DK_L:
            names = [segments] if isinstance(segments, str) else list(segments)
            for name, frame in zip(names, [found] if isinstance(segments, str) else found, strict=True):
                if name == "train":
                    check_trainable(frame, f"the segment {name}")
        return found
