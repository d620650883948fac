"""How OKX spells instruments, candles and funding, and what that is in our words. Pure; the only place that knows.

Every row is read against a declared type. A row that does not fit leaves as a `RowError`, and as nothing else:
what reads lists (`listing_of`, `predictions_of`, ...) leaves it out, names it, and takes its neighbours.

Sources: OKX v5 documentation (public data, market data, WebSocket candle and funding channels) and recorded messages.
"""

import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import ENDED_STATE, InstrumentDefinition
from shared.datasets.plausible import impossible_candle
from shared.datasets.registry import AnyEvent
from shared.datasets.row import FUNDING_HOURS, POSITIVE, RATE, Source
from shared.exchanges.base import Instrument, Listing, Maintenance, Page, Refused, RowError
from shared.exchanges.okx.decoding import Unreadable
from shared.grid import DAY, FIRST_DAY, MINUTE, day_start, from_ms, to_ms
from shared.symbol import Symbol, SymbolError, belongs, parse_symbol, unique

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


# --- names


def symbol_of(inst_id: str) -> Symbol:
    """Return our name: instId without -SWAP, dashes to underscores (BTC-USDT-SWAP is BTC_USDT).

    Raises `RowError` for what is no swap's name, cannot be a symbol, or does not lead back to the same instId.
    """
    if not is_swap(inst_id):
        raise RowError(f"instId: {_show(inst_id)} is not the name of a swap")
    try:
        symbol = parse_symbol(inst_id.removesuffix(_SUFFIX).replace("-", "_"))
    except SymbolError as error:
        raise RowError(f"instId: {error}") from error
    if inst_id_of(symbol) != inst_id or not belongs(symbol, EXCHANGE):
        raise RowError(f"instId: {_show(inst_id)} as {symbol} would be taken for another name")
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
    """Read a row of /public/instruments. Announced ones (preopen) have most fields empty. Raises `RowError`."""
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
        eligible=is_eligible(read.state, _text(read.ctType), _text(read.instCategory)),
        halted=read.state in HALTED_STATES,
    )


HALTED_STATES = {"suspend", "preopen", "test", "settling", "rebase"}
"""States in which nothing is traded; post_only still has candles."""


def is_eligible(state: str, contract_type: str, category: str) -> bool:
    """Return whether a swap can be in the universe: live, linear or inverse, crypto."""
    return state == "live" and contract_type in ("linear", "inverse") and category in CRYPTO_CATEGORIES


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
        except RowError as error:
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
        not instrument.eligible,
        instrument.state != "live",
        not traded,
        instrument.list_time or _LAST_TIME,
        instrument.symbol,
    )


_UNTRADED = {"", "preopen", "test", ENDED_STATE}


def _name_of(inst_id: str) -> str:
    try:
        return symbol_of(inst_id)
    except RowError:
        return inst_id


# --- maintenance


class _MaintenanceRow(msgspec.Struct):
    begin: _Text
    title: _Text = None
    state: _Text = None
    end: _Text = None
    serviceType: _Text = None  # noqa: N815
    env: _Text = None


def maintenance_of(row: object) -> Maintenance:
    """Read a row of /system/status. Raises `RowError`."""
    read = _read(row, _MaintenanceRow)
    return Maintenance(
        title=_text(read.title)[:200],
        state=_text(read.state),
        begin=_time(read.begin, "begin"),
        end=_time_or_none(read.end, "end"),
        halts_swaps=_text(read.serviceType) in _TRADING_SERVICES and _text(read.env) in _PRODUCTION,
    )


def maintenances_of(rows: Sequence[object]) -> Page[Maintenance]:
    """Read the list of maintenance windows."""
    return _each(rows, maintenance_of)


# --- candles


def candles_of(
    inst_id: str, rows: Iterable[object], *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Page[Candle]:
    """Read candle rows, closed and partial. A refused row says of which minute it is, where it says so much."""
    found: list[Candle] = []
    refused: list[Refused] = []
    partial: list[datetime] = []
    for row in rows:
        opened = None
        try:
            opened = open_time_of(row)
            if not is_closed(row):
                partial.append(opened)
                continue
            found.append(candle_of(inst_id, row, source=source, receive_time=receive_time, exchange_now=exchange_now))
        except RowError as error:
            refused.append(Refused({"instId": inst_id, "row": row}, str(error), opened))
    return Page(found, refused, partial)


def is_closed(row: object) -> bool:
    """Return whether the exchange says that the candle is over (confirm, the ninth column, is 1)."""
    return isinstance(row, list | tuple) and len(row) > 8 and row[8] == "1"  # noqa: PLR2004 - the ninth column


def open_time_of(row: object) -> datetime:
    """Return the open of a candle row, closed or partial. Raises `RowError`."""
    if not isinstance(row, list | tuple) or not row:
        raise RowError(f"candle: {_show(row)} is no row of columns")
    return _time(row[0], "candle")


def candle_of(inst_id: str, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime) -> Candle:
    """Turn a closed row [ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm] into a candle.

    On swaps vol counts contracts, volCcy the base coin, volCcyQuote the quote currency.

    Raises:
        RowError: the row is not closed, a value is no decimal number, or the candle is impossible (high below low,
            negative volume, beyond what float32 can hold, off the minute grid, from the future).

    """
    open_time = open_time_of(row)
    if not isinstance(row, list | tuple) or not is_closed(row):
        raise RowError(f"the candle is not closed: {_show(row)}")
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
        raise RowError(f"{reason}: {_show(row)}")
    if candle.open_time > exchange_now + _CLOCK_TOLERANCE:
        raise RowError(f"the candle is from the future: {_show(row)}")
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

    Raises `RowError` where rate or time is missing, no number, or from the future.
    """
    read = _read(row, _FundingRow)
    funding_time = _time(read.fundingTime, "fundingTime")
    known_time = _known(read.ts, exchange_now)
    if funding_time > known_time + _FUNDING_AHEAD:
        raise RowError(f"fundingTime: {funding_time.isoformat()} is too far ahead in {_show(row)}")
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


def funding_of(
    inst_id: str, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Page[PredictedFundingRate | FundingRate]:
    """Read a row of the funding stream: what it predicts, and the last settlement where it has that.

    The period that the settlement ended is not in the row. A row of which a part cannot be read is refused as a whole.
    """
    if isinstance(row, dict) and row.get("instId", inst_id) != inst_id:
        return Page([], [Refused({"instId": inst_id, "row": row}, "a row of another instrument")])
    named = {"instId": inst_id, **row} if isinstance(row, dict) else row
    try:
        predicted = predicted_of(named, source=source, receive_time=receive_time, exchange_now=exchange_now)
        settled = settled_of(
            named, period_hours=None, source=source, receive_time=receive_time, exchange_now=exchange_now
        )
    except RowError as error:
        return Page([], [Refused({"instId": inst_id, "row": row}, str(error))])
    return Page([predicted] if settled is None else [predicted, settled])


def predictions_of(
    rows: Sequence[object], *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Page[PredictedFundingRate]:
    """Read the funding rows of all swaps; rows of X-Perps and dated futures are not ours. A name twice: the newest."""
    ours = [row for row in rows if not (isinstance(row, dict) and _is_other(row.get("instId")))]
    page = _each(
        ours, lambda row: predicted_of(row, source=source, receive_time=receive_time, exchange_now=exchange_now)
    )
    newest: dict[str, PredictedFundingRate] = {}
    for rate in page.events:
        if rate.symbol not in newest or rate.known_time > newest[rate.symbol].known_time:
            newest[rate.symbol] = rate
    return Page(list(newest.values()), page.refused)


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
    """Read the last finished settlement out of a funding row; None where the row does not have its time.

    `settFundingRate` belongs to `prevFundingTime`, in settState `settled` as in `processing`. `period_hours` is the
    length of the period that it ended, known from the messages before the roll. Raises `RowError`.
    """
    read = _read(row, _FundingRow)
    previous = _time_if_any(read.prevFundingTime)
    if previous is None or read.settFundingRate in (None, ""):
        return None
    known_time = _known(read.ts, exchange_now)
    if previous > known_time + _CLOCK_TOLERANCE:
        raise RowError(f"prevFundingTime: {previous.isoformat()} is later than its row in {_show(row)}")
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
    """Return the instant of a row of the funding history. Raises `RowError`."""
    return _time(_read(row, _SettlementRow).fundingTime, "fundingTime")


def settlements_of(
    symbol: str, rows: Sequence[object], *, known_time: datetime, receive_time: datetime
) -> Page[FundingRate]:
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
        except RowError as error:
            refused.append(Refused(row, str(error)))
            holes += [at for at in [_settled_at(row)] if at is not None]
            continue
        if found.setdefault(settled.funding_time, settled).funding_rate != settled.funding_rate:
            refused.append(Refused(row, f"fundingTime: {settled.funding_time.isoformat()} is there twice, differently"))
            holes.append(settled.funding_time)
    times = sorted({*found, *holes})
    unread = len(refused) > len(holes)  # a row without a time may lie between any two
    periods = {} if unread else {later: interval_hours(earlier, later) for earlier, later in pairwise(times)}
    newest_first = sorted(found, reverse=True)
    return Page([msgspec.structs.replace(found[at], interval_hours=periods.get(at)) for at in newest_first], refused)


def _settlement_of(symbol: str, row: object, *, known_time: datetime, receive_time: datetime) -> FundingRate:
    read = _read(row, _SettlementRow)
    if read.instId != inst_id_of(symbol):
        raise RowError(f"instId: asked for {inst_id_of(symbol)}: {_show(row)}")
    funding_time = _time(read.fundingTime, "fundingTime")
    if funding_time > known_time + _CLOCK_TOLERANCE:
        raise RowError(f"fundingTime: {funding_time.isoformat()} is from the future: {_show(row)}")
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
    except RowError:
        return None


# --- what was set aside


def reread(source: str, payload: object, *, received: datetime, now: datetime) -> list[AnyEvent]:
    """Read rows that were set aside again: one with its instrument, or a frame of the WebSocket with several.

    source: `candles` or `funding` of the stream, or `history`. A partial candle leaves nothing, as when it is live.
    Raises `RowError`.
    """
    match payload:
        case {"instId": str(inst_id), "row": row}:
            rows = [row]
        case {"arg": {"instId": str(inst_id)}, "data": [*rows]}:
            pass
        case _:
            raise RowError("the payload does not say of which instrument it is")
    events: list[AnyEvent] = []
    if source in ("candles", "history"):
        came: Source = "ws" if source == "candles" else "rest"
        _extend(events, candles_of(inst_id, rows, source=came, receive_time=received, exchange_now=now))
    elif source == "funding":
        for row in rows:
            _extend(events, funding_of(inst_id, row, source="ws", receive_time=received, exchange_now=now))
    else:
        raise RowError(f"rows of {source!r} cannot be read again")
    return events


def _extend(events: list[AnyEvent], page: Page[Any]) -> None:
    """Take the events of a page. Raises `RowError` for the first row that is refused still."""
    for refused in page.refused:
        raise RowError(refused.reason)
    events += page.events


# --- time


class _TimeRow(msgspec.Struct):
    ts: _Text


def exchange_time_of(rows: Sequence[object]) -> datetime:
    """Read the answer of /public/time. Raises `RowError`."""
    if not rows:
        raise RowError("ts: the answer holds no row")
    return _time(_read(rows[0], _TimeRow).ts, "ts")


def newest_time_of(rows: Sequence[object]) -> datetime | None:
    """Return when the rows of the funding list were made: the middle of their `ts`, which no single row can move."""
    times = sorted(at for row in rows if isinstance(row, dict) and (at := _time_if_any(row.get("ts"))) is not None)
    return times[len(times) // 2] if times else None


def candle_window(begin: datetime, end: datetime) -> dict[str, str]:
    """Return the query of the rows that open in [begin, end): both cursors are exclusive, `after` is the upper one."""
    return {"after": str(to_ms(end)), "before": str(to_ms(begin) - 1)}


# --- values


def _each[T](rows: Iterable[object], read: Callable[[object], T]) -> Page[T]:
    """Read every row; return what could be read, and the rows that could not."""
    found: list[T] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            found.append(read(row))
        except RowError as error:
            refused.append(Refused(row, str(error)))
    return Page(found, refused)


def _read[S: msgspec.Struct](row: object, declared: type[S]) -> S:
    """Read a row of names against its declaration."""
    if not isinstance(row, dict):
        raise RowError(f"{_show(row)} is no row of names")
    for name, value in row.items():
        if isinstance(value, Unreadable):
            raise RowError(f"{name}: a value that cannot be held in {_show(row)}")
    try:
        return msgspec.convert(row, declared)
    except msgspec.ValidationError as error:
        raise RowError(f"{error} in {_show(row)}") from error


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
        raise RowError(f"{name}: no time: {_show(value)}")
    try:
        instant = from_ms(int(text))
    except OverflowError as error:
        raise RowError(f"{name}: no time: {text}") from error
    if not _FIRST_TIME <= instant < _LAST_TIME:
        raise RowError(f"{name}: {text} would be in {instant.year}, so it is no time in milliseconds")
    return instant


def _time_or_none(value: _Text, name: str) -> datetime | None:
    return None if value in (None, "", "0", 0) else _time(value, name)


def _time_if_any(value: object) -> datetime | None:
    try:
        return _time(value, "")
    except RowError:
        return None


def _known(value: _Text, exchange_now: datetime) -> datetime:
    """Read when the exchange said something. A row from the future would count as the newest for ever."""
    known = _time(value, "ts")
    if known > exchange_now + _CLOCK_TOLERANCE:
        raise RowError(f"ts: {known.isoformat()} is from the future")
    return known


def _decimal(value: object) -> float | None:
    """Read a decimal number; None for what is none, infinity and NaN included."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return float(text) if _DECIMAL.fullmatch(text := _text(value)) else None


def _number(value: object, row: object) -> float:
    if (number := _decimal(value)) is None:
        raise RowError(f"no number where one is needed: {_show(row)}")
    return number


def _rate(value: object, name: str, row: object) -> float:
    if (rate := _decimal(value)) is None:
        raise RowError(f"{name}: no rate in {_show(row)}")
    if not RATE.holds(rate):
        raise RowError(f"{name}: {rate} cannot be a funding rate")
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
