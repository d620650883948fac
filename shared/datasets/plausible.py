"""Whether an event can be true, whoever put it on the bus. Pure: time is an argument.

One row that cannot be true and is stored all the same makes its whole day file a damaged one for every reader.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from shared.datasets.candle import Candle
from shared.datasets.ledger import Verdict
from shared.datasets.registry import COMPLETENESS, AnyEvent, rows_of, symbols_of
from shared.datasets.row import AMOUNT, POSITIVE, Row
from shared.grid import DAY, FIRST_DAY, LAST_DAY, day_start, floor_minute
from shared.symbol import belongs

AHEAD = timedelta(hours=1)
"""How far a time may lie ahead of the clock that it is held against: two processes measure the exchange's clock, each
by itself, and a simulated exchange may run 600 times as fast."""
LONGEST_VERDICT = 3_660 * DAY
"""A verdict is written day by day: one of centuries would fill the disk."""
_FIRST, _LAST, _END = day_start(FIRST_DAY), day_start(LAST_DAY), day_start(LAST_DAY) + 2 * DAY
_ON_THE_HOST = "receive_time"
"""The one time that is not the exchange's: a host's clock may stand anywhere."""


def impossible(event: AnyEvent, exchanges: Collection[str], exchange_now: datetime | None) -> str | None:
    """Return why an event cannot be true, or None.

    exchanges: those that there are. exchange_now: None where the clock of the exchange is not known.
    """
    latest = _LAST if exchange_now is None else min(_LAST, exchange_now + AHEAD)
    if event.exchange not in exchanges:
        return f"exchange: {event.exchange!r} is none of {', '.join(exchanges)}"
    if foreign := [symbol for symbol in symbols_of(event) if not belongs(symbol, event.exchange)]:
        return f"symbol: {foreign[0]!r} is none of {event.exchange}"
    if isinstance(event, Verdict):
        return _impossible_verdict(event, latest)
    return next((reason for row in rows_of(event) if (reason := _impossible_row(row, event.exchange, latest))), None)


def impossible_candle(candle: Candle) -> str | None:
    """Return why a candle cannot be true at any time, or None."""
    prices = (candle.open, candle.high, candle.low, candle.close)
    if not all(map(POSITIVE.holds, prices)):
        return f"a price is not a positive number between {POSITIVE.least} and {POSITIVE.most}"
    if candle.low > min(prices) or candle.high < max(prices):
        return "high or low does not enclose open and close"
    if not all(map(AMOUNT.holds, (candle.volume, candle.amount, candle.contracts))):
        return f"a volume is neither 0 nor a positive number between {AMOUNT.least} and {AMOUNT.most}"
    if floor_minute(candle.open_time) != candle.open_time:
        return "the open is not on the minute grid"
    return None


def _impossible_verdict(verdict: Verdict, latest: datetime) -> str | None:
    if verdict.about not in COMPLETENESS:
        return f"about: {verdict.about[:100]!r} is none of {', '.join(COMPLETENESS)}, of which a ledger is kept"
    if not _FIRST <= verdict.begin <= verdict.end <= latest:
        return f"minutes: {verdict.begin.isoformat()} to {verdict.end.isoformat()} are of no time up to now"
    if verdict.end - verdict.begin > LONGEST_VERDICT:
        return f"minutes: more than {LONGEST_VERDICT // DAY:,} days"
    return None


def _impossible_row(row: Row, exchange: str, latest: datetime) -> str | None:
    if row.exchange != exchange:
        return f"exchange: {row.exchange!r} is not {exchange}"
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, datetime) and name != _ON_THE_HOST and not _FIRST <= value < _END:
            return f"{name}: {value.isoformat()} is of no year with a market"
    if getattr(row, row.time) > latest:
        return f"{row.time}: {getattr(row, row.time).isoformat()} is from the future"
    if isinstance(row, Candle):
        wrong_interval = f"interval: {row.interval!r} is not 1m" if row.interval != "1m" else None
        return wrong_interval or impossible_candle(row)
    for name, bound in row.bounds.items():
        value = getattr(row, name)
        if value is not None and not bound.holds(value):
            return f"{name}: {value} cannot be true"
    return None
