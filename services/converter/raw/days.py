"""What do the raw files hold? Candles of one symbol; rates, rankings, definitions, ledger of all. I/O."""

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.converter.features.asof import Floats, Ints, Rankings, SettledRates
from services.converter.features.fields import COLUMNS, as_float32
from services.converter.lives import Definition
from shared.datasets.candle import Candle
from shared.datasets.registry import BY_DATASET
from shared.datasets.row import FLOAT32_SAFE
from shared.grid import FIRST_DAY, LAST_DAY, MINUTE_MS, day_start, to_ms
from shared.ledger.minutes import mask_from_text
from shared.storage.layout import Partition
from shared.storage.parquet import read_rows, wrong_content
from shared.storage.segments import RawRows
from shared.storage.versions import content_in
from shared.symbol import suffix_in


class UnreadableError(ValueError):
    """A raw file that cannot be read; the text names it."""


@dataclass(frozen=True)
class Candles:
    """Columns of one symbol's candles. opens: Unix ms."""

    opens: Ints
    columns: dict[str, Floats]


@dataclass(frozen=True)
class LedgerDay:
    """The ledger's record of one symbol's day, as masks of minutes.

    without: the exchange has no candle. stored: a candle was stored when the candle file had the content `version`.
    """

    without: int = 0
    stored: int = 0
    version: str = ""


_NO_TIMES = np.array([], np.int64)


@dataclass(frozen=True)
class AllRankings:
    """Every ranking of some days, ascending by time, with the places of all symbols."""

    times: dict[str, Ints]
    """By exchange, as its symbols name it: one exchange's ranking says nothing about another's symbols."""
    places: dict[str, tuple[Ints, Floats, Floats]]
    """Symbol → positions in the times of its exchange, ranks, membership (1 or 0)."""

    def of(self, symbol: str) -> Rankings:
        """Return a symbol's place in each ranking: none and no member in one that does not name it."""
        times = self.times.get(suffix_in(symbol), _NO_TIMES)
        ranks, members = np.full(len(times), np.nan), np.zeros(len(times))
        if symbol in self.places:
            at, rank, member = self.places[symbol]
            ranks[at], members[at] = rank, member
        return Rankings(times, ranks, members)


def read_candles(rows: RawRows, files: list[Partition], until: datetime) -> Candles:
    """Read the candles of some day files, as far as they open before `until`."""
    found = candles_of(_read_one(rows, file, ["open_time", *COLUMNS]) for file in files)
    inside = found.opens < to_ms(until)
    if inside.all():
        return found
    return Candles(found.opens[inside], {name: values[inside] for name, values in found.columns.items()})


def candles_of(tables: Iterable[pa.Table]) -> Candles:
    """Return the candles of some tables, as they come. Pure."""
    found = [table.select(["open_time", *COLUMNS]) for table in tables]
    if not found:
        return Candles(np.array([], np.int64), {name: np.array([], np.float64) for name in COLUMNS})
    table = pa.concat_tables(found)
    return Candles(_instants(table, "open_time"), {name: _numbers(table, name) for name in COLUMNS})


Faults = dict[str, dict[date, str]]
"""Symbol → the days of which a file of many symbols cannot be true of it, each with the reason."""
EVERY = "*"
"""Stands in `Faults` for all symbols: the file cannot be read at all. No symbol is called so."""


def read_settlements(rows: RawRows, files: Iterable[Partition]) -> tuple[dict[str, SettledRates], Faults]:
    """Read the settled funding rates by symbol, each in order of time."""
    by_symbol, faults = _by_symbol(rows, files, ["funding_time"], ["funding_rate", "interval_hours"])
    return {
        symbol: SettledRates(
            part.instants("funding_time"), part.numbers("funding_rate"), part.numbers("interval_hours")
        )
        for symbol, part in by_symbol.items()
    }, faults


PREDICTED = np.dtype([("minute", "<i4"), ("due", "<i8"), ("rate", "<f4"), ("hours", "<f4")])
"""A prediction as far as bars depend on it: the minute, since the epoch, in which it was known; Unix ms of its
settlement; the rate as Qlib stores it; the length of the period in hours, or NaN."""


def read_predictions(
    rows: RawRows, file: Partition, symbols: Container[str]
) -> tuple[dict[str, NDArray[np.void]], dict[str, str]]:
    """Read what was predicted of some symbols on a day, as far as bars depend on it: rows of `PREDICTED`, in order.

    A bar closes on a full minute and takes the last prediction known before. So of several that were known within
    [open, close) of a minute the last one counts, and whether it was known at the begin of the minute or later makes no
    difference; one known at the close itself is of the next minute. Returns with them the symbols whose rows cannot be
    true, each with the reason. Raises `UnreadableError`.
    """
    table, faults = _read_shared(rows, file, ["symbol", *_PREDICTION_TIMES, "funding_rate", "interval_hours"])
    reasons = {symbol: f"{file.path(rows.root)}: {reason}" for symbol, reason in faults.items()}
    return _last_of_minutes(table, symbols), reasons


_PREDICTION_TIMES = ("known_time", "funding_time")


def _last_of_minutes(table: pa.Table, symbols: Container[str]) -> dict[str, NDArray[np.void]]:
    encoded = pc.dictionary_encode(table["symbol"].combine_chunks())
    names = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy()
    chosen = np.flatnonzero(np.array([name in symbols for name in names], bool)[codes])
    known, due = (table[name].cast(pa.int64()).to_numpy()[chosen] for name in _PREDICTION_TIMES)
    codes, minutes = codes[chosen], known // MINUTE_MS
    order = np.lexsort((known, codes))
    last = np.ones(len(order), bool)  # the next row is of another symbol, or of another minute
    last[:-1] = (np.diff(codes[order]) != 0) | (np.diff(minutes[order]) != 0)
    order = order[last]
    rows = np.empty(len(order), PREDICTED)
    rows["minute"], rows["due"] = minutes[order], due[order]
    for name, column in (("rate", "funding_rate"), ("hours", "interval_hours")):
        rows[name] = as_float32(table[column].to_numpy().astype(np.float64, copy=False)[chosen][order])
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    parts = np.split(rows, starts[1:])
    return {names[codes[order[start]]]: part for start, part in zip(starts, parts, strict=False)}


Unreadable = dict[date, str]
"""The days whose file of all symbols cannot be read, each with the reason, which names the file."""


def read_rankings(rows: RawRows, files: Iterable[Partition]) -> tuple[AllRankings, Unreadable]:
    """Read where every symbol stood in each ranking.

    A ranking is one statement about all symbols: of a file of which one row cannot be true nothing is taken.
    """
    tables, unreadable = [], Unreadable()
    for file in files:
        try:
            tables.append(_read_one(rows, file, ["symbol", "ranked_time", "rank", "member"]))
        except UnreadableError as error:
            unreadable[file.day] = str(error)
    read = {
        symbol: (part.instants("ranked_time"), part.numbers("rank"), part.numbers("member"))
        for symbol, part in _split(tables, "ranked_time").items()
    }
    ranked_times: dict[str, list[Ints]] = defaultdict(list)
    for symbol, (ranked, _, _) in read.items():
        ranked_times[suffix_in(symbol)].append(ranked)
    times = {exchange: np.unique(np.concatenate(found)) for exchange, found in ranked_times.items()}
    places = {
        symbol: (np.searchsorted(times[suffix_in(symbol)], ranked), rank, member)
        for symbol, (ranked, rank, member) in read.items()
    }
    return AllRankings(times, places), unreadable


def read_members(rows: RawRows, file: Partition) -> dict[str, list[tuple[datetime, frozenset[str]]]]:
    """Read who was a member after each ranking, in order of time, by exchange.

    A ranking without members is an empty set.
    """
    places = _read_one(rows, file, ["exchange", "ranked_time", "symbol", "member"])
    members: dict[tuple[str, datetime], set[str]] = defaultdict(set)
    for exchange, ranked, symbol, member in zip(*(column.to_pylist() for column in places.columns), strict=True):
        members[exchange, ranked] |= {symbol} if member else set()
    found: dict[str, list[tuple[datetime, frozenset[str]]]] = defaultdict(list)
    for (exchange, ranked), symbols in sorted(members.items()):
        found[exchange].append((ranked.astimezone(UTC), frozenset(symbols)))
    return found


def read_definitions(rows: RawRows, file: Partition) -> list[tuple[str, Definition]]:
    """Read the definitions of instruments, as (symbol, definition), in order of time."""
    names = ("known_time", "state", "list_time", "end_time", "contract_value")
    table = _read_one(rows, file, ["symbol", *names])
    columns = [table[name].cast(pa.int64()) if name.endswith("_time") else table[name] for name in ("symbol", *names)]
    found = sorted(zip(*(column.to_pylist() for column in columns), strict=True), key=lambda row: (row[1], row[0]))
    return [
        (symbol, Definition(known, state, _market_time(listed), _market_time(ended), _size(value)))
        for symbol, known, state, listed, ended, value in found
    ]


_MARKET_TIMES = range(to_ms(day_start(FIRST_DAY)), to_ms(day_start(LAST_DAY)))


def _market_time(instant: int | None) -> int | None:
    """Return an instant, Unix ms, at which there can be a market; None for any other."""
    return instant if instant is not None and instant in _MARKET_TIMES else None


def _size(value: float | None) -> float | None:
    """Return a size that float32 can hold; None for any other."""
    least, most = FLOAT32_SAFE
    return value if value is not None and least <= value <= most else None


class LedgerDays(NamedTuple):
    """Day → symbol → its record in the ledger. unreadable: days whose file cannot be read, and why."""

    of: dict[date, dict[str, LedgerDay]]
    unreadable: Unreadable


def read_ledgers(rows: RawRows, files: Iterable[Partition]) -> LedgerDays:
    """Read what the ledger says of the candles of some days."""
    found, unreadable = dict[date, dict[str, LedgerDay]](), Unreadable()
    for file in files:
        try:
            found[file.day] = _read_ledger(rows, file)
        except UnreadableError as error:
            unreadable[file.day] = str(error)
    return LedgerDays(found, unreadable)


_SETS = ("absent", "halted", "refused", "received", "healed")


def _read_ledger(rows: RawRows, file: Partition) -> dict[str, LedgerDay]:
    """Read what the file of a day says, united with what waits in segments: no row of these replaces another one."""
    known: dict[str, list[int]] = defaultdict(lambda: [0] * len(_SETS))
    versions: dict[str, str] = {}
    for part in _parts(rows, file):
        of_candles = part.filter(pc.equal(part["about"], Candle.dataset))
        columns = (of_candles[name].to_pylist() for name in ("symbol", "version", *_SETS))
        for symbol, version, *texts in zip(*columns, strict=True):
            masks = [mask_from_text(text or "") for text in texts]
            known[symbol] = [one | other for one, other in zip(known[symbol], masks, strict=True)]
            versions[symbol] = versions.get(symbol) or content_in(version or "")
    found = {}
    for symbol, (absent, halted, refused, received, healed) in known.items():
        stored = received | healed
        found[symbol] = LedgerDay((absent | halted) & ~(stored | refused), stored, versions[symbol])
    return found


def _parts(rows: RawRows, file: Partition) -> list[pa.Table]:
    try:
        return rows.parts(file)
    except (ValueError, MemoryError, OSError, pa.ArrowException) as error:
        raise UnreadableError(f"{file.path(rows.root)}: {error}") from error


class _SymbolRows(NamedTuple):
    """The rows of one symbol in a table, in order of time."""

    table: pa.Table
    at: NDArray[np.intp]

    def instants(self, name: str) -> Ints:
        """Return a column of instants, Unix ms."""
        return _instants(self.table, name)[self.at]

    def numbers(self, name: str) -> Floats:
        """Return a column of numbers, NaN where a cell is empty."""
        return _numbers(self.table, name)[self.at]


def _by_symbol(
    rows: RawRows, files: Iterable[Partition], times: list[str], values: list[str]
) -> tuple[dict[str, _SymbolRows], Faults]:
    """Read some columns of a dataset by symbol, in the order of the first time; times become Unix ms.

    Of a symbol whose rows in a file cannot be true, none of that file is taken; those of the others are.
    """
    tables, faults = [], Faults()
    for file in files:
        try:
            table, found = _read_shared(rows, file, ["symbol", *times, *values])
        except UnreadableError as error:
            faults.setdefault(EVERY, {})[file.day] = str(error)
            continue
        tables.append(table)
        for symbol, reason in found.items():
            faults.setdefault(symbol, {})[file.day] = f"{file.path(rows.root)}: {reason}"
    return _split(tables, times[0]), faults


def _split(tables: list[pa.Table], time: str) -> dict[str, _SymbolRows]:
    """Put tables together and split them by symbol, in the order of a time."""
    if not tables:
        return {}
    table = pa.concat_tables(tables).combine_chunks()
    encoded = pc.dictionary_encode(table["symbol"]).combine_chunks()
    codes = encoded.indices.to_numpy()
    order = np.lexsort((_instants(table, time), codes))
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    names = encoded.dictionary.to_pylist()
    return {names[codes[part[0]]]: _SymbolRows(table, part) for part in np.split(order, starts[1:]) if len(part)}


def _read_shared(rows: RawRows, file: Partition, columns: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """Read a file of many symbols; return its rows without those of symbols that cannot be true, and why not."""
    try:
        return _read_one(rows, file, columns), {}
    except UnreadableError:
        table = _whole(rows, file)
        if table is None:
            raise
        parts = {one: table.filter(pc.equal(table["symbol"], one)) for one in table["symbol"].unique().to_pylist()}
        reasons = {symbol: wrong_content(file, part) or _empty_rate(part) for symbol, part in parts.items()}
        faults = {symbol: reason for symbol, reason in reasons.items() if reason is not None}
        if not faults:
            raise
        return table.filter(pc.invert(pc.is_in(table["symbol"], pa.array(faults)))).select(columns), faults


def _empty_rate(rows: pa.Table) -> str | None:
    """Return why rates without a value cannot be true: of a single symbol, they look like a column of older files."""
    if "funding_rate" in rows.schema.names and pc.any(pc.is_nan(rows["funding_rate"])).as_py():
        return "funding_rate: nan cannot be true"
    return None


def _whole(rows: RawRows, file: Partition) -> pa.Table | None:
    """Read a file as it was written, whatever its rows hold; None where that cannot be done."""
    try:
        return rows.merged(file, read_rows(BY_DATASET[file.dataset], file.path(rows.root)))
    except (ValueError, MemoryError, OSError, pa.ArrowException):
        return None


def _instants(table: pa.Table, name: str) -> Ints:
    found: Ints = table[name].cast(pa.int64()).to_numpy()
    return found


def _numbers(table: pa.Table, name: str) -> Floats:
    """Return a column as numbers; pyarrow makes an empty cell NaN."""
    found: Floats = table[name].to_numpy().astype(np.float64, copy=False)
    return found


def _read_one(rows: RawRows, file: Partition, columns: list[str]) -> pa.Table:
    """Read a file as it is declared now, verified and checked: it holds what its name says."""
    try:
        return rows.read(file, columns)
    except (ValueError, MemoryError, OSError, pa.ArrowException) as error:
        raise UnreadableError(f"{file.path(rows.root)}: {error}") from error
