"""Every field of the dataset, computed once more from the raw Parquet files with pandas, by its definition.

No code is shared with the converter: what both agree on did not pass through one common mistake. Plain rather than
fast; instants are Unix ms throughout. A bar is [open, close), close = open + step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.judges.bins import FREQUENCIES, Times
from proofs.units import DAY_MS, HOUR_MS, MINUTE_MS

Frame = Any
"""A pandas DataFrame: pandas has no types."""

RATE_HOLDS_MS = 7 * DAY_MS
PREDICTION_HOLDS_MS = 8 * HOUR_MS
_CANDLE_COLUMNS = ("open", "high", "low", "close", "volume", "amount", "contracts")


class RawError(Exception):
    """The raw folder cannot be judged; the text names the file or the rows."""


@dataclass(frozen=True)
class Options:
    """What the dataset was made with."""

    partial_bars: bool = False
    """Whether a bar that lacks minutes is computed from those that exist."""
    stock_fields: bool = False


@dataclass(frozen=True)
class Raw:
    """A raw folder, read whole once but for the candles, which are read by symbol."""

    root: Path

    @cached_property
    def candle_files(self) -> dict[str, list[Path]]:
        """Symbol → its day files, oldest first."""
        found: dict[str, list[Path]] = {}
        for path in self._files("kline_1m"):
            found.setdefault(path.stem.rpartition("_")[0], []).append(path)
        return found

    def _files(self, dataset: str) -> list[Path]:
        """Return the day files, oldest first; a temporary file begins with a dot."""
        return [path for path in sorted(self.root.glob(f"{dataset}/date=*/*.parquet")) if path.name[0] != "."]

    @cached_property
    def first_day(self) -> int:
        """Midnight of the first day that has candles."""
        if not self.candle_files:
            raise RawError(f"{self.root} holds no candles")
        return min(_day_of(files[0]) for files in self.candle_files.values())

    def candles(self, symbol: str) -> Frame:
        """Return a symbol's candles, by open."""
        table = _read(self.candle_files[symbol], ["interval", "open_time", *_CANDLE_COLUMNS])
        table["open_time"] = _ms(table["open_time"])
        table = table[table["interval"] == "1m"].set_index("open_time").sort_index()
        if not table.index.is_unique or (table.index % MINUTE_MS != 0).any():
            raise RawError(f"{symbol}: a minute is stored twice, or opens off the minute")
        return table[[*_CANDLE_COLUMNS]]

    @cached_property
    def funding(self) -> dict[str, Frame]:
        """Symbol → settlements, by time."""
        return self._by_symbol("funding", "funding_time", ("funding_time",))

    @cached_property
    def predictions(self) -> dict[str, Frame]:
        """Symbol → predictions, by the instant when they were known."""
        return self._by_symbol("funding_predicted", "known_time", ("known_time", "funding_time"))

    @cached_property
    def rankings(self) -> dict[str, Frame]:
        """Symbol → its places, by the instant of the ranking."""
        return self._by_symbol("universe", "ranked_time", ("ranked_time",))

    @cached_property
    def definitions(self) -> dict[str, Frame]:
        """Symbol → what the exchange said of the instrument, by the instant when it was known."""
        return self._by_symbol("instruments", "known_time", ("known_time", "list_time", "end_time"))

    @cached_property
    def ranked_times(self) -> Times:
        """The instants of all rankings, in order."""
        times = [frame["ranked_time"].to_numpy(np.int64) for frame in self.rankings.values()]
        return np.unique(np.concatenate(times)) if times else np.zeros(0, np.int64)

    @cached_property
    def confirmed(self) -> dict[str, Times]:
        """Symbol → opens of the minutes of which the exchange has no candle, or stood still; none that was refused."""
        found: dict[str, list[Times]] = {}
        files = self._files("ledger")
        rows = _read(files, None) if files else pd.DataFrame()
        for row in rows.itertuples():
            midnight = int(row.day.value // 1_000_000)
            for text in (row.absent, row.halted):
                minutes = np.setdiff1d(_minutes(text), _minutes(getattr(row, "refused", "")))
                found.setdefault(row.symbol, []).append(midnight + MINUTE_MS * minutes)
        return {symbol: np.unique(np.concatenate(times)) for symbol, times in found.items()}

    def _by_symbol(self, dataset: str, key: str, times: tuple[str, ...]) -> dict[str, Frame]:
        files = self._files(dataset)
        if not files:
            return {}
        table = _read(files, None)
        for name in times:
            table[name] = _ms(table[name]) if table[name].notna().all() else table[name].map(_ms_or_none)
        if table.duplicated(["symbol", key]).any():
            raise RawError(f"{dataset}: two rows of a symbol have the same {key}")
        table = table.sort_values(key)
        return {str(symbol): rows.reset_index(drop=True) for symbol, rows in table.groupby("symbol")}


def _read(paths: list[Path], columns: list[str] | None) -> Frame:
    """Read many files at once: opening them is what takes long."""
    try:
        return pq.read_table([str(path) for path in paths], columns=columns, partitioning=None).to_pandas()
    except (OSError, ValueError) as error:
        raise RawError(f"{paths[0].parent.parent}: {error}") from error


def _day_of(path: Path) -> int:
    return int(pd.Timestamp(path.parent.name.removeprefix("date=")).value // 1_000_000)


def _ms(times: Any) -> Any:
    """Return instants as Unix ms, whatever unit they were stored in."""
    return times.astype("datetime64[ms, UTC]").astype("int64")


def _ms_or_none(time: Any) -> float:
    return np.nan if pd.isna(time) else time.value // 1_000_000


def _minutes(text: str | None) -> Times:
    """Return the minutes of a day that are spelled as inclusive runs: 0-99,101-1439."""
    runs = [run.split("-") for run in (text or "").split(",") if run]
    parts = [np.arange(int(first), int(last) + 1, dtype=np.int64) for first, last in runs]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class SymbolFacts:
    """Everything that is known about one symbol up to `until`."""

    candles: Frame
    confirmed: Times
    """Minutes that are confirmed to have no candle, and have none."""
    funding: Frame | None
    predictions: Frame | None
    places: Frame | None
    ranked_times: Times
    births: Times
    """When each instrument of this name began, after the first one that is known of; that one's begin comes first."""
    definitions: Frame | None
    until: int
    options: Options = field(default_factory=Options)


def facts_of(raw: Raw, symbol: str, until: int, options: Options) -> SymbolFacts:
    """Read what is known about a symbol; a minute that is not over at `until` is not."""
    candles = raw.candles(symbol)
    candles = candles[candles.index + MINUTE_MS <= until]
    confirmed = raw.confirmed.get(symbol, np.zeros(0, np.int64))
    confirmed = confirmed[~np.isin(confirmed, candles.index.to_numpy())]
    funding, predictions, places = (known.get(symbol) for known in (raw.funding, raw.predictions, raw.rankings))
    definitions = raw.definitions.get(symbol)
    births = births_of(definitions)
    return SymbolFacts(
        candles, confirmed, funding, predictions, places, raw.ranked_times, births, definitions, until, options
    )


def births_of(definitions: Frame | None) -> Times:
    """Return when each instrument of a name began, on the minute.

    One begins where a redenomination is seen first, where a listing is given that lies after an instant at which one
    was there, and where one is there a quarter of an hour after its end was known, or later: as listed, if that was
    after the end. Before trading a listing may be moved.
    """
    births: list[int] = []
    there, redenominated = None, False
    gone, end, earliest = None, -(2**62), -(2**62)
    for row in () if definitions is None else definitions.itertuples():
        known, expired = int(row.known_time), row.state == "expired"
        traded = row.state not in {"", "preopen", "test"}
        listed = None if pd.isna(row.list_time) else int(row.list_time)
        if listed is not None and traded:
            listed = min(listed, known)  # what is traded has been listed
        if not births:
            births.append(-(2**62) if listed is None else listed)
        relisted = there is not None and listed is not None and listed > there
        back = there is not None and gone is not None and not expired and known > gone + 15 * MINUTE_MS
        if row.state == "rebase" and not redenominated:
            births.append(known)
            earliest = -(2**62)
        elif relisted or back:
            earliest = -(2**62) if gone is None else end
            births.append(listed if listed is not None and listed > earliest else known)
            there = gone = None
        elif there is None and listed is not None and listed > earliest:
            births[-1] = listed
        redenominated = row.state == "rebase"
        if expired:
            gone = known if gone is None else gone
            end = known if pd.isna(row.end_time) else min(int(row.end_time), known)
        else:
            gone = None
            there = known if traded else there
    return np.maximum.accumulate(np.array(births, np.int64) // MINUTE_MS * MINUTE_MS)


def _instrument_at(instants: Times, births: Times) -> Times:
    """Return how many instruments of the name had begun before each instant."""
    return np.array([(births < instant).sum() for instant in instants.tolist()], np.int64)


def recompute(facts: SymbolFacts, frequency: str) -> Frame | None:
    """Return every field of a symbol at one frequency in float64, by open, from its first bar with a value to its last.

    None where no bar that is over has a value.
    """
    minutes = FREQUENCIES[frequency]
    step = minutes * MINUTE_MS
    candle_bars, paid_bars = _bars_with_candle(facts, step), _bars_with_payment(facts, step)
    with_value = np.union1d(candle_bars, paid_bars)
    if not len(with_value):
        return None
    opens = np.arange(with_value[0], with_value[-1] + step, step, dtype=np.int64)
    bars = price_bars(facts, minutes).reindex(opens)
    has_candle = np.isin(opens, candle_bars)
    given = {"funding_paid": has_candle | np.isin(opens, paid_bars)}
    moments = _Moments(facts, opens, minutes)
    for name, formula in STATE_FORMULAS.items():
        bars[name] = np.where(given.get(name, has_candle), formula(moments), np.nan)
    if facts.options.stock_fields:
        for name, stock_formula in STOCK_FORMULAS.items():
            bars[name] = stock_formula(moments, bars["close"])
    return bars


def _bars_with_candle(facts: SymbolFacts, step: int) -> Times:
    """Return the opens of the bars that are over and have a candle."""
    bars = np.unique(facts.candles.index.to_numpy(np.int64) // step * step)
    return bars[bars + step <= facts.until]


def _bars_with_payment(facts: SymbolFacts, step: int) -> Times:
    """Return the opens of the bars that are over, with a settlement, after a bar of the same day with a candle."""
    if facts.funding is None or facts.candles.empty:
        return np.zeros(0, np.int64)
    candles = facts.candles.index.to_numpy(np.int64)
    first_of_day = pd.Series(candles // step * step).groupby(candles // DAY_MS).min()
    bars = np.unique(facts.funding["funding_time"].to_numpy(np.int64) // step * step)
    earlier = first_of_day.reindex(bars // DAY_MS).to_numpy(np.float64)
    return np.asarray(bars[(earlier < bars) & (bars + step <= facts.until)])


def price_bars(facts: SymbolFacts, minutes: int) -> Frame:
    """Return the price fields of the bars that are given, by open; the others are not in it."""
    step = minutes * MINUTE_MS
    groups = facts.candles.groupby(facts.candles.index // step * step)
    candles = groups.size()
    confirmed = pd.Series(facts.confirmed // step * step).value_counts()
    accounted = candles + confirmed.reindex(candles.index).fillna(0)
    given = candles.index + step <= facts.until
    if not facts.options.partial_bars:
        given &= accounted == minutes
    if minutes > 1 and len(facts.births):
        first, last = (groups.apply(lambda rows, place=place: rows.index[place]) for place in (0, -1))
        ends = [_instrument_at(edge.to_numpy(np.int64) + 1, facts.births) for edge in (first, last)]
        given &= ends[0] == ends[1]
    return pd.DataFrame({name: formula(groups) for name, formula in PRICE_FORMULAS.items()})[given]


@dataclass(frozen=True)
class _Moments:
    """The bars of a symbol at one frequency, and what was known at their closes and opens."""

    facts: SymbolFacts
    opens: Times
    minutes: int

    @cached_property
    def step(self) -> int:
        return self.minutes * MINUTE_MS

    @cached_property
    def closes(self) -> Times:
        return self.opens + self.step

    @cached_property
    def life(self) -> Times:
        return _instrument_at(self.closes, self.facts.births)

    @cached_property
    def settled(self) -> dict[str, NDArray[np.float64]]:
        """The last settlement before each close, of the same instrument."""
        found = _last_settled(self.facts.funding, self.closes)
        births = self.facts.births
        return _of_life(found, found["funding_time"], self.life, births) if len(births) else found

    @cached_property
    def predicted(self) -> dict[str, NDArray[np.float64]]:
        """The prediction in force at each close, of the same instrument."""
        found = _in_force(self.facts.predictions, self.closes)
        births = self.facts.births
        return _of_life(found, found["known_time"], self.life, births) if len(births) else found

    @cached_property
    def ranked(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rank and membership at each open."""
        return _ranked(self.facts, self.opens)


def _of_life(
    found: dict[str, NDArray[np.float64]], happened: NDArray[np.float64], life: Times, births: Times
) -> dict[str, NDArray[np.float64]]:
    """Return what was known without that of another instrument."""
    there = ~np.isnan(happened)
    then = _instrument_at(np.where(there, happened, 0).astype(np.int64) + 1, births)
    same = np.maximum(then, 1) == np.maximum(life, 1)  # nothing says that there was another one before the first
    return {name: np.where(there & same, values, np.nan) for name, values in found.items()}


def _contract_value(facts: SymbolFacts, closes: Times, life: Times) -> NDArray[np.float64]:
    """Return the last contract value known before each close, of the same instrument."""
    values = np.full(len(closes), np.nan)
    if facts.definitions is None:
        return values
    given = facts.definitions.dropna(subset=["contract_value"])
    given = given[given["state"] != "rebase"]  # the value of before, in what is another instrument already
    for known, value in zip(given["known_time"].tolist(), given["contract_value"].tolist(), strict=True):
        values[closes > known] = value
        born = _instrument_at(np.array([known + 1]), facts.births)[0]
        values[(closes > known) & (np.maximum(life, 1) != max(born, 1))] = np.nan
    return values


def _first_of(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(one), other, one)


def _count(times: Times, opens: Times, step: int) -> NDArray[np.float64]:
    """Return how many of the instants lie in each bar."""
    bars = pd.Series(times // step * step).value_counts()
    return np.asarray(bars.reindex(opens).fillna(0).to_numpy(np.float64))


def _paid(funding: Frame | None, opens: Times, step: int) -> NDArray[np.float64]:
    """Return the sum of the rates that were settled in each bar."""
    if funding is None:
        return np.zeros(len(opens))
    sums = funding.groupby(funding["funding_time"] // step * step)["funding_rate"].sum()
    return np.asarray(sums.reindex(opens).fillna(0).to_numpy(np.float64))


_FUNDING_COLUMNS = ("funding_time", "funding_rate", "interval_hours")
_PREDICTED_COLUMNS = (*_FUNDING_COLUMNS, "known_time")


def _nothing(count: int) -> dict[str, NDArray[np.float64]]:
    return {name: np.full(count, np.nan) for name in _PREDICTED_COLUMNS}


def _last_settled(funding: Frame | None, closes: Times) -> dict[str, NDArray[np.float64]]:
    """Return the last settlement before each close, unless it is older than a week."""
    if funding is None:
        return _nothing(len(closes))
    found = pd.merge_asof(
        pd.DataFrame({"close": closes}),
        funding[[*_FUNDING_COLUMNS]],
        left_on="close",
        right_on="funding_time",
        allow_exact_matches=False,
        tolerance=RATE_HOLDS_MS,
    )
    return {name: found[name].to_numpy(np.float64, na_value=np.nan) for name in _FUNDING_COLUMNS}


def _in_force(predictions: Frame | None, closes: Times) -> dict[str, NDArray[np.float64]]:
    """Return the prediction in force at each close: the last one known before it.

    It is none if it is older than 8 hours, or for a settlement before the close; an older one is never fallen back on.
    """
    if predictions is None:
        return _nothing(len(closes))
    known, settled_at = (predictions[name].to_numpy(np.int64) for name in ("known_time", "funding_time"))
    place = np.searchsorted(known, closes, side="left") - 1
    holds = (place >= 0) & (settled_at[place] >= closes) & (closes - known[place] <= PREDICTION_HOLDS_MS)
    columns = {name: predictions[name].to_numpy(np.float64, na_value=np.nan) for name in _PREDICTED_COLUMNS}
    return {name: np.where(holds, values[place], np.nan) for name, values in columns.items()}


def _ranked(facts: SymbolFacts, opens: Times) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the symbol's rank, and whether it is a member, in the last ranking at or before each open."""
    place = np.searchsorted(facts.ranked_times, opens, side="right") - 1
    ranks = np.full(len(facts.ranked_times) + 1, np.nan)
    members = np.append(np.zeros(len(facts.ranked_times)), np.nan)  # its last one stands for: no ranking yet
    if facts.places is not None:
        mine = np.searchsorted(facts.ranked_times, facts.places["ranked_time"].to_numpy(np.int64))
        ranks[mine] = facts.places["rank"].to_numpy(np.float64)
        members[mine] = facts.places["member"].to_numpy(np.float64)
    return ranks[place], members[place]


# --- The table: a formula for each field, none of which the converter shares


def _vwap(minutes: Any) -> Any:
    volume = minutes["volume"].sum()
    traded = volume != 0
    return minutes["close"].last().where(~traded, minutes["amount"].sum() / volume.where(traded))


def _minutes_to_funding(bars: _Moments) -> NDArray[np.float64]:
    expected = bars.settled["funding_time"] + bars.settled["interval_hours"] * HOUR_MS
    to_next = (expected - bars.closes) / MINUTE_MS
    to_predicted = (bars.predicted["funding_time"] - bars.closes) / MINUTE_MS
    return _first_of(to_predicted, np.where(to_next >= 0, to_next, np.nan))


def _change(bars: _Moments, close: Any) -> Any:
    same = pd.Series(bars.life, index=close.index).diff().fillna(0) == 0
    return (close / close.shift(1) - 1).where(same)


PRICE_FORMULAS: Mapping[str, Callable[[Any], Any]] = {
    "open": lambda minutes: minutes["open"].first(),
    "high": lambda minutes: minutes["high"].max(),
    "low": lambda minutes: minutes["low"].min(),
    "close": lambda minutes: minutes["close"].last(),
    "volume": lambda minutes: minutes["volume"].sum(),
    "amount": lambda minutes: minutes["amount"].sum(),
    "contracts": lambda minutes: minutes["contracts"].sum(),
    "vwap": _vwap,
}
"""Field of a whole bar → its value, from the candles grouped by bar."""

STATE_FORMULAS: Mapping[str, Callable[[_Moments], NDArray[np.float64]]] = {
    "coverage": lambda bars: _count(bars.facts.candles.index.to_numpy(), bars.opens, bars.step) / bars.minutes,
    "funding_rate": lambda bars: bars.settled["funding_rate"],
    "funding_paid": lambda bars: _paid(bars.facts.funding, bars.opens, bars.step),
    "funding_predicted": lambda bars: bars.predicted["funding_rate"],
    "funding_interval": lambda bars: _first_of(bars.predicted["interval_hours"], bars.settled["interval_hours"]),
    "minutes_to_funding": _minutes_to_funding,
    "funding_rank": lambda bars: bars.ranked[0],
    "in_universe": lambda bars: bars.ranked[1],
    "life": lambda bars: bars.life.astype(np.float64) if len(bars.facts.births) else np.full(len(bars.opens), np.nan),
    "contract_value": lambda bars: _contract_value(bars.facts, bars.closes, bars.life),
}
"""Field of any bar with a candle → its value."""

STOCK_FORMULAS: Mapping[str, Callable[[_Moments, Any], Any]] = {
    "factor": lambda _, close: np.where(close.notna(), 1.0, np.nan),
    "change": _change,
}
"""With `STOCK_FIELDS=true` only: field → its value, also from the closes."""

FIELDS = (*PRICE_FORMULAS, *STATE_FORMULAS)
STOCK_FIELDS = (*STOCK_FORMULAS,)
