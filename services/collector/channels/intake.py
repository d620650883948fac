"""Rows in, events out: one normalisation for live data and for history. No I/O: callbacks that only append."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import structlog

from services.collector.channels.funding_tracker import FundingTracker
from services.collector.metrics import CANDLES, FLAGGED, LIFE_CYCLE, SETTLEMENTS
from services.collector.tracking.wanted import Request, Universe
from shared.clock import ExchangeClock
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.registry import AnyEvent
from shared.exchanges.registry import SpellingError, candle_of, candle_row_of, inst_id_of, symbol_of
from shared.grid import DAY, MINUTE, floor_minute
from shared.ledger.minutes import Gap
from shared.symbol import Symbol

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
        self._missed: list[tuple[Symbol, datetime]] = []
        self._settled: list[FundingRate] = []
        self._interval_hours: dict[str, int] = {}
        self._flagged: dict[str, datetime] = {}

    def live_candle(self, inst_id: str, row: object) -> bool:
        """Take a candle row of the stream, forming or closed; return whether it made sense."""
        try:
            symbol, found = symbol_of(inst_id), candle_row_of(row)
            wanted = self._universe.symbols.get(symbol)
            if wanted is None:
                self._note_stranger("collector:candles", symbol, inst_id, row)
                return True
            if wanted.forming is None or found.open_time > wanted.forming:
                wanted.forming = min(found.open_time, self._clock.latest())
            if not found.closed or found.open_time in wanted.seen:
                return True
            candle = candle_of(
                inst_id, row, source="ws", receive_time=datetime.now(UTC), exchange_now=self._clock.latest()
            )
        except SpellingError as error:
            self._set_aside("collector:candles", {"instId": inst_id, "row": row}, str(error))
            return False
        wanted.seen.add(found.open_time)
        CANDLES.labels("ws").inc()
        self._emit(candle)
        return True

    def history(self, request: Request, rows: Iterable[object]) -> list[Candle]:
        """Return the closed candles of a page that are still missing. They count as seen once `published` is told.

        A minute of which the page has nothing but a closed row that cannot be true is noted.
        """
        wanted = self._universe.symbols.get(request.symbol)
        if wanted is None:
            return []
        inst_id, received, found = inst_id_of(request.symbol), datetime.now(UTC), dict[datetime, Candle]()
        refused: set[datetime] = set()
        for row in rows:
            try:
                read = candle_row_of(row)
                if not read.closed:
                    continue
                asked = request.gap.begin <= read.open_time < request.gap.end and read.open_time not in wanted.seen
                if asked:
                    refused.add(floor_minute(read.open_time))
                candle = candle_of(
                    inst_id, row, source="rest", receive_time=received, exchange_now=self._clock.latest()
                )
                if asked:
                    found[candle.open_time] = candle
            except SpellingError as error:
                self._set_aside("collector:history", {"instId": inst_id, "row": row}, str(error))
        holes = [Gap(minute, minute + MINUTE) for minute in sorted(refused - found.keys())]
        wanted.refusals.note(holes, self._clock.now(), time.monotonic())
        return list(found.values())

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
            if settled.flag is not None:
                self._note_flag(settled)
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

    def take_missed(self) -> list[tuple[Symbol, datetime]]:
        """Return the settlements that happened unseen since the last call: (symbol, instant)."""
        missed, self._missed = self._missed, []
        return missed

    def take_settled(self) -> list[FundingRate]:
        """Return the settlements that were taken after a roll since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def live_funding(self, inst_id: str, row: object) -> bool:
        """Take a row of the funding stream; return whether it made sense."""
        try:
            symbol = symbol_of(inst_id)
            if symbol not in self._universe.symbols:
                self._note_stranger("collector:funding", symbol, inst_id, row)
                return True
            if isinstance(row, dict) and row.get("instId", inst_id) != inst_id:
                self._set_aside("collector:funding", {"instId": inst_id, "row": row}, "a row of another instrument")
                return False
            events, missed = self._funding.hear(
                row, source="ws", receive_time=datetime.now(UTC), exchange_now=self._clock.latest()
            )
        except SpellingError as error:
            self._set_aside("collector:funding", {"instId": inst_id, "row": row}, str(error))
            return False
        for event in events:
            if event.flag is not None:
                self._note_flag(event)
            if isinstance(event, FundingRate):
                self._note_due(symbol, event.funding_time)
                self._settled.append(event)
            elif isinstance(event, PredictedFundingRate):
                self._note_interval(symbol, event.interval_hours)
            self._emit(event)
        if missed is not None:
            self._note_due(symbol, missed)
            self._missed.append((symbol, missed))
        return True

    def _note_flag(self, event: FundingRate | PredictedFundingRate) -> None:
        """Say that a rate is suspicious, once for each settlement; it is kept all the same."""
        if self._flagged.get(event.symbol) != event.funding_time:
            self._flagged[event.symbol] = event.funding_time
            FLAGGED.inc()
            log.warning("suspicious funding rate", symbol=event.symbol, rate=event.funding_rate, why=event.flag)

    def flagged(self, exchange_now: datetime) -> list[str]:
        """Return the symbols with a suspicious rate of a settlement of the last day, or of one to come."""
        return sorted(symbol for symbol, at in self._flagged.items() if at > exchange_now - DAY)

    def _note_stranger(self, origin: str, symbol: Symbol, inst_id: str, row: object) -> None:
        """Set the first row of an instrument aside that was not asked for; the last ones of a leaver are no news."""
        if self._universe.is_stranger(symbol):
            self._set_aside(origin, {"instId": inst_id, "row": row}, f"the instrument {inst_id} was not asked for")

    def _note_due(self, symbol: Symbol, at: datetime) -> None:
        """Note that funding was settled, for the ledger."""
        wanted = self._universe.symbols.get(symbol)
        if wanted is not None and at >= wanted.begin:
            wanted.due.add(floor_minute(at))

    def _note_interval(self, symbol: Symbol, hours: int | None) -> None:
        """Tell when the exchange settles an instrument's funding more or less often than before."""
        if hours is None:
            return
        before = self._interval_hours.setdefault(symbol, hours)
        if hours != before:
            self._interval_hours[symbol] = hours
            LIFE_CYCLE.labels("funding interval").inc()
            log.info("funding interval changed", symbol=symbol, before=before, now=hours)
