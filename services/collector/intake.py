"""Rows in, events out: one normalisation for live data and for history. No I/O: callbacks that only append."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from services.collector.funding import FundingTracker
from services.collector.metrics import CANDLES, LIFE_CYCLE, SETTLEMENTS
from services.collector.wanted import Request, Universe
from shared.clock import ExchangeClock
from shared.events import AnyEvent, Candle, FundingRate, PredictedFundingRate
from shared.exchange import SpellingError, candle_of, inst_id_of, is_closed, open_time_of, symbol_of
from shared.grid import floor_minute

log = structlog.get_logger()


class Intake:
    """What happens to a row: is it wanted, closed, new, possible? Then it becomes an event, once."""

    def __init__(
        self,
        universe: Universe,
        clock: ExchangeClock,
        emit: Callable[[AnyEvent], None],
        set_aside: Callable[[str, object, str], None],
    ) -> None:
        self._universe = universe
        self._clock = clock
        self._emit = emit
        self._set_aside = set_aside
        self._funding = FundingTracker()
        self._missed: list[tuple[str, datetime]] = []
        self._settled: list[FundingRate] = []
        self._interval_hours: dict[str, int] = {}

    def live_candle(self, inst_id: str, row: Any) -> None:
        """Take a candle row of the stream, forming or closed."""
        wanted = self._universe.symbols.get(symbol_of(inst_id))
        if wanted is None:
            self._note_stranger("collector:candles", inst_id, row)
            return
        try:
            open_time = open_time_of(row)
            if wanted.forming is None or open_time > wanted.forming:
                wanted.forming = min(open_time, self._clock.now())
            if not is_closed(row) or open_time in wanted.seen:
                return
            candle = candle_of(
                inst_id, row, source="ws", receive_time=datetime.now(UTC), exchange_now=self._clock.latest()
            )
        except SpellingError as error:
            self._set_aside("collector:candles", {"instId": inst_id, "row": row}, str(error))
            return
        wanted.seen.add(open_time)
        CANDLES.labels("ws").inc()
        self._emit(candle)

    def history(self, request: Request, rows: list[list[str]]) -> list[Candle]:
        """Return the closed candles of a page that are still missing. They count as seen once `published` is told."""
        wanted = self._universe.symbols.get(request.symbol)
        if wanted is None:
            return []
        received = datetime.now(UTC)
        found = []
        for row in rows:
            if not is_closed(row):
                continue
            try:
                candle = candle_of(
                    inst_id_of(request.symbol),
                    row,
                    source="rest",
                    receive_time=received,
                    exchange_now=self._clock.latest(),
                )
            except SpellingError as error:
                self._set_aside("collector:history", {"instId": inst_id_of(request.symbol), "row": row}, str(error))
                continue
            if request.gap.begin <= candle.open_time < request.gap.end and candle.open_time not in wanted.seen:
                found.append(candle)
        return found

    def published(self, candles: list[Candle]) -> None:
        """Mark candles of history as seen: they are on their way."""
        for candle in candles:
            if (wanted := self._universe.symbols.get(candle.symbol)) is not None:
                wanted.seen.add(candle.open_time)
        CANDLES.labels("rest").inc(len(candles))

    def forget(self, event: AnyEvent) -> None:
        """Take back that a candle was handed on: it was dropped from a full buffer, so it is missing again."""
        if isinstance(event, Candle) and (wanted := self._universe.symbols.get(event.symbol)) is not None:
            wanted.seen.discard(event.open_time)

    def settled_by_history(self, found: list[FundingRate]) -> list[FundingRate]:
        """Take settlements of the history; return those worth handing on: not stored yet, or with another rate.

        What is stored keeps the instant at which it became known.
        """
        fresh = []
        for settled in found:
            self._note_due(settled.symbol, settled.funding_time)
            stored = self._universe.is_settled(settled.symbol, settled.funding_time)
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

    def take_missed(self) -> list[tuple[str, datetime]]:
        """Return the settlements that happened unseen since the last call: (symbol, instant)."""
        missed, self._missed = self._missed, []
        return missed

    def take_settled(self) -> list[FundingRate]:
        """Return the settlements that were taken after a roll since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def live_funding(self, inst_id: str, row: Any) -> None:
        """Take a row of the funding stream."""
        symbol = symbol_of(inst_id)
        if symbol not in self._universe.symbols:
            self._note_stranger("collector:funding", inst_id, row)
            return
        try:
            events, missed = self._funding.hear(row, source="ws", receive_time=datetime.now(UTC))
        except SpellingError as error:
            self._set_aside("collector:funding", {"instId": inst_id, "row": row}, str(error))
            return
        for event in events:
            if isinstance(event, FundingRate):
                self._note_due(symbol, event.funding_time)
                self._settled.append(event)
            elif isinstance(event, PredictedFundingRate):
                self._note_interval(symbol, event.interval_hours)
            self._emit(event)
        if missed is not None:
            self._note_due(symbol, missed)
            self._missed.append((symbol, missed))

    def _note_stranger(self, origin: str, inst_id: str, row: Any) -> None:
        """Set the first row of an instrument aside that nobody asked for; the last ones of a leaver are nothing new."""
        if self._universe.is_stranger(symbol_of(inst_id)):
            self._set_aside(origin, {"instId": inst_id, "row": row}, f"nobody asked for the instrument {inst_id}")

    def _note_due(self, symbol: str, at: datetime) -> None:
        """Note that funding was settled, for the ledger."""
        wanted = self._universe.symbols.get(symbol)
        if wanted is not None and at >= wanted.begin:
            wanted.due.add(floor_minute(at))

    def _note_interval(self, symbol: str, hours: int | None) -> None:
        """Tell when the exchange settles an instrument's funding more or less often than before."""
        if hours is None:
            return
        before = self._interval_hours.setdefault(symbol, hours)
        if hours != before:
            self._interval_hours[symbol] = hours
            LIFE_CYCLE.labels("funding interval").inc()
            log.info("funding interval changed", symbol=symbol, before=before, now=hours)
