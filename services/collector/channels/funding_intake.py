"""Funding rates of the stream and of history become events. No I/O: callbacks that only append."""

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from services.collector.channels.channel import SetAside, note_unrequested
from services.collector.channels.funding_tracker import FundingTracker
from services.collector.metrics import FLAGGED, LIFE_CYCLE, SETTLEMENTS
from services.collector.stream.connection import Row
from services.collector.tracking.universe import Tracker
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.registry import AnyEvent
from shared.grid import DAY
from shared.symbol import Symbol

log = structlog.get_logger()


class FundingIntake:
    """What happens to a funding rate: every prediction and every settlement becomes an event, once."""

    def __init__(self, tracker: Tracker, emit: Callable[[AnyEvent], None], set_aside: SetAside) -> None:
        self._tracker = tracker
        self._emit = emit
        self._set_aside = set_aside
        self._funding = FundingTracker()
        self._missed: list[tuple[Symbol, datetime]] = []
        self._settled: list[FundingRate] = []
        self._interval_hours: dict[Symbol, int] = {}
        self._flagged: dict[Symbol, datetime] = {}

    def take(self, row: Row) -> None:
        """Take a row of the stream."""
        if row.symbol not in self._tracker.symbols:
            note_unrequested(self._tracker, self._set_aside, "funding", row)
            return
        for refused in row.page.refused:
            self._set_aside("funding", refused.row, refused.reason)
        predicted = next((event for event in row.page.events if isinstance(event, PredictedFundingRate)), None)
        settled = next((event for event in row.page.events if isinstance(event, FundingRate)), None)
        if predicted is None:
            return
        events, missed = self._funding.observe(predicted, settled)
        for event in events:
            self._note(event)
            self._emit(event)
        if missed is not None and not self._tracker.is_known(row.symbol, missed):
            self._tracker.note_due(row.symbol, missed)
            self._missed.append((row.symbol, missed))

    def _note(self, event: FundingRate | PredictedFundingRate) -> None:
        if event.flag is not None:
            self._note_flag(event)
        if isinstance(event, FundingRate):
            self._tracker.note_due(event.symbol, event.funding_time)
            self._tracker.note_published(event.symbol, event.funding_time)
            self._settled.append(event)
        else:
            self._note_interval(event.symbol, event.interval_hours)

    def settled_by_history(self, found: Sequence[FundingRate]) -> list[FundingRate]:
        """Take settlements of the history; return those worth publishing: not published yet, or with another rate.

        What is stored, or on its way, keeps the instant at which it became known.
        """
        fresh = []
        for settled in found:
            if settled.flag is not None:
                self._note_flag(settled)
            self._tracker.note_due(settled.symbol, settled.funding_time)
            stored = self._tracker.is_known(settled.symbol, settled.funding_time)
            if stored and self._funding.differs(settled):
                SETTLEMENTS.labels("corrected").inc()
                log.warning("the history corrects a settlement", symbol=settled.symbol, rate=settled.funding_rate)
                fresh.append(settled)
            elif not stored:
                SETTLEMENTS.labels("added").inc()
                fresh.append(settled)
            else:
                SETTLEMENTS.labels("confirmed").inc()
        self._funding.learn(found)
        return fresh

    def published(self, settlements: Sequence[FundingRate]) -> None:
        """Mark settlements of the history as seen: they are on their way."""
        for settled in settlements:
            self._tracker.note_published(settled.symbol, settled.funding_time)

    def last_pushed(self, symbol: Symbol) -> datetime | None:
        """Return the exchange's time of the newest message of a symbol; None where there was none yet."""
        last = self._funding.last.get(symbol)
        return None if last is None else last.prediction.known_time

    def take_missed(self) -> list[tuple[Symbol, datetime]]:
        """Return the settlements that happened unseen since the last call: (symbol, instant)."""
        missed, self._missed = self._missed, []
        return missed

    def take_settled(self) -> list[FundingRate]:
        """Return the settlements that were taken after a roll since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def flagged(self, exchange_now: datetime) -> list[str]:
        """Return the symbols with a suspicious rate of a settlement of the last day, or of one to come."""
        return sorted(symbol for symbol, at in self._flagged.items() if at > exchange_now - DAY)

    def _note_flag(self, event: FundingRate | PredictedFundingRate) -> None:
        """Log that a rate is suspicious, once for each settlement; it is kept all the same."""
        if self._flagged.get(event.symbol) != event.funding_time:
            self._flagged[event.symbol] = event.funding_time
            FLAGGED.inc()
            log.warning("suspicious funding rate", symbol=event.symbol, rate=event.funding_rate, why=event.flag)

    def _note_interval(self, symbol: Symbol, hours: int | None) -> None:
        """Log that the exchange settles an instrument's funding more or less often than before."""
        if hours is None:
            return
        before = self._interval_hours.setdefault(symbol, hours)
        if hours != before:
            self._interval_hours[symbol] = hours
            LIFE_CYCLE.labels("funding interval").inc()
            log.info("funding interval changed", symbol=symbol, before=before, now=hours)
