"""What is a candle in a row of OKX, and is it closed? Pure.

There are two ways to read a frame of the stream, since a universe sends thousands a minute. `plain_frame` takes a frame
in which nothing is odd, at once and against a declared type. Any other one is read value by value (`candles_of`), which
finds out what is wrong with it.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from shared.datasets.candle import Candle
from shared.datasets.plausible import impossible_candle
from shared.datasets.registry import AnyEvent
from shared.datasets.row import AMOUNT, POSITIVE, Source
from shared.exchanges.base import Page, Refused, RowError
from shared.exchanges.okx.names import EXCHANGE, symbol_of
from shared.exchanges.okx.values import CLOCK_TOLERANCE, number_of, shown, time_of
from shared.grid import floor_minute, to_ms
from shared.symbol import Symbol


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


class _Arg(msgspec.Struct):
    channel: str
    instId: str  # noqa: N815 - the exchange's spelling


class _Columns(msgspec.Struct, array_like=True):
    ts: str
    open: float
    high: float
    low: float
    close: float
    contracts: float
    volume: float
    amount: float
    confirm: str


class _Frame(msgspec.Struct):
    arg: _Arg
    data: list[_Columns]
    event: str | None = None


_DECODER = msgspec.json.Decoder(_Frame, strict=False)  # numbers are texts
_LEAST, _MOST = POSITIVE.least, POSITIVE.most
_SMALLEST, _LARGEST = AMOUNT.least, AMOUNT.most
_TIME_DIGITS = 13


class PlainFrame(NamedTuple):
    """A frame in which nothing is odd."""

    symbol: Symbol
    page: Page[AnyEvent]


def plain_frame(
    frame: str, channel: str, symbols: Mapping[str, Symbol], clocks: Callable[[], tuple[datetime, datetime]]
) -> PlainFrame | None:
    """Read a frame with one row in which nothing is odd; None for any other, and for what is no such frame.

    Args:
        frame: As it came.
        channel: The name of the channel in frames.
        symbols: instId → symbol of what was asked for.
        clocks: Our clock, and the exchange's at its latest; they are read for a closed candle only.

    """
    try:
        read = _DECODER.decode(frame)
    except (ValueError, RecursionError):
        return None
    symbol = symbols.get(read.arg.instId)
    if symbol is None or len(read.data) != 1 or read.event is not None or read.arg.channel != channel:
        return None
    row = read.data[0]
    opened = _plain_open(row.ts)
    if opened is None:
        return None
    if row.confirm != "1":
        return PlainFrame(symbol, Page((), (), (opened,)))
    received, latest = clocks()
    if not _is_possible(row) or opened > latest + CLOCK_TOLERANCE:
        return None
    candle = Candle(
        exchange=EXCHANGE,
        symbol=symbol,
        interval="1m",
        open_time=opened,
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        amount=row.amount,
        contracts=row.contracts,
        source="ws",
        receive_time=received,
    )
    return PlainFrame(symbol, Page((candle,)))


@lru_cache(maxsize=256)
def _plain_open(ts: str) -> datetime | None:
    """Return the time of a row where it is the start of a minute; else None. All rows of a minute have the same."""
    if len(ts) != _TIME_DIGITS:
        return None
    try:
        opened = time_of(ts, "candle")
    except RowError:
        return None
    return opened if floor_minute(opened) == opened else None


def _is_possible(row: _Columns) -> bool:
    """Return whether `impossible_candle` has nothing to say of the numbers of a row."""
    low, high = row.low, row.high
    return (
        _LEAST <= low <= row.open <= high <= _MOST
        and low <= row.close <= high
        and (_SMALLEST <= row.volume <= _LARGEST or row.volume == 0)
        and (_SMALLEST <= row.amount <= _LARGEST or row.amount == 0)
        and (_SMALLEST <= row.contracts <= _LARGEST or row.contracts == 0)
    )


def is_closed(row: object) -> bool:
    """Return whether the exchange says that the candle is over (confirm, the ninth column, is 1)."""
    return isinstance(row, list | tuple) and len(row) > 8 and row[8] == "1"  # noqa: PLR2004 - the ninth column


def open_time_of(row: object) -> datetime:
    """Return the open of a candle row, closed or partial. Raises `RowError`."""
    if not isinstance(row, list | tuple) or not row:
        raise RowError(f"candle: {shown(row)} is no row of columns")
    return time_of(row[0], "candle")


def candle_of(inst_id: str, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime) -> Candle:
    """Turn a closed row [ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm] into a candle.

    On swaps vol counts contracts, volCcy the base coin, volCcyQuote the quote currency.

    Raises:
        RowError: the row is not closed, a value is no decimal number, or the candle is impossible (high below low,
            negative volume, beyond what float32 can hold, off the minute grid, from the future).

    """
    open_time = open_time_of(row)
    if not isinstance(row, list | tuple) or not is_closed(row):
        raise RowError(f"the candle is not closed: {shown(row)}")
    opened, high, low, close, contracts, volume, amount = (number_of(value, row) for value in row[1:8])
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
        raise RowError(f"{reason}: {shown(row)}")
    if candle.open_time > exchange_now + CLOCK_TOLERANCE:
        raise RowError(f"the candle is from the future: {shown(row)}")
    return candle


def candle_window(begin: datetime, end: datetime) -> dict[str, str]:
    """Return the query of the rows that open in [begin, end): both cursors are exclusive, `after` is the upper one."""
    return {"after": str(to_ms(end)), "before": str(to_ms(begin) - 1)}
