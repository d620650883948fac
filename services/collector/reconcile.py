"""The collector's side of the ledger: what is stored, what was lost on the way, what to report. I/O.

The writer owns the ledger. Here it is read, compared with what was published and with what is wanted, and the
difference is acted upon, again and again; so no message between the two has to arrive for the books to be right.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import structlog

from services.collector.channels.channel import OpenedChannel
from services.collector.metrics import LOST
from services.collector.publisher import Publisher
from shared.ledger.replica import LedgerCopy
from shared.runtime.service import Service
from shared.symbol import Symbol

log = structlog.get_logger()

EVERY_SECONDS = 5.0
_REPORT_EVERY = 3
"""Report what is new once in so many rounds: the writer needs a flush to take it in."""


@dataclass
class _Published:
    """What was published up to a moment, of each channel, and when all of it was on the bus."""

    minutes: list[dict[Symbol, dict[date, int]]]
    position: int
    on_bus_ms: int | None = None


class Bookkeeping:
    """Keeps the copy of the ledger fresh, and draws the conclusions."""

    def __init__(
        self, service: Service, channels: Sequence[OpenedChannel], ledger: LedgerCopy, publisher: Publisher
    ) -> None:
        self._service = service
        self._channels = channels
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
            for channel in self._channels:
                self._want_what_lacks(channel)
            self._round += 1
            if self._round % _REPORT_EVERY == 0:
                for channel in self._channels:
                    await self._publisher.put(
                        channel.tracker.pending_verdicts(self._service.exchange.name, self._service.clock.now())
                    )

    def _want_what_lacks(self, channel: OpenedChannel) -> None:
        """Let the window of a channel move on, and take up what the ledger lacks."""
        tracker, now = channel.tracker, self._service.clock.now()
        tracker.slide(now)
        if adopted := tracker.adopt(now):
            log.info("holes of symbols that are not followed, fetching", channel=channel.channel.name, symbols=adopted)
        if reached := tracker.reach_back(now):
            log.info("older holes of followed symbols, fetching", channel=channel.channel.name, symbols=reached)
        for symbol in [*adopted, *reached]:
            if (since := tracker.first_wanted(symbol)) is not None:
                for other in self._channels:
                    if other is not channel:
                        other.ask_since(symbol, since)

    async def refresh(self) -> bool:
        """Read what changed in the ledger; what is stored needs no fetching. Return whether it could be read."""
        try:
            changed = await self._service.until_bus_answers(lambda: self._ledger.refresh(self._service.bus))
        except ValueError as error:
            log.warning("the writer has to publish its ledger again", error=str(error))
            await self._service.until_bus_answers(lambda: self._service.bus.set_ledger_ready(ready=False))
            return False
        for channel in self._channels:
            channel.tracker.take_over(changed)
        return True

    async def _find_lost(self) -> None:
        """Take back what was published and did not become durable, once everything before it has been stored.

        First it must have left our buffer, then every entry up to that moment must be acknowledged; what the ledger
        lacks then is lost: Redis forgot it, or the disk.
        """
        published = self._published
        if published is None:
            await self.refresh()
            minutes = [channel.tracker.published() for channel in self._channels]
            self._published = _Published(minutes, self._publisher.appended)
            return
        if self._publisher.left < published.position:
            return
        oldest_ms, now_ms = await self._unfinished_since()
        if published.on_bus_ms is None:
            published.on_bus_ms = now_ms
        elif oldest_ms is None or oldest_ms > published.on_bus_ms:
            self._published = None
            if not await self.refresh():
                return
            for channel, of_channel in zip(self._channels, published.minutes, strict=True):
                if lost := channel.tracker.take_back_lost(of_channel):
                    LOST.labels(channel.channel.name).inc(lost)
                    log.warning("published but not durable, fetching again", channel=channel.channel.name, minutes=lost)

    async def _unfinished_since(self) -> tuple[int | None, int]:
        """Return when the oldest entry of our channels was appended that is not stored yet, and now; Unix ms."""
        found: list[int] = []
        now_ms = 0
        for channel in self._channels:
            name = channel.channel.name
            oldest_ms, now_ms = await self._service.until_bus_answers(
                partial(self._service.bus.unfinished_since, name, "writer")
            )
            found += [] if oldest_ms is None else [oldest_ms]
        return min(found, default=None), now_ms
