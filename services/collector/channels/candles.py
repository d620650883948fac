"""The channel of candles: rows of the stream and of history become events, each minute once."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from services.collector.channels.backfill import Backfill
from services.collector.channels.channel import SetAside, Surroundings, note_unrequested
from services.collector.metrics import CANDLES
from services.collector.stream.connection import Row
from services.collector.tracking.instrument import TrackedInstrument
from services.collector.tracking.requests import Request
from services.collector.tracking.universe import Tracker
from shared.clock import ExchangeClock
from shared.datasets.candle import Candle
from shared.datasets.channel import Channel
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import Page
from shared.grid import MINUTE, floor_minute
from shared.ledger.minutes import Gap
from shared.symbol import Symbol


class CandleIntake:
    """What happens to a candle: it becomes an event, once."""

    def __init__(
        self, tracker: Tracker, clock: ExchangeClock, emit: Callable[[AnyEvent], None], set_aside: SetAside
    ) -> None:
        self._tracker = tracker
        self._clock = clock
        self._emit = emit
        self._set_aside = set_aside
        self._taken = CANDLES.labels("ws")

    def take(self, row: Row) -> None:
        """Take a row of the stream, closed or partial. It proves that every minute before its own is over."""
        wanted = self._tracker.symbols.get(row.symbol)
        if wanted is None:
            note_unrequested(self._tracker, self._set_aside, "candles", row)
            return
        for opened in row.page.partial:
            self._note_open(wanted, opened)
        for refused in row.page.refused:
            if refused.at is not None:
                self._note_open(wanted, refused.at)
            if refused.at is None or refused.at not in wanted.seen:
                self._set_aside("candles", refused.row, refused.reason)
        for candle in row.page.events:
            if isinstance(candle, Candle):
                self._note_open(wanted, candle.open_time)
                if wanted.seen.add(candle.open_time):
                    self._taken.inc()
                    self._emit(candle)

    def _note_open(self, wanted: TrackedInstrument, opened: datetime) -> None:
        """Note a row that opened then. One from the future proves nothing beyond now."""
        if wanted.forming is None or opened > wanted.forming:
            newest = min(opened, self._clock.latest())
            wanted.forming = newest if wanted.forming is None else max(newest, wanted.forming)

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
            self._tracker.note_published(candle.symbol, candle.open_time)
        CANDLES.labels("rest").inc(len(candles))


class Candles:
    """The channel of candles: every minute, healed over REST."""

    def __init__(self, channel: Channel, around: Surroundings) -> None:
        service = around.service
        self.channel = channel
        self.tracker = Tracker(around.reach, around.ledger, Candle.dataset)
        self._clock, self._exchange = service.clock, service.exchange
        self._intake = CandleIntake(self.tracker, service.clock, around.publisher.append, service.set_aside)
        self._backfill = Backfill(channel, around, self.tracker, self)
        self.take, self.history, self.run = self._intake.take, self._intake.history, self._backfill.run

    async def fetch(self, request: Request) -> Page[Candle]:
        """Ask the exchange for a page."""
        begin, end = request.gap.begin, request.gap.end
        return await self._exchange.candles(request.symbol, begin, end, now=self._clock.latest())

    def published(self, _: Request, candles: Sequence[Candle]) -> None:
        """Mark candles of history as seen."""
        self._intake.published(candles)

    def forget(self, event: AnyEvent) -> None:
        """Count a candle as missing again: it was dropped from a full buffer."""
        if isinstance(event, Candle):
            self.tracker.forget(event.symbol, event.open_time)

    def ask_since(self, symbol: Symbol, begin: datetime) -> None:
        """Do nothing: which of its minutes are missing a minute's own ledger says."""

    def report(self) -> Mapping[str, Any]:
        """Return what is missing. The converter waits for the history before it lays its calendar's origin down."""
        if self._backfill.missing is None:
            return {}
        refused = {wanted.symbol: wanted.refused.count() for wanted in self.tracker.symbols.values()}
        return {
            "missing_minutes": self._backfill.missing,
            "refused_minutes": {symbol: count for symbol, count in refused.items() if count},
            "history_complete": self._backfill.is_complete(),
        }
