"""Candles of the stream and of history become events: is one wanted, and new? No I/O: callbacks only append."""

import time
from collections.abc import Callable, Sequence

from services.collector.channels.channel import SetAside, note_unrequested
from services.collector.metrics import CANDLES
from services.collector.stream.connection import Row
from services.collector.tracking.requests import Request
from services.collector.tracking.universe import Tracker
from shared.clock import ExchangeClock
from shared.datasets.candle import Candle
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import Page
from shared.grid import MINUTE, floor_minute
from shared.ledger.minutes import Gap


class CandleIntake:
    """What happens to a candle: it becomes an event, once."""

    def __init__(
        self, tracker: Tracker, clock: ExchangeClock, emit: Callable[[AnyEvent], None], set_aside: SetAside
    ) -> None:
        self._tracker = tracker
        self._clock = clock
        self._emit = emit
        self._set_aside = set_aside

    def take(self, row: Row) -> None:
        """Take a row of the stream, closed or partial. It proves that every minute before its own is over."""
        wanted = self._tracker.symbols.get(row.symbol)
        if wanted is None:
            note_unrequested(self._tracker, self._set_aside, "candles", row)
            return
        candles = [event for event in row.page.events if isinstance(event, Candle)]
        opens = [candle.open_time for candle in candles] + [one.at for one in row.page.refused if one.at is not None]
        if opens := [*opens, *row.page.partial]:
            newest = min(max(opens), self._clock.latest())
            wanted.forming = newest if wanted.forming is None else max(newest, wanted.forming)
        for refused in row.page.refused:
            if refused.at is None or refused.at not in wanted.seen:
                self._set_aside("candles", refused.row, refused.reason)
        for candle in candles:
            if candle.open_time not in wanted.seen:
                wanted.seen.add(candle.open_time)
                CANDLES.labels("ws").inc()
                self._emit(candle)

    def history(self, request: Request, page: Page[Candle]) -> list[Candle]:
        """Return the closed candles of a page that are still missing. They count as seen once `published` is called.

        A minute of which the page has nothing but a closed row that cannot be true is noted.
        """
        wanted = self._tracker.symbols.get(request.symbol)
        if wanted is None:
            return []
        begin, end = request.gap.begin, request.gap.end
        for row in page.refused:
            self._set_aside("history", row.row, row.reason)
        found = {
            candle.open_time: candle
            for candle in page.events
            if begin <= candle.open_time < end and candle.open_time not in wanted.seen
        }
        refused = {
            floor_minute(row.at)
            for row in page.refused
            if row.at is not None and begin <= row.at < end and row.at not in wanted.seen
        }
        holes = [Gap(minute, minute + MINUTE) for minute in sorted(refused - found.keys())]
        wanted.refusals.note(holes, self._clock.now(), time.monotonic())
        return list(found.values())

    def published(self, candles: Sequence[Candle]) -> None:
        """Mark candles of history as seen: they are on their way."""
        for candle in candles:
            if (wanted := self._tracker.symbols.get(candle.symbol)) is not None:
                wanted.seen.add(candle.open_time)
        CANDLES.labels("rest").inc(len(candles))

    def forget(self, event: AnyEvent) -> None:
        """Count a candle as missing again: it was dropped from a full buffer."""
        if isinstance(event, Candle) and (wanted := self._tracker.symbols.get(event.symbol)) is not None:
            wanted.seen.discard(event.open_time)
