"""How OKX spells instruments, candles and funding, and what that is in our words. Pure; the only place that knows.

Every row is read against a declared type. A row that does not fit leaves as a `SpellingError`, and as nothing else:
what reads lists (`listing_of`, `predictions_of`, ...) leaves it out, names it, and takes its neighbours.

Sources: OKX v5 documentation (public data, market data, WebSocket candle and funding channels) and recorded messages.
"""

import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import ENDED_STATE, InstrumentDefinition
from shared.datasets.plausible import impossible_candle
from shared.datasets.row import FUNDING_HOURS, POSITIVE, RATE, Source
from shared.exchanges.okx.decoding import Unreadable
from shared.grid import DAY, FIRST_DAY, MINUTE, day_start, from_ms, to_ms
from shared.symbol import Symbol, SymbolError, parse_symbol, unique

EXCHANGE = "okx"
_SUFFIX = "-SWAP"
CRYPTO_CATEGORIES = ("1", "")
"""instCategory 1 is crypto; 3 to 6 are stocks, commodities, forex, bonds. Older rows have none."""
_TRADING_SERVICES = {"5", "9", ""}
"""serviceType of a maintenance that can halt the trading of swaps: 5 trading, 9 trading by batches of products; older
rows have none. Others concern WebSocket (0), single accounts (8), copy trading (11), bots and so on."""
_PRODUCTION = {"1", ""}
"""env of the exchange itself; 2 is the demo environment."""

IMPLAUSIBLE_RATE = 0.05
"""A funding rate beyond this is kept and flagged where the row does not say its own cap; OKX's are 0.4 % to 4 %."""
_SHOWN = 500
"""Characters of a row that an error repeats."""

_FIRST_TIME, _LAST_TIME = day_start(FIRST_DAY), datetime(2100, 1, 1, tzinfo=UTC)
"""No time of a crypto exchange lies outside; a number that does is no time in milliseconds."""
_FUNDING_AHEAD = 7 * DAY
"""How far ahead the next settlement may lie: periods are 1 to 8 hours, a contract that is about to be listed waits."""

_DIGITS = re.compile(r"[0-9]{1,16}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,60})?([eE][+-]?[0-9]{1,3})?")


class SpellingError(ValueError):
    """A row that cannot be what it should be; the text says which value and why."""


class Refused(NamedTuple):
    """A row that was left out of an answer, and why."""

    row: object
    reason: str


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform needs to know about a swap. Sizes are decimal text, as the exchange spells them."""

    symbol: Symbol
    state: str
    contract_type: str
    """`linear` or `inverse`."""
    category: str
    list_time: datetime | None
    expiry_time: datetime | None = None
    """Set once a delisting is announced: when the instrument goes."""
    tick_size: str = ""
    lot_size: str = ""
    min_size: str = ""
    contract_value: str = ""
    """Of one contract, in `contract_value_currency`."""
    contract_value_currency: str = ""
    settle_currency: str = ""
    max_leverage: str = ""
    rule_type: str = ""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """A window in which a part of the exchange stands still, or may."""

    title: str
    state: str
    """`scheduled`, `ongoing`, `pre_open`, `completed` or `canceled`."""
    begin: datetime
    end: datetime | None
    """Expected until it is completed, then actual."""
    halts_swaps: bool = True
    """Whether it concerns the trading of swaps on the exchange itself."""


class Listing(NamedTuple):
    """The list of swaps: what could be read, every name that was in it, and the rows that were left out."""

    instruments: dict[Symbol, Instrument]
    names: frozenset[str]
    """Every instId that was listed, as a symbol where it is one: a row that was left out was there all the same."""
    refused: list[Refused]


# --- names


def symbol_of(inst_id: str) -> Symbol:
    """Return our name: instId without -SWAP, dashes to underscores (BTC-USDT-SWAP is BTC_USDT).

    Raises `SpellingError` for what is no swap's name, cannot be a symbol, or does not lead back to the same instId.
    """
    if not is_swap(inst_id):
        raise SpellingError(f"instId: {_show(inst_id)} is not the name of a swap")
    try:
        symbol = parse_symbol(inst_id.removesuffix(_SUFFIX).replace("-", "_"))
    except SymbolError as error:
        raise SpellingError(f"instId: {error}") from error
    if inst_id_of(symbol) != inst_id:
        raise SpellingError(f"instId: {_show(inst_id)} as {symbol} would be taken for {inst_id_of(symbol)}")
    return symbol


def inst_id_of(symbol: str) -> str:
    """Return OKX's name of a swap. A base has no underscore, so the first one is the dash (BTC_USD_UM, BTC-USD_UM)."""
    base, _, quote = symbol.partition("_")
    return f"{base}-{quote}{_SUFFIX}"


def is_swap(inst_id: object) -> bool:
    """Return whether the name is a perpetual swap's; X-Perps and dated futures end otherwise."""
    return isinstance(inst_id, str) and inst_id.endswith(_SUFFIX)


# --- instruments

_Text = str | int | float | None
"""What OKX spells as text; a number is taken for its text, null for none."""


class _InstrumentRow(msgspec.Struct):
    instId: str  # noqa: N815 - the exchange's spelling, here and below
    state: str = ""
    ctType: _Text = None  # noqa: N815
    instCategory: _Text = None  # noqa: N815
    listTime: _Text = None  # noqa: N815
    expTime: _Text = None  # noqa: N815
    tickSz: _Text = None  # noqa: N815
    lotSz: _Text = None  # noqa: N815
    minSz: _Text = None  # noqa: N815
    ctVal: _Text = None  # noqa: N815
    ctValCcy: _Text = None  # noqa: N815
    settleCcy: _Text = None  # noqa: N815
    lever: _Text = None
    ruleType: _Text = None  # noqa: N815


def instrument_of(row: object) -> Instrument:
    """Read a row of /public/instruments. Announced ones (preopen) have most fields empty. Raises `SpellingError`."""
    read = _read(row, _InstrumentRow)
    return Instrument(
        symbol=symbol_of(read.instId),
        state=read.state,
        contract_type=_text(read.ctType),
        category=_text(read.instCategory),
        list_time=_time_or_none(read.listTime, "listTime"),
        expiry_time=_time_or_none(read.expTime, "expTime"),
        tick_size=_text(read.tickSz),
        lot_size=_text(read.lotSz),
        min_size=_text(read.minSz),
        contract_value=_text(read.ctVal),
        contract_value_currency=_text(read.ctValCcy),
        settle_currency=_text(read.settleCcy),
        max_leverage=_text(read.lever),
        rule_type=_text(read.ruleType),
    )


def definition_of(instrument: Instrument, known_time: datetime, receive_time: datetime) -> InstrumentDefinition:
    """Turn what the list says of a swap into a row. What is no positive number is left empty, as in announced ones."""
    return InstrumentDefinition(
        exchange=EXCHANGE,
        symbol=instrument.symbol,
        known_time=known_time,
        state=instrument.state[:_WORD],
        list_time=instrument.list_time,
        end_time=instrument.expiry_time,
        contract_type=instrument.contract_type[:_WORD],
        category=instrument.category[:_WORD],
        rule_type=instrument.rule_type[:_WORD],
        settle_currency=instrument.settle_currency[:_WORD],
        contract_value=_size(instrument.contract_value),
        contract_value_currency=instrument.contract_value_currency[:_WORD],
        tick_size=_size(instrument.tick_size),
        lot_size=_size(instrument.lot_size),
        min_size=_size(instrument.min_size),
        max_leverage=_size(instrument.max_leverage),
        receive_time=receive_time,
    )


_WORD = 40
"""Characters of a word of the exchange that are kept."""


def _size(text: str) -> float | None:
    number = _decimal(text)
    return number if number is not None and POSITIVE.holds(number) else None


def listing_of(rows: Sequence[object], before: Collection[Symbol] = ()) -> Listing:
    """Read the list of instruments. before: names that could be in the universe when they were listed earlier.

    Of a name that is there twice one row is taken, and of names that are equal without case one name: the one that was
    taken before, else the one that can be in the universe, else is live, else is traded; among equals the older.
    """
    names: set[str] = set()
    read: list[tuple[Instrument, object]] = []
    refused: list[Refused] = []
    for row in rows:
        name = row.get("instId") if isinstance(row, dict) else None
        if isinstance(name, str) and not is_swap(name):
            continue
        try:
            if isinstance(name, str):
                names.add(_name_of(name))
            read.append((instrument_of(row), row))
        except SpellingError as error:
            refused.append(Refused(row, str(error)))
    found: dict[Symbol, Instrument] = {}
    for instrument, row in sorted(read, key=lambda one: _precedence(one[0], before)):
        if found.setdefault(instrument.symbol, instrument) != instrument:
            refused.append(Refused(row, f"instId: {_show(inst_id_of(instrument.symbol))} is listed twice, differently"))
    for symbol, kept in unique(found).items():
        reason = f"instId: {symbol} and {kept} differ in nothing but case: {kept} stays, being traded or older"
        refused.append(Refused(msgspec.to_builtins(found.pop(symbol)), reason))
    return Listing(found, frozenset(names), refused)


def _precedence(instrument: Instrument, before: Collection[Symbol]) -> tuple[bool, bool, bool, bool, datetime, Symbol]:
    """Return a key: the lower, the sooner an instrument is taken."""
    traded = instrument.state not in _UNTRADED
    return (
        not (traded and instrument.symbol in before),
        not is_eligible(instrument),
        instrument.state != "live",
        not traded,
        instrument.list_time or _LAST_TIME,
        instrument.symbol,
    )


_UNTRADED = {"", "preopen", "test", ENDED_STATE}


def _name_of(inst_id: str) -> str:
    try:
        return symbol_of(inst_id)
    except SpellingError:
        return inst_id


def is_eligible(instrument: Instrument) -> bool:
    """Return whether a swap can be in the universe: live, linear or inverse, crypto."""
    return (
        instrument.state == "live"
        and instrument.contract_type in ("linear", "inverse")
        and instrument.category in CRYPTO_CATEGORIES
    )


# --- maintenance


class _MaintenanceRow(msgspec.Struct):
    begin: _Text
    title: _Text = None
    state: _Text = None
    end: _Text = None
    serviceType: _Text = None  # noqa: N815
    env: _Text = None


def maintenance_of(row: object) -> Maintenance:
    """Read a row of /system/status. Raises `SpellingError`."""
    read = _read(row, _MaintenanceRow)
    return Maintenance(
        title=_text(read.title)[:200],
        state=_text(read.state),
        begin=_time(read.begin, "begin"),
        end=_time_or_none(read.end, "end"),
        halts_swaps=_text(read.serviceType) in _TRADING_SERVICES and _text(read.env) in _PRODUCTION,
    )


def maintenances_of(rows: Sequence[object]) -> tuple[list[Maintenance], list[Refused]]:
    """Read the list of maintenance windows."""
    return _each(rows, maintenance_of)


# --- candles


@dataclass(frozen=True)
class CandleRow:
    """When a candle row opens, and whether it is over: what can be said of it before it is believed."""

    open_time: datetime
    closed: bool


def candle_row_of(row: object) -> CandleRow:
    """Read the frame of a candle row, closed or forming. Raises `SpellingError`."""
    if not isinstance(row, list | tuple) or not row:
        raise SpellingError(f"candle: {_show(row)} is no row of columns")
    return CandleRow(_time(row[0], "candle"), is_closed(row))


def is_closed(row: object) -> bool:
    """Return whether the exchange says that the candle is over (confirm, the ninth column, is 1)."""
    return isinstance(row, list | tuple) and len(row) > 8 and row[8] == "1"  # noqa: PLR2004 - the ninth column


def open_time_of(row: object) -> datetime:
    """Return the open of a candle row, closed or forming. Raises `SpellingError`."""
    return candle_row_of(row).open_time


def candle_of(inst_id: str, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime) -> Candle:
    """Turn a closed row [ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm] into a candle.

    On swaps vol counts contracts, volCcy the base coin, volCcyQuote the quote currency.

    Raises:
        SpellingError: the row is not closed, a value is no decimal number, or the candle is impossible (high below low,
            negative volume, beyond what float32 can hold, off the minute grid, from the future).

    """
    open_time = open_time_of(row)
    if not isinstance(row, list | tuple) or not is_closed(row):
        raise SpellingError(f"the candle is not closed: {_show(row)}")
    opened, high, low, close, contracts, volume, amount = (_number(value, row) for value in row[1:8])
    candle = Candle(
        exchange=EXCHANGE,
        symbol=symbol_of(inst_id),
        interval="1m",
        open_time=open_time,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        amount=amount,
        contracts=contracts,
        source=source,
        receive_time=receive_time,
    )
    if reason := impossible_candle(candle):
        raise SpellingError(f"{reason}: {_show(row)}")
    if candle.open_time > exchange_now + _CLOCK_TOLERANCE:
        raise SpellingError(f"the candle is from the future: {_show(row)}")
    return candle


#: The exchange's clock is known to about its round trip; a closed minute opened a minute ago, so this is generous.
_CLOCK_TOLERANCE = 2 * MINUTE


# --- funding


def interval_hours(begin: datetime, end: datetime) -> int | None:
    """Return the hours between two settlements, where that is a period OKX uses; else None."""
    hours, rest = divmod(end - begin, timedelta(hours=1))
    return hours if not rest and hours in FUNDING_HOURS else None


class _FundingRow(msgspec.Struct):
    instId: str  # noqa: N815
    fundingTime: _Text  # noqa: N815
    ts: _Text
    fundingRate: Any = None  # noqa: N815
    nextFundingTime: Any = None  # noqa: N815
    prevFundingTime: Any = None  # noqa: N815
    settFundingRate: Any = None  # noqa: N815
    maxFundingRate: Any = None  # noqa: N815
    minFundingRate: Any = None  # noqa: N815


def predicted_of(
    row: object, *, source: Source, receive_time: datetime, exchange_now: datetime
) -> PredictedFundingRate:
    """Read what a funding row predicts. `fundingTime` is the upcoming settlement, `nextFundingTime` the one after it.

    Raises `SpellingError` where rate or time is missing, no number, or from the future.
    """
    read = _read(row, _FundingRow)
    funding_time = _time(read.fundingTime, "fundingTime")
    known_time = _known(read.ts, exchange_now)
    if funding_time > known_time + _FUNDING_AHEAD:
        raise SpellingError(f"fundingTime: {funding_time.isoformat()} is too far ahead in {_show(row)}")
    rate = _rate(read.fundingRate, "fundingRate", row)
    return PredictedFundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        known_time=known_time,
        funding_time=funding_time,
        funding_rate=rate,
        interval_hours=_interval(read, funding_time),
        source=source,
        receive_time=receive_time,
        flag=_flag(rate, read),
    )


def predictions_of(
    rows: Sequence[object], *, source: Source, receive_time: datetime, exchange_now: datetime
) -> tuple[list[PredictedFundingRate], list[Refused]]:
    """Read the funding rows of all swaps; rows of X-Perps and dated futures are not ours. A name twice: the newest."""
    ours = [row for row in rows if not (isinstance(row, dict) and _is_other(row.get("instId")))]
    read, refused = _each(
        ours, lambda row: predicted_of(row, source=source, receive_time=receive_time, exchange_now=exchange_now)
    )
    newest: dict[str, PredictedFundingRate] = {}
    for rate in read:
        if rate.symbol not in newest or rate.known_time > newest[rate.symbol].known_time:
            newest[rate.symbol] = rate
    return list(newest.values()), refused


def _is_other(name: object) -> bool:
    """Return whether a name is one of an instrument that is not a swap."""
    return isinstance(name, str) and name != "" and not is_swap(name)


def _interval(read: _FundingRow, funding_time: datetime) -> int | None:
    """Length of the period that ends at fundingTime; the documented rule (next - this) is the fallback.

    Both fields come and go: one that is empty, "0" or no time is one that is not there.
    """
    if (previous := _time_if_any(read.prevFundingTime)) is not None:
        return interval_hours(previous, funding_time)
    if (following := _time_if_any(read.nextFundingTime)) is not None:
        return interval_hours(funding_time, following)
    return None


def settled_of(
    row: object, *, period_hours: int | None, source: Source, receive_time: datetime, exchange_now: datetime
) -> FundingRate | None:
    """Read the last finished settlement out of a funding row; None where the row does not tell its time.

    `settFundingRate` belongs to `prevFundingTime`, in settState `settled` as in `processing`. `period_hours` is the
    length of the period that it ended, known from the messages before the roll. Raises `SpellingError`.
    """
    read = _read(row, _FundingRow)
    previous = _time_if_any(read.prevFundingTime)
    if previous is None or read.settFundingRate in (None, ""):
        return None
    known_time = _known(read.ts, exchange_now)
    if previous > known_time + _CLOCK_TOLERANCE:
        raise SpellingError(f"prevFundingTime: {previous.isoformat()} is later than its row in {_show(row)}")
    rate = _rate(read.settFundingRate, "settFundingRate", row)
    return FundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        funding_time=previous,
        funding_rate=rate,
        interval_hours=period_hours,
        known_time=known_time,
        source=source,
        receive_time=receive_time,
        flag=_flag(rate, read),
    )


class _SettlementRow(msgspec.Struct):
    instId: str  # noqa: N815
    fundingTime: _Text  # noqa: N815
    realizedRate: Any = None  # noqa: N815
    fundingRate: Any = None  # noqa: N815


def settlement_time_of(row: object) -> datetime:
    """Return the instant of a row of the funding history. Raises `SpellingError`."""
    return _time(_read(row, _SettlementRow).fundingTime, "fundingTime")


def settlements_of(
    symbol: str, rows: Sequence[object], *, known_time: datetime, receive_time: datetime
) -> tuple[list[FundingRate], list[Refused]]:
    """Read rows of the funding history of one instrument, in any order; return them newest first.

    `realizedRate` is what was charged. The period of a row is its distance to the settlement before it; for the oldest
    row, and for one whose predecessor was left out, it is unknown.
    """
    found: dict[datetime, FundingRate] = {}
    holes: list[datetime] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            settled = _settlement_of(symbol, row, known_time=known_time, receive_time=receive_time)
        except SpellingError as error:
            refused.append(Refused(row, str(error)))
            holes += [at for at in [_settled_at(row)] if at is not None]
            continue
        if found.setdefault(settled.funding_time, settled).funding_rate != settled.funding_rate:
            refused.append(Refused(row, f"fundingTime: {settled.funding_time.isoformat()} is there twice, differently"))
            holes.append(settled.funding_time)
    times = sorted({*found, *holes})
    unread = len(refused) > len(holes)  # a row without a time may lie between any two
    periods = {} if unread else {later: interval_hours(earlier, later) for earlier, later in pairwise(times)}
    return [
        msgspec.structs.replace(found[at], interval_hours=periods.get(at)) for at in sorted(found, reverse=True)
    ], refused


def _settlement_of(symbol: str, row: object, *, known_time: datetime, receive_time: datetime) -> FundingRate:
    read = _read(row, _SettlementRow)
    if read.instId != inst_id_of(symbol):
        raise SpellingError(f"instId: asked for {inst_id_of(symbol)}: {_show(row)}")
    funding_time = _time(read.fundingTime, "fundingTime")
    if funding_time > known_time + _CLOCK_TOLERANCE:
        raise SpellingError(f"fundingTime: {funding_time.isoformat()} is from the future: {_show(row)}")
    name, value = ("fundingRate", read.fundingRate)
    if read.realizedRate not in (None, ""):
        name, value = ("realizedRate", read.realizedRate)
    rate = _rate(value, name, row)
    return FundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        funding_time=funding_time,
        funding_rate=rate,
        interval_hours=None,
        known_time=known_time,
        source="rest",
        receive_time=receive_time,
        flag=_flag(rate),
    )


def _settled_at(row: object) -> datetime | None:
    try:
        return settlement_time_of(row)
    except SpellingError:
        return None


# --- time


class _TimeRow(msgspec.Struct):
    ts: _Text


def exchange_time_of(rows: Sequence[object]) -> datetime:
    """Read the answer of /public/time. Raises `SpellingError`."""
    if not rows:
        raise SpellingError("ts: the answer holds no row")
    return _time(_read(rows[0], _TimeRow).ts, "ts")


def newest_time_of(rows: Sequence[object]) -> datetime | None:
    """Return when the rows of the funding list were made: the middle of their `ts`, which no single row can move."""
    times = sorted(at for row in rows if isinstance(row, dict) and (at := _time_if_any(row.get("ts"))) is not None)
    return times[len(times) // 2] if times else None


def candle_window(begin: datetime, end: datetime) -> dict[str, str]:
    """Return the query of the rows that open in [begin, end): both cursors are exclusive, `after` is the upper one."""
    return {"after": str(to_ms(end)), "before": str(to_ms(begin) - 1)}


# --- values


def _each[T](rows: Iterable[object], read: Callable[[object], T]) -> tuple[list[T], list[Refused]]:
    """Read every row; return what could be read, and the rows that could not."""
    found: list[T] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            found.append(read(row))
        except SpellingError as error:
            refused.append(Refused(row, str(error)))
    return found, refused


def _read[S: msgspec.Struct](row: object, declared: type[S]) -> S:
    """Read a row of names against its declaration."""
    if not isinstance(row, dict):
        raise SpellingError(f"{_show(row)} is no row of names")
    for name, value in row.items():
        if isinstance(value, Unreadable):
            raise SpellingError(f"{name}: a value that cannot be held in {_show(row)}")
    try:
        return msgspec.convert(row, declared)
    except msgspec.ValidationError as error:
        raise SpellingError(f"{error} in {_show(row)}") from error


def _text(value: object) -> str:
    """Return a value as text; nothing for null, and for a number of so many digits that it is none."""
    try:
        return "" if value is None else str(value)
    except ValueError:  # Python spells no integer of more than 4,300 digits
        return ""


def _time(value: object, name: str) -> datetime:
    """Read a time in Unix milliseconds."""
    text = _text(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _DIGITS.fullmatch(text):
        raise SpellingError(f"{name}: no time: {_show(value)}")
    try:
        instant = from_ms(int(text))
    except OverflowError as error:
        raise SpellingError(f"{name}: no time: {text}") from error
    if not _FIRST_TIME <= instant < _LAST_TIME:
        raise SpellingError(f"{name}: {text} would be in {instant.year}, so it is no time in milliseconds")
    return instant


def _time_or_none(value: _Text, name: str) -> datetime | None:
    return None if value in (None, "", "0", 0) else _time(value, name)


def _time_if_any(value: object) -> datetime | None:
    try:
        return _time(value, "")
    except SpellingError:
        return None


def _known(value: _Text, exchange_now: datetime) -> datetime:
    """Read when the exchange said something. A row from the future would count as the newest for ever."""
    known = _time(value, "ts")
    if known > exchange_now + _CLOCK_TOLERANCE:
        raise SpellingError(f"ts: {known.isoformat()} is from the future")
    return known


def _decimal(value: object) -> float | None:
    """Read a decimal number; None for what is none, infinity and NaN included."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return float(text) if _DECIMAL.fullmatch(text := _text(value)) else None


def _number(value: object, row: object) -> float:
    if (number := _decimal(value)) is None:
        raise SpellingError(f"no number where one is needed: {_show(row)}")
    return number


def _rate(value: object, name: str, row: object) -> float:
    if (rate := _decimal(value)) is None:
        raise SpellingError(f"{name}: no rate in {_show(row)}")
    if not RATE.holds(rate):
        raise SpellingError(f"{name}: {rate} cannot be a funding rate")
    return rate


def _flag(rate: float, read: _FundingRow | None = None) -> str | None:
    """Return what is suspicious about a rate: it is beyond its instrument's own cap, or where that is unknown, 5 %."""
    most = _decimal(read.maxFundingRate) if read else None
    least = _decimal(read.minFundingRate) if read else None
    if most is not None and least is not None and -1 < least < most < 1:
        slack = 1e-9  # the cap itself is a legitimate rate, spelled with other digits
        return None if least - slack <= rate <= most + slack else f"beyond its cap, {least:g} to {most:g}"
    return None if abs(rate) <= IMPLAUSIBLE_RATE else f"beyond {IMPLAUSIBLE_RATE:.0%}"


class _Brief(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python spells no integer of more than 4,300 digits
            return f"<an integer of {x.bit_length():,} bits>"


_BRIEF = _Brief(maxlevel=4, maxdict=40, maxlist=20, maxtuple=20, maxset=20, maxstring=200, maxlong=60, maxother=200)


def _show(value: object) -> str:
    """Repeat a value in an error as far as it helps: neither a long nor a deeply nested one costs more than a short."""
    return _BRIEF.repr(value)[:_SHOWN]
