"""What travels on the bus and rests on disk: every event declared once.

A declaration carries its stream, its dataset, what makes two copies the same, and whether it is converted for Qlib.
The codec below, the Arrow schema (`shared.parquet`) and the folder (`shared.dataset`) are derived from it; what Qlib
gets is declared in `services.converter.fields`.

Evolution rule: a new field gets a default; the type and the meaning of a field never change.
"""

import math
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from shared.symbol import Symbol, parse_symbol

FLOAT32_SAFE = (1e-30, 1e30)
"""Between these, prices and sizes, their products, and the sums of a day survive as float32, which Qlib stores. The
smallest normal float32 is 1.2e-38, the largest 3.4e38; no price of any market comes near either bound."""

FUNDING_HOURS = (1, 2, 4, 6, 8)
"""Lengths of funding periods."""


class Bound(NamedTuple):
    """Which numbers of a field can be true: from least to most, or those that are named."""

    least: float
    most: float
    or_zero: bool = False
    only: tuple[int, ...] = ()

    def holds(self, value: float) -> bool:
        """Return whether a number can be true."""
        if self.only:
            return value in self.only
        return self.least <= value <= self.most or (self.or_zero and value == 0)


POSITIVE = Bound(*FLOAT32_SAFE)
"""Of prices and steps."""
AMOUNT = Bound(*FLOAT32_SAFE, or_zero=True)
RATE = Bound(-math.nextafter(1, 0), math.nextafter(1, 0))
"""Of funding rates: none is as large as the whole position."""
PERIOD = Bound(min(FUNDING_HOURS), max(FUNDING_HOURS), only=FUNDING_HOURS)
PLACE = Bound(1, 1_000_000)
SCORE = Bound(0, max(FUNDING_HOURS))
"""A rate of one hour that is brought to the longest period."""

Source = Literal["ws", "rest"]
RankBy = Literal["raw", "per_8h"]
Finding = Literal["wanted", "absent", "halted", "refused", "due"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a dataset: facts about one symbol, with an identity.

    `key` makes two copies the same; of two copies the one that is greater in `newest` (then in every other column, so
    that the order of arrival never decides) wins. All times are aware and UTC.
    """

    dataset: ClassVar[str]
    file_stem: ClassVar[str | None] = None
    """Name of a day's file; None: one file per symbol, named after it."""
    key: ClassVar[tuple[str, ...]]
    time: ClassVar[str]
    newest: ClassVar[str]
    converted: ClassVar[bool] = False
    """Whether the converter reads it: then no day is retired before it is in Qlib."""
    on_grid: ClassVar[bool] = False
    """Whether `time` is always the start of a minute."""
    retired: ClassVar[bool] = False
    """Whether RETENTION_DAYS applies. What is small and cannot be fetched again is kept for ever."""
    bounds: ClassVar[Mapping[str, Bound]] = MappingProxyType({})
    """Field → which numbers can be true. The intake refuses others, and a file that holds one is damaged."""

    exchange: str
    symbol: Symbol


class Event(Row, frozen=True, kw_only=True):
    """A row that travels on its own."""

    stream: ClassVar[str]
    name: ClassVar[str]


class Candle(Event, frozen=True, kw_only=True):
    """One closed candle. `open_time` is the start of the interval and its identity."""

    stream = "candles"
    name = "candle"
    dataset = "kline_1m"
    key = ("exchange", "symbol", "interval", "open_time")
    time = "open_time"
    newest = "receive_time"
    on_grid = True
    converted = True
    retired = True
    bounds = MappingProxyType(
        dict.fromkeys(("open", "high", "low", "close"), POSITIVE)
        | dict.fromkeys(("volume", "amount", "contracts"), AMOUNT)
    )

    interval: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    """In the base coin."""
    amount: float
    """In the quote currency."""
    contracts: float
    source: Source
    receive_time: datetime
    """Our clock when it arrived."""


class FundingRate(Event, frozen=True, kw_only=True):
    """A settled funding rate: what was exchanged at `funding_time`. Positive: longs pay."""

    stream = "funding"
    name = "funding_rate"
    dataset = "funding"
    file_stem = "funding_rates"
    key = ("exchange", "symbol", "funding_time")
    time = "funding_time"
    newest = "known_time"
    converted = True
    bounds = MappingProxyType({"funding_rate": RATE, "interval_hours": PERIOD})

    funding_time: datetime
    funding_rate: float
    interval_hours: int | None = None
    """Length of the period that this settlement ended; None where the exchange did not let us know."""
    known_time: datetime
    """The exchange's clock when it told us."""
    source: Source
    receive_time: datetime
    flag: str | None = None
    """What is suspicious about the rate, such as that it is beyond the instrument's own cap; None: nothing."""


class PredictedFundingRate(Event, frozen=True, kw_only=True):
    """What the exchange expected at `known_time` for the settlement at `funding_time`."""

    stream = "funding"
    name = "predicted_funding_rate"
    dataset = "funding_predicted"
    file_stem = "funding_predicted"
    key = ("exchange", "symbol", "known_time")
    time = "known_time"
    newest = "receive_time"
    converted = True
    retired = True
    bounds = MappingProxyType({"funding_rate": RATE, "interval_hours": PERIOD})

    known_time: datetime
    funding_time: datetime
    funding_rate: float
    interval_hours: int | None = None
    source: Source
    receive_time: datetime
    flag: str | None = None
    """As of a settled rate. A rate that is flagged is kept, and does not rank."""


class Rank(Row, frozen=True, kw_only=True):
    """The place of one swap in one ranking; a ranking keeps all swaps, members or not."""

    dataset = "universe"
    file_stem = "universe"
    key = ("exchange", "ranked_time", "symbol")
    time = "ranked_time"
    newest = "ranked_time"
    bounds = MappingProxyType({"rank": PLACE, "funding_rate": RATE, "score": SCORE, "interval_hours": PERIOD})

    ranked_time: datetime
    rank: int
    """1 is the first."""
    funding_rate: float
    score: float
    """What was ranked: |rate|, or |rate| per 8 h."""
    interval_hours: int | None = None
    funding_time: datetime
    member: bool
    rank_by: RankBy
    known_time: datetime


class InstrumentDefinition(Event, frozen=True, kw_only=True):
    """What the exchange said of an instrument from `known_time` on: there is a row for each time that it changed.

    A name can be given to another instrument, or come back after years: see `services.converter.lives`.
    """

    stream = "instruments"
    name = "instrument_definition"
    dataset = "instruments"
    file_stem = "instruments"
    key = ("exchange", "symbol", "known_time")
    time = "known_time"
    newest = "receive_time"
    converted = True
    bounds = MappingProxyType(
        dict.fromkeys(("contract_value", "tick_size", "lot_size", "min_size", "max_leverage"), POSITIVE)
    )

    known_time: datetime
    """The exchange's clock when its list was seen to say so for the first time."""
    state: str
    """The exchange's word, such as `live`, `suspend`, `rebase`, `preopen`; `expired`: it is over."""
    list_time: datetime | None = None
    end_time: datetime | None = None
    """When it went, or is announced to go. Without an announcement: when it was first missing."""
    contract_type: str = ""
    """`linear` or `inverse`."""
    category: str = ""
    rule_type: str = ""
    settle_currency: str = ""
    contract_value: float | None = None
    """Of one contract, in `contract_value_currency`."""
    contract_value_currency: str = ""
    tick_size: float | None = None
    """Step of prices, in the quote currency."""
    lot_size: float | None = None
    """Step of orders, in contracts."""
    min_size: float | None = None
    """Smallest order, in contracts."""
    max_leverage: float | None = None
    receive_time: datetime


ENDED_STATE = "expired"
"""State of an instrument that is over, in the word of OKX."""


class LedgerRow(Row, frozen=True, kw_only=True):
    """What is known about every minute of one symbol and UTC day; see `shared.ledger` for what the sets mean.

    Each set is spelled as inclusive runs of the minutes of the day: "0-99,101-1439". The writer alone writes it.
    """

    dataset = "ledger"
    file_stem = "ledger"
    key = ("exchange", "day", "symbol")
    time = "day"
    newest = "version"
    on_grid = True

    day: datetime
    wanted: str = ""
    received: str = ""
    healed: str = ""
    absent: str = ""
    halted: str = ""
    due: str = ""
    settled: str = ""
    version: str = ""
    """Signature of the candle file that `received` and `healed` were read from."""
    refused: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the collector found out about the minutes of [begin, end) of some symbols; the ledger keeps it.

    wanted: they were to be collected. absent: the exchange has no such candle, asked well after the minute. halted:
    it has none since it, or the instrument, stood still. due: funding was settled at `begin`.
    """

    stream: ClassVar[str] = "ledger"
    name: ClassVar[str] = "verdict"

    exchange: str
    verdict: Finding
    symbols: tuple[Symbol, ...]
    begin: datetime
    end: datetime
    known_time: datetime
    """The exchange's clock."""


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """One whole ranking: who is in the universe from `ranked_time` on, and everybody's place."""

    stream: ClassVar[str] = "universe"
    name: ClassVar[str] = "ranking"

    exchange: str
    ranked_time: datetime
    rank_by: RankBy
    top_n: int
    members: tuple[Symbol, ...]
    added: tuple[Symbol, ...]
    removed: tuple[Symbol, ...]
    ranks: tuple[Rank, ...] = ()


type AnyEvent = Candle | FundingRate | PredictedFundingRate | InstrumentDefinition | Verdict | Ranking

EVENTS: tuple[type[AnyEvent], ...] = (
    Candle,
    FundingRate,
    PredictedFundingRate,
    InstrumentDefinition,
    Verdict,
    Ranking,
)
BY_NAME: dict[str, type[AnyEvent]] = {event.name: event for event in EVENTS}
ROWS: tuple[type[Row], ...] = (
    Candle,
    FundingRate,
    PredictedFundingRate,
    Rank,
    InstrumentDefinition,
    LedgerRow,
)
BY_DATASET: dict[str, type[Row]] = {row.dataset: row for row in ROWS}


class UndecodableError(ValueError):
    """An entry that is no event: the text says which field is wrong and why."""


def rows_of(event: AnyEvent) -> tuple[Row, ...]:
    """Return the rows that an event leaves on disk. A verdict leaves none of its own: it changes rows of the ledger."""
    if isinstance(event, Ranking):
        return event.ranks
    return () if isinstance(event, Verdict) else (event,)


def symbols_of(event: AnyEvent) -> tuple[Symbol, ...]:
    """Return every symbol that an event names."""
    if isinstance(event, Ranking):
        return (*event.members, *event.added, *event.removed, *(place.symbol for place in event.ranks))
    return event.symbols if isinstance(event, Verdict) else (event.symbol,)


@cache
def columns_of(kind: type[Row]) -> dict[str, tuple[type, bool]]:
    """Return the columns of a dataset in the declared order: name → (plain Python type, whether it may be absent)."""
    hints = get_type_hints(kind)
    return {name: _plain_type(hints[name]) for name in kind.__struct_fields__}


def _plain_type(hint: Any) -> tuple[type, bool]:
    hint = getattr(hint, "__supertype__", hint)  # Symbol is a str
    if get_origin(hint) in {Union, types.UnionType}:
        (inner,) = (argument for argument in get_args(hint) if argument is not type(None))
        return inner, True
    return (type(get_args(hint)[0]) if get_origin(hint) is Literal else hint), False


def encode(event: AnyEvent) -> dict[str, str]:
    """Spell an event as flat text fields, readable in redis-cli. Absent values are left out; floats round-trip."""
    fields = {"event": event.name}
    for name, value in msgspec.to_builtins(event).items():
        if value is not None:
            fields[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return fields


def decode(fields: dict[str, str]) -> AnyEvent:
    """Read an event back, checking every field against its declaration.

    Raises:
        UndecodableError: no such event, or a field is missing, of the wrong type, no symbol, or a time without a zone.

    """
    kind = BY_NAME.get(fields.get("event", ""))
    if kind is None:
        raise UndecodableError(f"event: {fields.get('event')!r} is none of {', '.join(BY_NAME)}")
    nested = _nested_fields(kind)
    try:
        values: dict[str, Any] = {
            name: msgspec.json.decode(value) if name in nested else value
            for name, value in fields.items()
            if name != "event"
        }
        event = msgspec.convert(values, kind, strict=False)
        for symbol in symbols_of(event):
            parse_symbol(symbol)
        if isinstance(event, Ranking):
            event = msgspec.structs.replace(event, ranks=tuple(_in_utc(rank) for rank in event.ranks))
        return _in_utc(event)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"{kind.name}: {error}") from error


class _ZoneError(ValueError):
    """A time that is no instant."""


def _in_utc[S: msgspec.Struct](declared: S) -> S:
    """Bring every time to UTC. Raises `_ZoneError` for one without a zone: it could mean any of some 24 instants."""
    changes = {}
    for name in _times(type(declared)):
        instant = getattr(declared, name)
        if instant is None or instant.tzinfo is UTC:
            continue
        if instant.tzinfo is None:
            raise _ZoneError(f"{name}: {instant.isoformat()} has no time zone")
        try:
            changes[name] = instant.astimezone(UTC)
        except OverflowError as error:
            raise _ZoneError(f"{name}: {instant.isoformat()} is out of range in UTC") from error
    return msgspec.structs.replace(declared, **changes) if changes else declared


@cache
def _times(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields that hold an instant."""
    return tuple(name for name, hint in get_type_hints(kind).items() if hint in (datetime, datetime | None))


@cache
def _nested_fields(kind: type[AnyEvent]) -> frozenset[str]:
    """Return the fields that hold more than one value: they travel as JSON."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if get_origin(hint) is tuple)
