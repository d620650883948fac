"""Rows → arrays on the grid: one value per field and bar, NaN where there is no bar. Pure.

Nothing is shifted, filled or interpolated. A value is computed in float64 and stored in float32, as Qlib reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from services.converter.calendars import Frequency
from shared.events import Aggregation, Candle, FundingRate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FUNDING_VALID = timedelta(days=7)
"""A settled rate that is older than this when a bar closes says nothing about the bar: NaN. Settlements are at most
8 hours apart, so this is reached only where the exchange or we lost a week of them; and it bounds what one settlement
can change."""

FIELDS = (*Candle.features, "vwap", *FundingRate.features)
"""Every field, in the order of the declarations; vwap is amount / volume of the bar."""


@dataclass(frozen=True)
class Settlements:
    """The settled funding rates of one symbol, by time. times: Unix ms, ascending."""

    times: Ints
    rates: Floats


def minute_grid(opens: Ints, columns: Mapping[str, Floats], begin_ms: int, minutes: int) -> dict[str, Floats]:
    """Lay candles on the minute grid.

    opens: Unix ms, one per candle; begin_ms: open of the first minute of the grid. Candles outside are left out.
    """
    positions = (opens - begin_ms) // 60_000
    inside = (positions >= 0) & (positions < minutes)
    grid = {}
    for name, values in columns.items():
        field = np.full(minutes, np.nan)
        field[positions[inside]] = values[inside]
        grid[name] = field
    return grid


def bars(grid: Mapping[str, Floats], frequency: Frequency) -> dict[str, Floats]:
    """Aggregate whole days of minutes to the bars of a frequency, from the minutes that exist."""
    return {name: _aggregate(grid[name].reshape(-1, frequency.minutes), how) for name, how in Candle.features.items()}


def _aggregate(minutes: Floats, how: Aggregation) -> Floats:
    present = ~np.isnan(minutes)
    empty = ~present.any(axis=1)
    rows = np.arange(minutes.shape[0])
    if how in {"first", "last"}:
        at = present.argmax(axis=1) if how == "first" else minutes.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
        chosen: Floats = minutes[rows, at]
        return chosen
    if how == "sum":
        return np.where(empty, np.nan, np.nansum(minutes, axis=1))
    filled = np.where(present, minutes, -np.inf if how == "max" else np.inf)
    extreme = filled.max(axis=1) if how == "max" else filled.min(axis=1)
    return np.where(empty, np.nan, extreme)


def vwap(fields: Mapping[str, Floats]) -> Floats:
    """Return the volume-weighted average price; the close where nothing was traded."""
    volume, amount, close = fields["volume"], fields["amount"], fields["close"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(volume > 0, amount / volume, close)


def funding_as_of(close_ms: Ints, settlements: Settlements) -> Floats:
    """Return the last rate settled before each bar closed: what was known then, no more.

    A settlement at the very instant of the close belongs to the next bar: the exchange tells it just after. Rates older
    than `FUNDING_VALID` are NaN.
    """
    index = np.searchsorted(settlements.times, close_ms, side="left") - 1
    if not len(settlements.times):
        return np.full(len(close_ms), np.nan)
    age = close_ms - settlements.times[np.maximum(index, 0)]
    valid = (index >= 0) & (age <= FUNDING_VALID // timedelta(milliseconds=1))
    return np.where(valid, settlements.rates[np.maximum(index, 0)], np.nan)


def features(
    grid: Mapping[str, Floats], frequency: Frequency, begin_ms: int, settlements: Settlements
) -> dict[str, NDArray[np.float32]]:
    """Return every field of every bar of some whole days, as Qlib stores it; without a candle all are NaN."""
    fields = bars(grid, frequency)
    fields["vwap"] = vwap(fields)
    step_ms = frequency.minutes * 60_000
    close_ms = begin_ms + step_ms * np.arange(1, len(fields["close"]) + 1, dtype=np.int64)
    rate = funding_as_of(close_ms, settlements)
    fields["funding_rate"] = np.where(np.isnan(fields["close"]), np.nan, rate)
    return {name: fields[name].astype("<f4") for name in FIELDS}
