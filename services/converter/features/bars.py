"""Minutes of a symbol → the bars of a frequency. Pure.

Nothing is shifted, filled or interpolated. A bar's prices exist where the bar is whole: each of its minutes has a
candle, or none at the exchange.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.converter.features.asof import (
    AsOf,
    Floats,
    Ints,
    Positions,
    lives_at,
    of_this_life,
    predicted_at,
    ranked_at,
    settled_before,
    valued_at,
)
from services.converter.qlib.frequencies import Frequency
from shared.grid import MINUTE_MS, MINUTES_PER_DAY
from shared.ledger.minutes import runs

Bools = NDArray[np.bool_]
Aggregation = Literal["first", "max", "min", "last", "sum"]

_NEUTRAL: dict[Aggregation, float] = {"sum": 0.0, "max": -np.inf, "min": np.inf}
"""What a minute without candle has to be, to leave an aggregation as it is."""

PartialBars = Literal["nan", "keep"]
"""What becomes of a bar that lacks minutes which the exchange may have: nothing, or what its other minutes make it."""


@dataclass(frozen=True)
class Minutes:
    """Some whole days of a symbol on the minute grid.

    begin_ms: the first midnight. columns: a value per minute, NaN where there is no candle. without: the minutes of
    which the exchange has no candle.
    """

    begin_ms: int
    columns: Mapping[str, Floats]
    present: Bools
    without: Bools
    known: AsOf

    @property
    def count(self) -> int:
        """Number of minutes."""
        return len(self.present)

    def filled(self, column: str, absent: float) -> Floats:
        """Return a column with a value of its own where there is no candle."""
        if (column, absent) not in self._filled:
            self._filled[column, absent] = np.where(self.present, self.columns[column], absent)
        return self._filled[column, absent]

    @cached_property
    def _filled(self) -> dict[tuple[str, float], Floats]:
        return {}


def on_grid(
    opens: Ints, columns: Mapping[str, Floats], begin_ms: int, absent: list[int], known: AsOf | None = None
) -> Minutes:
    """Lay candles on the minute grid of some days.

    opens: Unix ms, one per candle, those outside are left out. absent: for each day the mask of the minutes that the
    exchange has no candle of.
    """
    minutes = len(absent) * MINUTES_PER_DAY
    positions = (opens - begin_ms) // MINUTE_MS
    inside = (positions >= 0) & (positions < minutes)
    if not inside.all():
        positions, columns = positions[inside], {name: values[inside] for name, values in columns.items()}
    present = np.zeros(minutes, bool)
    present[positions] = True
    grid = {}
    for name, values in columns.items():
        grid[name] = np.full(minutes, np.nan)
        grid[name][positions] = values
    return Minutes(begin_ms, grid, present, _spread(absent) & ~present, known or AsOf())


def _spread(masks: list[int]) -> Bools:
    found = np.zeros(len(masks) * MINUTES_PER_DAY, bool)
    for day, mask in enumerate(masks):
        for first, last in runs(mask):
            found[day * MINUTES_PER_DAY + first : day * MINUTES_PER_DAY + last + 1] = True
    return found


@dataclass(frozen=True)
class Bars:
    """The same days as the bars of one frequency, which divides the day."""

    minutes: Minutes
    frequency: Frequency
    partial: PartialBars = "nan"

    def _rows[T: np.generic](self, values: NDArray[T]) -> NDArray[T]:
        return values.reshape(-1, self.frequency.minutes)

    @cached_property
    def open_ms(self) -> Ints:
        """Unix ms of each bar's open."""
        step = self.frequency.minutes * MINUTE_MS
        return self.minutes.begin_ms + step * np.arange(self.minutes.count // self.frequency.minutes, dtype=np.int64)

    @cached_property
    def close_ms(self) -> Ints:
        """Unix ms of each bar's close: the open of the next."""
        return self.open_ms + self.frequency.minutes * MINUTE_MS

    @cached_property
    def candles(self) -> Ints:
        """Number of candles in each bar."""
        return self._rows(self.minutes.present).sum(axis=1, dtype=np.int64)

    @cached_property
    def whole(self) -> Bools:
        """Whether nothing lacks in a bar that has a candle; under `partial="keep"`, whether it has one.

        A bar with candles of two lives is the bar of neither.
        """
        some = (self.candles > 0) & ~self._mixed
        if self.partial == "keep":
            return some
        return some & self._rows(self.minutes.present | self.minutes.without).all(axis=1)

    @cached_property
    def _mixed(self) -> Bools:
        """Whether a bar has candles from before a life of the instrument began and from after."""
        found = np.zeros(len(self.open_ms), bool)
        begins = self.minutes.known.contract.begins
        for begin in begins[(begins > self.minutes.begin_ms) & (begins < self.close_ms[-1])].tolist():
            minute = (begin - self.minutes.begin_ms) // MINUTE_MS
            bar, before = divmod(minute, self.frequency.minutes)
            row = self._rows(self.minutes.present)[bar]
            found[bar] |= row[:before].any() and row[before:].any()
        return found

    @cached_property
    def begun(self) -> Bools:
        """Whether a bar, or one before it on the same UTC day, has a candle."""
        days = (self.candles > 0).reshape(-1, self.frequency.bars_per_day)
        return np.logical_or.accumulate(days, axis=1).reshape(-1)

    @cached_property
    def settled(self) -> Positions:
        """Position of the last settlement of its life before each close, see `settled_before`."""
        known = self.minutes.known
        index = settled_before(self.close_ms, known.settlements)
        return of_this_life(index, known.settlements.times, self.close_ms, known.contract)

    @cached_property
    def predicted(self) -> Positions:
        """Position of the prediction of its life in force at each close, see `predicted_at`."""
        known = self.minutes.known
        index = predicted_at(self.close_ms, known.predictions)
        return of_this_life(index, known.predictions.known, self.close_ms, known.contract)

    @cached_property
    def ranked(self) -> Positions:
        """Position of the last ranking at or before each open, see `ranked_at`."""
        return ranked_at(self.open_ms, self.minutes.known.rankings)

    @cached_property
    def lives(self) -> Ints:
        """Number of the life of each bar, see `lives_at`."""
        return lives_at(self.close_ms, self.minutes.known.contract)

    @cached_property
    def valued(self) -> Positions:
        """Position of the contract value in force at each close, see `valued_at`."""
        return valued_at(self.close_ms, self.minutes.known.contract)

    @cached_property
    def _aggregated(self) -> dict[str, Floats]:
        return {}

    def aggregate(self, column: str, how: Aggregation) -> Floats:
        """Return what the minutes of each bar make of a column, NaN where the bar is not whole."""
        if self.frequency.minutes == 1:
            return self.minutes.columns[column]
        if column not in self._aggregated:
            self._aggregated[column] = np.where(self.whole, self._aggregate(column, how), np.nan)
        return self._aggregated[column]

    def _aggregate(self, column: str, how: Aggregation) -> Floats:
        """Return what the minutes of each bar make of a column, whatever where the bar has no candle."""
        if how in {"first", "last"}:
            chosen: Floats = self.minutes.columns[column][self._first if how == "first" else self._last]
            return chosen
        rows = self._rows(self.minutes.filled(column, _NEUTRAL[how]))
        if how == "sum":
            added: Floats = rows.sum(axis=1)
            return added
        return rows.max(axis=1) if how == "max" else rows.min(axis=1)

    @cached_property
    def _first(self) -> Positions:
        """The first minute of each bar that has a candle."""
        return self._starts + self._rows(self.minutes.present).argmax(axis=1)

    @cached_property
    def _last(self) -> Positions:
        """The last minute of each bar that has a candle."""
        return self._starts + self.frequency.minutes - 1 - self._rows(self.minutes.present)[:, ::-1].argmax(axis=1)

    @property
    def _starts(self) -> Positions:
        return np.arange(0, self.minutes.count, self.frequency.minutes, dtype=np.intp)
