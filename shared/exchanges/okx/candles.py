"""What is a candle in a row of OKX, and is it closed? Pure."""

from collections.abc import Iterable
from datetime import datetime

from shared.datasets.candle import Candle
from shared.datasets.plausible import impossible_candle
from shared.datasets.row import Source
from shared.exchanges.base import Page, Refused, RowError
from shared.exchanges.okx.names import EXCHANGE, symbol_of
from shared.exchanges.okx.values import CLOCK_TOLERANCE, number_of, shown, time_of
from shared.grid import to_ms


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
