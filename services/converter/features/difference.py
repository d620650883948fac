"""From which instant on may bars differ, since what they are made of differs? Pure.

There is no lookahead: whatever happened, or became known, at an instant concerns only bars that close after it. So the
bars that closed by the first difference are as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta

import numpy as np

from services.converter.features.asof import (
    PREDICTION_VALID,
    SETTLEMENT_VALID,
    AsOf,
    Contract,
    Floats,
    Ints,
    PredictedRates,
    SettledRates,
)
from services.converter.lives import LONG_AGO
from shared.grid import MINUTE_MS, day_start, to_ms
from shared.ledger.minutes import runs

_DAY = timedelta(days=1)
SETTLED_DAYS, PREDICTED_DAYS = SETTLEMENT_VALID // _DAY, -(-PREDICTION_VALID // _DAY)
"""How many days before a bar what was known last may have become known."""


@dataclass(frozen=True)
class Inputs:
    """All that the bars of some days of a symbol are made of. opens, columns: its candles, in order of time.

    absent: for each day the mask of the minutes that the exchange has no candle of.
    """

    days: tuple[date, ...]
    opens: Ints
    columns: dict[str, Floats]
    absent: tuple[int, ...]
    known: AsOf

    def since(self, day: date) -> "Inputs":
        """Return the same from a day on."""
        skipped = self.days.index(day)
        first = int(np.searchsorted(self.opens, to_ms(day_start(day))))
        columns = {name: values[first:].copy() for name, values in self.columns.items()}
        known = replace(
            self.known,
            settlements=_rows_since(self.known.settlements, self.known.settlements.times, day - _DAY * SETTLED_DAYS),
            predictions=_rows_since(self.known.predictions, self.known.predictions.known, day - _DAY * PREDICTED_DAYS),
        )
        return Inputs(self.days[skipped:], self.opens[first:].copy(), columns, self.absent[skipped:], known)


def _rows_since[R: (SettledRates, PredictedRates)](rows: R, times: Ints, day: date) -> R:
    """Return the rows of a day and of those after it, as a copy: the others are not to be kept for them."""
    first = int(np.searchsorted(times, to_ms(day_start(day))))
    return replace(rows, **{column.name: getattr(rows, column.name)[first:].copy() for column in fields(rows)})


def first_difference(before: Inputs, now: Inputs) -> int | None:
    """Return the first instant at which two inputs differ, Unix ms; None where they are equal."""
    if before.days != now.days:
        return LONG_AGO
    found = (
        _first(before.opens, now.opens, list(before.columns.values()), [now.columns[name] for name in before.columns]),
        _of_masks(before, now),
        _of_known(before.known, now.known),
    )
    return min((instant for instant in found if instant is not None), default=None)


def _first(before: Ints, now: Ints, columns: Sequence[Floats], others: Sequence[Floats]) -> int | None:
    """Return the first time at which two tables in order of time differ. Two empty values are equal."""
    if before is now and all(one is other for one, other in zip(columns, others, strict=True)):
        return None
    common = min(len(before), len(now))
    differs = before[:common] != now[:common]
    for one, other in zip(columns, others, strict=True):
        left, right = one[:common], other[:common]
        differs |= (left != right) & ~(np.isnan(left) & np.isnan(right))
    at = int(differs.argmax()) if differs.any() else common
    return min((int(times[at]) for times in (before, now) if at < len(times)), default=None)


def _of_masks(before: Inputs, now: Inputs) -> int | None:
    for day, one, other in zip(before.days, before.absent, now.absent, strict=True):
        if one != other:
            minute, _ = next(runs(one ^ other))
            return to_ms(day_start(day)) + minute * MINUTE_MS
    return None


def _of_known(before: AsOf, now: AsOf) -> int | None:
    one, other = before.settlements, now.settlements
    ranks, others = before.rankings, now.rankings
    found = (
        _first(one.times, other.times, [one.rates, one.hours], [other.rates, other.hours]),
        _of_predictions(before, now),
        _first(ranks.times, others.times, [ranks.ranks, ranks.members], [others.ranks, others.members]),
        _of_contract(before.contract, now.contract),
    )
    return min((instant for instant in found if instant is not None), default=None)


def _of_predictions(before: AsOf, now: AsOf) -> int | None:
    one, other = before.predictions, now.predictions
    columns, others = (
        [one.due.astype(np.float64), one.rates, one.hours],
        [
            other.due.astype(np.float64),
            other.rates,
            other.hours,
        ],
    )
    return _first(one.known, other.known, columns, others)


def _of_contract(before: Contract, now: Contract) -> int | None:
    if bool(len(before.begins)) != bool(len(now.begins)):
        return LONG_AGO  # whether any life is known of is to be seen in every bar
    found = (_first(before.begins, now.begins, [], []), _first(before.known, now.known, [before.values], [now.values]))
    return min((instant for instant in found if instant is not None), default=None)
