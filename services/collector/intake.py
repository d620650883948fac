"""Rows in, events out: one normalisation for live data and for history. No I/O: callbacks that only append."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from services.collector.funding import FundingTracker
from services.collector.metrics import CANDLES
from services.collector.wanted import Request, Universe
from shared.clock import ExchangeClock
from shared.events import AnyEvent, Candle, FundingRate
from shared.exchange import SpellingError, candle_of, inst_id_of, is_closed, open_time_of, symbol_of


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
        self.missed_settlements: set[str] = set()

    def live_candle(self, inst_id: str, row: Any) -> None:
        """Take a candle row of the stream, forming or closed."""
        wanted = self._universe.symbols.get(symbol_of(inst_id))
        if wanted is None:
            return  # the last pushes of a subscription that was just given up
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
            self._set_aside("collector:candles", row, str(error))
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
                self._set_aside("collector:history", row, str(error))
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

    def settlements_known(self, settlements: list[FundingRate]) -> None:
        """Note which settlements the history gave."""
        self._funding.learn(settlements)

    def live_funding(self, inst_id: str, row: Any) -> None:
        """Take a row of the funding stream."""
        try:
            events, missed = self._funding.hear(row, source="ws", receive_time=datetime.now(UTC))
        except SpellingError as error:
            self._set_aside("collector:funding", row, str(error))
            return
        for event in events:
            self._emit(event)
        if missed:
            self.missed_settlements.add(symbol_of(inst_id))
