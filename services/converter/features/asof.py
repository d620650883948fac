"""What was known of a symbol as of an instant? Settlements, predictions and rankings, looked up for bars. Pure.

An instant is Unix ms. There is no lookahead: what is published at the very instant of a close belongs to the next bar.
"""

from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Positions = NDArray[np.intp]

SETTLEMENT_VALID = timedelta(days=7)
"""A settled rate that is older than this when a bar closes does not count for the bar. Settlements are at most 8 hours
apart, so this is reached only where the exchange or we lost a week of them; and it bounds what one settlement can
change."""
PREDICTION_VALID = timedelta(hours=8)
"""The longest funding interval of OKX: an older prediction is for a settlement that is over."""

_MS = timedelta(milliseconds=1)
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000


def _no_ints() -> Ints:
    return np.array([], np.int64)


def _no_floats() -> Floats:
    return np.array([], np.float64)


@dataclass(frozen=True)
class SettledRates:
    """The settled funding rates of one symbol, ascending by time. hours: length of the period that ended, or NaN."""

    times: Ints = field(default_factory=_no_ints)
    rates: Floats = field(default_factory=_no_floats)
    hours: Floats = field(default_factory=_no_floats)


@dataclass(frozen=True)
class PredictedRates:
    """What the exchange expected, ascending by when it was known: the rate of the settlement at `due`."""

    known: Ints = field(default_factory=_no_ints)
    due: Ints = field(default_factory=_no_ints)
    rates: Floats = field(default_factory=_no_floats)
    hours: Floats = field(default_factory=_no_floats)


@dataclass(frozen=True)
class Rankings:
    """A symbol's place in each ranking, ascending by time. ranks: NaN where it was not ranked; members: 1 or 0."""

    times: Ints = field(default_factory=_no_ints)
    ranks: Floats = field(default_factory=_no_floats)
    members: Floats = field(default_factory=_no_floats)


@dataclass(frozen=True)
class Contract:
    """What is known of the instruments under a name.

    begins: when each of its lives began, ascending; empty: not known. known, values: what one contract was worth,
    ascending by when it became known.
    """

    begins: Ints = field(default_factory=_no_ints)
    known: Ints = field(default_factory=_no_ints)
    values: Floats = field(default_factory=_no_floats)


@dataclass(frozen=True)
class AsOf:
    """All that is known of one symbol beside its candles."""

    settlements: SettledRates = field(default_factory=SettledRates)
    predictions: PredictedRates = field(default_factory=PredictedRates)
    rankings: Rankings = field(default_factory=Rankings)
    contract: Contract = field(default_factory=Contract)


def settled_before(close_ms: Ints, settlements: SettledRates) -> Positions:
    """Return the position of the last settlement before each close, -1 where there is none that is young enough.

    A settlement at the very instant of the close belongs to the next bar: the exchange publishes it just after.
    """
    index = _last_before(close_ms, settlements.times)
    return _young(index, close_ms, settlements.times, SETTLEMENT_VALID // _MS)


def predicted_at(close_ms: Ints, predictions: PredictedRates) -> Positions:
    """Return the position of the prediction in force at each close, -1 where there is none.

    It is the last one known before the close, if its settlement is still to come. An older one is never fallen back
    on: a newer one has replaced it, whatever became of that.
    """
    index = _last_before(close_ms, predictions.known)
    index = _young(index, close_ms, predictions.known, PREDICTION_VALID // _MS)
    if not len(predictions.known):
        return index
    return np.where(predictions.due[np.maximum(index, 0)] >= close_ms, index, -1)


def lives_at(at_ms: Ints, contract: Contract) -> Ints:
    """Return how many lives had begun before each instant; 0: before the first one that is known of."""
    return np.searchsorted(contract.begins, at_ms, side="left").astype(np.int64)


def of_this_life(index: Positions, times: Ints, at_ms: Ints, contract: Contract) -> Positions:
    """Return positions of what was known at some instants, -1 where it was of another life than the instant's.

    What lies before the first listing that is known of counts as of the first life: there is no evidence of another.
    """
    if not len(contract.begins) or not len(times):
        return index
    born = lives_at(times[np.maximum(index, 0)] + 1, contract)  # what happens as a life begins is of that life
    same = np.maximum(born, 1) == np.maximum(lives_at(at_ms, contract), 1)
    return np.where((index >= 0) & same, index, -1)


def valued_at(close_ms: Ints, contract: Contract) -> Positions:
    """Return the position of the contract value in force at each close, as far as it was known before, else -1."""
    return of_this_life(_last_before(close_ms, contract.known), contract.known, close_ms, contract)


def _last_before(at_ms: Ints, times: Ints) -> Positions:
    """Return the position of the last of `times` before each instant, -1 where there is none. Both ascend.

    Settlements, predictions and rankings are far rarer than bars, so they are located among the bars: that is faster.
    """
    first_after = np.searchsorted(at_ms, times, side="right")
    return np.repeat(np.arange(-1, len(times), dtype=np.intp), np.diff(first_after, prepend=0, append=len(at_ms)))


def _young(index: Positions, at_ms: Ints, times: Ints, most_ms: int) -> Positions:
    if not len(times):
        return np.full(len(at_ms), -1, np.intp)
    return np.where((index >= 0) & (at_ms - times[np.maximum(index, 0)] <= most_ms), index, -1)


def ranked_at(open_ms: Ints, rankings: Rankings) -> Positions:
    """Return the position of the last ranking at or before each open, -1 where there is none.

    A bar is a member's if the symbol was a member when the bar opened, as in the instruments file.
    """
    return _last_before(open_ms + 1, rankings.times)


def taken(values: Floats, index: Positions) -> Floats:
    """Return the values at some positions, NaN at -1."""
    if not len(values):
        return np.full(len(index), np.nan)
    return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)


def paid_inside(open_ms: Ints, close_ms: Ints, settlements: SettledRates) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the sum of the rates settled in [open, close) of each bar, 0 where there was none; and where there was."""
    paid, settled = np.zeros(len(open_ms)), np.zeros(len(open_ms), bool)
    bars = np.searchsorted(close_ms, settlements.times, side="right")  # the first bar that closes after it
    inside = (bars < len(open_ms)) & (open_ms[np.minimum(bars, len(open_ms) - 1)] <= settlements.times)
    np.add.at(paid, bars[inside], settlements.rates[inside])  # one after the other, as by hand
    settled[bars[inside]] = True
    return paid, settled


def minutes_to_funding(close_ms: Ints, known: AsOf, settled: Positions, predicted: Positions) -> Floats:
    """Return how long after each close funding is settled next, as far as it was known then.

    As the prediction in force has it; without one, an interval after the last settlement, unless that is over.
    settled, predicted: positions as `settled_before` and `predicted_at` return them.
    """
    expected = taken(known.settlements.times + _HOUR_MS * known.settlements.hours, settled)
    guessed = np.where(expected >= close_ms, (expected - close_ms) / _MINUTE_MS, np.nan)
    scheduled = (taken(known.predictions.due.astype(np.float64), predicted) - close_ms) / _MINUTE_MS
    return np.where(predicted >= 0, scheduled, guessed)
