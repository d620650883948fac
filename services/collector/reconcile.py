"""The collector's side of the ledger: what is stored, what was lost on the way, what to report. I/O.

The writer owns the ledger. Here it is read, compared with what was published and with what is wanted, and the
difference is acted upon, again and again; so no message between the two has to arrive for the books to be right.
"""

import asyncio
from dataclasses import dataclass
from datetime import date

import structlog

from services.collector.channels.settlements import Settlements
from services.collector.metrics import LOST
from services.collector.publisher import Publisher
from services.collector.tracking.universe import Tracker
from shared.datasets.candle import Candle
from shared.ledger.replica import LedgerCopy
from shared.runtime.service import Service
from shared.symbol import Symbol

log = structlog.get_logger()

EVERY_SECONDS = 5.0
_REPORT_EVERY = 3
"""Report what is new once in so many rounds: the writer needs a flush to take it in."""


@dataclass
class _Published:
    """What was published up to a moment, and when all of it was on the bus."""

    minutes: dict[Symbol, dict[date, int]]
    position: int
    on_bus_ms: int | None = None


class Bookkeeping:
    """Keeps the copy of the ledger fresh, and draws the conclusions."""

    def __init__(
        self,
        service: Service,
        universe: Tracker,
        ledger: LedgerCopy,
        publisher: Publisher,
        settlements: Settlements,
    ) -> None:
        self._service = service
        self._settlements = settlements
        self._universe = universe
        self._ledger = ledger
        self._publisher = publisher
        self._published: _Published | None = None
        self._round = 0

    async def run(self) -> None:
        """Keep the books for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            if not await self._service.until_bus_answers(self._service.bus.ledger_ready):
                self._published = None  # the writer is still looking at its disk
                continue
            await self._find_lost()
            self._universe.slide(self._service.clock.now())
            if adopted := self._universe.adopt(self._service.clock.now()):
                log.info("holes of symbols that are not followed, fetching", symbols=adopted)
            if reached := self._universe.reach_back(self._service.clock.now()):
                log.info("older holes of symbols that are followed, fetching", symbols=reached)
            for symbol in [*adopted, *reached]:  # whoever left candles behind may have left settlements, too
                if (since := self._ledger.first_wanted(symbol)) is not None:
                    self._settlements.ask_since(symbol, since)
            self._round += 1
            if self._round % _REPORT_EVERY == 0:
                await self._publisher.put(
                    self._universe.pending_verdicts(self._service.exchange.name, self._service.clock.now())
                )

    async def refresh(self) -> None:
        """Read what changed in the ledger; what is stored needs no fetching."""
        changed = await self._service.until_bus_answers(lambda: self._ledger.refresh(self._service.bus))
        self._universe.take_over(changed)

    async def _find_lost(self) -> None:
        """Take back what was published and did not become durable, once everything before it has been stored.

        First it must have left our buffer, then every entry up to that moment must be acknowledged; what the ledger
        lacks then is lost: Redis forgot it, or the disk.
        """
        published = self._published
        if published is None:
            await self.refresh()
            self._published = _Published(self._universe.published(), self._publisher.appended)
            return
        if self._publisher.left < published.position:
            return
        oldest_ms, now_ms = await self._service.until_bus_answers(
            lambda: self._service.bus.unfinished_since(Candle.stream, "writer")
        )
        if published.on_bus_ms is None:
            published.on_bus_ms = now_ms
        elif oldest_ms is None or oldest_ms > published.on_bus_ms:
            await self.refresh()
            if lost := self._universe.take_back_lost(published.minutes):
                LOST.inc(lost)
                log.warning("published but not durable, fetching again", minutes=lost)
            self._published = None
