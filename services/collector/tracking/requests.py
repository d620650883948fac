"""Which pages to ask the exchange for, and what an answer settles. Pure: time is an argument."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from services.collector.tracking.instrument import TrackedInstrument
from shared.exchanges.base import SURE, Limits
from shared.grid import ceil_minute, floor_minute
from shared.ledger.minutes import Coverage, Gap, day_mask, gaps_of, split_gap
from shared.symbol import Symbol


@dataclass(frozen=True)
class Request:
    """One page to ask the exchange for."""

    symbol: Symbol
    gap: Gap
    fresh: bool
    """Whether it lies within what the exchange is quick to give: such a page never waits for the history."""


def pages(wanted: TrackedInstrument, gaps: Iterable[Gap], exchange_now: datetime, limits: Limits) -> Iterator[Request]:
    """Cut gaps into pages of the exchange's size, newest first."""
    border = ceil_minute(exchange_now) - limits.recent
    for gap in sorted(gaps, reverse=True):
        for piece in split_gap(gap, limits.page_minutes):
            yield Request(wanted.symbol, piece, piece.begin >= border)


def settle(
    wanted: TrackedInstrument,
    request: Request,
    exchange_now: datetime,
    seconds: float,
    halts: Coverage,
    *,
    disputed: bool = False,
) -> None:
    """Note what of a page the answer did not hold, once its rows have been marked as seen, or as refused.

    An exchange that is asked well after the minute is believed when it has no row. Absent is a minute between rows that
    it has shown, in answers that agree half an hour apart. `seconds`: our monotonic clock. `halts`: when the exchange
    or the instrument stood still. `disputed`: the exchange's clock is in doubt, so nothing is judged.
    """
    wanted.refusals.drop(wanted.seen.days)
    wanted.refused.add_masks(wanted.refusals.repeated())
    wanted.refusals.drop(wanted.refused.days)
    shown = [wanted.seen, wanted.refused, wanted.refusals.minutes()]
    for minutes in shown:
        wanted.denials.drop(minutes.days)
    sure_until = max(request.gap.begin, min(request.gap.end, floor_minute(exchange_now - SURE)))
    holes = gaps_of(
        request.gap.begin, sure_until, lambda day: reduce(or_, (minutes.days.get(day, 0) for minutes in shown))
    )
    if disputed:
        return
    wanted.denials.note(holes, exchange_now, seconds)
    _judge(wanted, exchange_now, halts)


def _judge(wanted: TrackedInstrument, exchange_now: datetime, halts: Coverage) -> None:
    """Give the minutes a verdict that were denied for long enough."""
    for day, mask in wanted.denials.repeated():
        wanted.halted.add_mask(day, mask & halts.days.get(day, 0))
    if (shown := wanted.shown()) is not None:
        for day, mask in wanted.denials.agreed(exchange_now):
            wanted.absent.add_mask(day, mask & day_mask(day, *shown) & ~wanted.halted.days.get(day, 0))
    wanted.denials.drop(wanted.halted.days)
    wanted.denials.drop(wanted.absent.days)


def give_up(wanted: TrackedInstrument, gap: Gap) -> None:
    """Note that an instrument is unknown to the exchange: nothing will come of it."""
    wanted.absent.add_span(gap.begin, gap.end)
