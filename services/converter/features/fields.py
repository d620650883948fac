"""Every field that Qlib gets, declared once: what it means, and how it is computed from the bars. Pure.

docs/fields.md is made from this table. A value is computed in float64 and stored in float32, as Qlib reads it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.converter.features.asof import Floats, minutes_to_funding, paid_inside, taken
from services.converter.features.bars import Aggregation, Bars, PartialBars
from services.converter.qlib.frequencies import FREQUENCIES

_LEAST = np.finfo(np.float32).tiny
"""The smallest size that float32 holds with all its digits."""

CANDLES, RANKINGS, DEFINITIONS = "candles", "rankings", "definitions of instruments"
SETTLED, PREDICTED = "settled funding rates", "predicted funding rates"


@dataclass(frozen=True)
class Field:
    """One field: its row in the documentation, and what computes it."""

    name: str
    meaning: str
    unit: str
    clock: str
    """At which instant, seen from the bar, it is true or was known."""
    source: str
    of: Callable[[Bars], Floats]
    column: str | None = None
    """The column of a candle that it is read from."""


@dataclass(frozen=True)
class BarRecipe:
    """What decides how bars are computed: another recipe gives other values from the same candles."""

    partial_bars: PartialBars = "nan"
    stock_fields: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that are written."""
        return FIELDS + (STOCK_FIELDS if self.stock_fields else ())

    def name(self) -> str:
        """Name the recipe: a dataset that was made by another one has to be computed again."""
        frequencies = ",".join(frequency.name for frequency in FREQUENCIES)
        return f"{frequencies}; {','.join(field.name for field in self.fields)}; partial={self.partial_bars}"


def fields_named(recipe: str) -> frozenset[str]:
    """Return the fields of a recipe from its name; none, where it has none."""
    parts = recipe.split("; ")
    return frozenset(parts[1].split(",")) if len(parts) > 1 else frozenset()


def _of_candles(column: str, how: Aggregation) -> Callable[[Bars], Floats]:
    return lambda bars: bars.aggregate(column, how)


def _vwap(bars: Bars) -> Floats:
    """Return amount / volume: the volume-weighted average price; the close where nothing was traded."""
    volume, amount = bars.aggregate("volume", "sum"), bars.aggregate("amount", "sum")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(volume > 0, amount / volume, bars.aggregate("close", "last"))


def _change(bars: Bars) -> Floats:
    """Return close / the close of the bar just before - 1. The first bar of what is given has none before."""
    close = bars.aggregate("close", "last")
    before = np.concatenate([[np.nan], close[:-1]])
    before[1:][np.diff(bars.lives) != 0] = np.nan
    changed: Floats = close / before - 1
    return changed


def _where_traded(compute: Callable[[Bars], Floats]) -> Callable[[Bars], Floats]:
    """Let a field that is not made of prices exist in every bar that has a candle, also where it is not whole."""
    return lambda bars: np.where(bars.candles > 0, compute(bars), np.nan)


def _funding_paid(bars: Bars) -> Floats:
    """Return the sum of the rates settled inside. It exists also where there is no candle: who holds on, pays.

    But only behind a candle of the same day: what comes later must not decide whether it exists.
    """
    paid, settled = paid_inside(bars.open_ms, bars.close_ms, bars.minutes.known.settlements)
    return np.where((bars.candles > 0) | (settled & bars.begun), paid, np.nan)


def _funding_interval(bars: Bars) -> Floats:
    known = bars.minutes.known
    predicted = taken(known.predictions.hours, bars.predicted)
    ended = taken(known.settlements.hours, bars.settled)
    return np.where(np.isnan(predicted), ended, predicted)


def _funding_rate(bars: Bars) -> Floats:
    return taken(bars.minutes.known.settlements.rates, bars.settled)


def _funding_predicted(bars: Bars) -> Floats:
    return taken(bars.minutes.known.predictions.rates, bars.predicted)


def _funding_rank(bars: Bars) -> Floats:
    return taken(bars.minutes.known.rankings.ranks, bars.ranked)


def _in_universe(bars: Bars) -> Floats:
    return taken(bars.minutes.known.rankings.members, bars.ranked)


def _life(bars: Bars) -> Floats:
    known = bool(len(bars.minutes.known.contract.begins))
    return bars.lives.astype(np.float64) if known else np.full(len(bars.open_ms), np.nan)


def _contract_value(bars: Bars) -> Floats:
    return taken(bars.minutes.known.contract.values, bars.valued)


def _candle(name: str, meaning: str, unit: str, how: Aggregation) -> Field:
    return Field(name, meaning, unit, "inside the bar", CANDLES, _of_candles(name, how), column=name)


#: Every field, in order. A new one is one row here.
FIELDS = (
    _candle("open", "first price", "quote currency", "first"),
    _candle("high", "highest price", "quote currency", "max"),
    _candle("low", "lowest price", "quote currency", "min"),
    _candle("close", "last price", "quote currency", "last"),
    _candle("volume", "traded, contracts converted by the exchange", "base coin", "sum"),
    _candle("amount", "traded", "quote currency", "sum"),
    _candle("contracts", "traded, as the exchange counts", "contracts", "sum"),
    Field(
        "vwap",
        "amount / volume; the close where nothing was traded",
        "quote currency",
        "inside the bar",
        CANDLES,
        _vwap,
    ),
    Field(
        "funding_rate",
        "the last settled rate, at most 7 days old; + longs pay",
        "share of the position",
        "settled before the close",
        SETTLED,
        _where_traded(_funding_rate),
    ),
    Field(
        "funding_predicted",
        "the rate that the exchange expected for the next settlement; NaN where it was not recorded, as in history",
        "share of the position",
        "known before the close",
        PREDICTED,
        _where_traded(_funding_predicted),
    ),
    Field(
        "funding_paid",
        "sum of the rates settled inside the bar, 0 where there was none: what a backtest charges",
        "share of the position",
        "open <= settlement < close",
        SETTLED,
        _funding_paid,
    ),
    Field(
        "funding_interval",
        "between two settlements, of the prediction; without one, of the last settlement",
        "hours",
        "known before the close",
        f"{PREDICTED}, {SETTLED}",
        _where_traded(_funding_interval),
    ),
    Field(
        "minutes_to_funding",
        "until the next settlement, as it was expected",
        "minutes",
        "from the close on, known before it",
        f"{PREDICTED}, {SETTLED}",
        _where_traded(lambda bars: minutes_to_funding(bars.close_ms, bars.minutes.known, bars.settled, bars.predicted)),
    ),
    Field(
        "funding_rank",
        "place in the last ranking of all swaps by funding rate; 1 is the first",
        "place",
        "ranked at or before the open",
        RANKINGS,
        _where_traded(_funding_rank),
    ),
    Field(
        "in_universe",
        "1 where the symbol was a member, 0 where not; NaN before the first ranking",
        "1 or 0",
        "ranked at or before the open",
        RANKINGS,
        _where_traded(_in_universe),
    ),
    Field(
        "coverage",
        "minutes with a candle",
        "share of the bar's minutes",
        "inside the bar",
        CANDLES,
        _where_traded(lambda bars: bars.candles / bars.frequency.minutes),
    ),
    Field(
        "life",
        "number of the instrument under this name: another one where the name was given to another asset, was listed "
        "again or redenominated; 0 before the first listing known of, NaN where none is known",
        "count",
        "listed before the close",
        DEFINITIONS,
        _where_traded(_life),
    ),
    Field(
        "contract_value",
        "of one contract; NaN before it was known, as in history",
        "base coin; quote currency of inverse contracts",
        "known before the close",
        DEFINITIONS,
        _where_traded(_contract_value),
    ),
)

#: With `STOCK_FIELDS` only: they make Qlib's stock rules apply.
STOCK_FIELDS = (
    Field(
        "factor", "1: prices are never adjusted", "1", "always", CANDLES, lambda bars: np.where(bars.whole, 1.0, np.nan)
    ),
    Field(
        "change",
        "close / the close of the bar before - 1, inside one life",
        "share",
        "from close to close",
        CANDLES,
        _change,
    ),
)

COLUMNS = tuple(field.column for field in FIELDS if field.column is not None)
"""The columns of candles that are read."""


def features(bars: Bars, fields: Iterable[Field] = FIELDS) -> dict[str, NDArray[np.float32]]:
    """Return every field of every bar, as Qlib stores it."""
    return {field.name: as_float32(field.of(bars)) for field in fields}


def as_float32(values: Floats) -> NDArray[np.float32]:
    """Return values as Qlib stores them, NaN where float32 cannot hold one: never infinite, and never 0 for another."""
    with np.errstate(over="ignore", under="ignore"):
        stored = values.astype("<f4")
    lost = np.abs(stored) < _LEAST
    lost &= values != 0
    lost |= np.isinf(stored)
    stored[lost] = np.nan
    return stored


def as_markdown() -> str:
    """Return the table of the documentation."""
    head = ["| field | meaning | unit | true or known | source |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(documentation_of, (*FIELDS, *STOCK_FIELDS))]) + "\n"


def documentation_of(one: Field) -> str:
    """Return the row of a field in the documentation."""
    meaning = f"{one.meaning}; only with `STOCK_FIELDS=true`" if one in STOCK_FIELDS else one.meaning
    return f"| `${one.name}` | {meaning} | {one.unit} | {one.clock} | {one.source} |"
