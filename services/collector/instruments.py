"""Watch what becomes of the instruments, and whether the exchange stands still. I/O."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from services.collector.metrics import DISBELIEVED, LIFE_CYCLE
from services.collector.publisher import Publisher
from services.collector.tracking.definitions import Definitions
from services.collector.tracking.lifecycle import Instruments
from services.collector.tracking.universe import Tracker
from shared.exchanges.base import ExchangeError, Listing
from shared.runtime.service import Service
from shared.symbol import Symbol

log = structlog.get_logger()

_EVERY_SECONDS = 60.0
"""How often the list is read; an exchange may push less than all of it."""
_DOUBTFUL_SECONDS = 15.0
"""The same while names are missing from the list."""
_CONFIRM_SECONDS = 5.0
"""The same where something was said of an instrument for the first time."""


class InstrumentWatch:
    """Reads the list of instruments again and again, and draws the conclusions."""

    def __init__(self, service: Service, publisher: Publisher, reconcile: Callable[[], None]) -> None:
        self._service = service
        self.trackers: Sequence[Tracker] = ()
        """Of every channel; whoever opens the channels sets them."""
        self._publisher = publisher
        self._reconcile = reconcile
        self.instruments = Instruments()
        self.definitions = Definitions()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            await self.list_instruments(note=True)
            self.end_what_is_gone()
            await self._publish_definitions()
            await self._read_maintenance()
            doubtful = self.instruments.missing or "instruments" in self._service.health.problems
            usual = _DOUBTFUL_SECONDS if doubtful else _EVERY_SECONDS
            await asyncio.sleep(_CONFIRM_SECONDS if self.definitions.doubtful else usual)

    async def _read_maintenance(self) -> None:
        try:
            page = await self._service.exchange.maintenance()
        except ExchangeError as error:
            log.info("maintenance unknown", error=str(error))
            return
        for refused in page.refused:
            self._service.set_aside("maintenance", refused.row, refused.reason)
        under_way = self.instruments.stood_still(page.events, self._service.clock.now())
        self._service.health.details["maintenance"] = [window.title for window in under_way]

    async def list_instruments(self, *, note: bool = False) -> None:
        """Take the list of instruments over; one that lacks what must be there is not believed, and reported.

        `note` what it says for the store: lists in a row confirm each other, so they must be some seconds apart.
        """
        service = self._service
        try:
            listing = await service.exchange.instruments()
        except ExchangeError as error:
            log.warning("instruments unknown, going on with those known", error=str(error))
            return
        for refused in listing.refused:
            service.set_aside("instruments", refused.row, refused.reason)
        followed = {symbol for tracker in self.trackers for symbol in tracker.symbols}
        now, stored = service.clock.now(), self.definitions.listed()
        changes = self.instruments.update(listing, now, time.monotonic(), followed, stored)
        if changes is None:
            DISBELIEVED.inc()
            service.health.problem(
                "instruments",
                f"the exchange's list of instruments holds {len(listing.names):,} swaps and lacks most of those known: "
                "not believed, asking again",
            )
            return
        service.health.resolve("instruments")
        if note:
            self._note_definitions(listing, now)
        for change in changes:
            LIFE_CYCLE.labels(change.what).inc()
            log.info("instrument", symbol=change.symbol, change=change.what, before=change.before, now=change.now)

    def _note_definitions(self, listing: Listing, now: datetime) -> None:
        """Note what the list says, as known now; not while it is in doubt when that is."""
        if not self._service.clock.disputed:
            received, exchange = datetime.now(UTC), self._service.exchange
            listed = (exchange.definition(one, now, received) for one in listing.instruments.values())
            self.definitions.note(listed, self.instruments.gone, now)

    async def _publish_definitions(self) -> None:
        """Publish what the store lacks of the definitions of all instruments of this exchange."""
        stored = await self._service.until_bus_answers(self._service.bus.definitions)
        if stored is not None:
            name = self._service.exchange.name
            stored = {symbol: one for symbol, one in stored.items() if one.exchange == name}
        self.definitions.note_stored(stored)
        await self._publisher.put(self.definitions.due(time.monotonic()))

    def end_what_is_gone(self) -> None:
        """Want nothing of an instrument beyond its end, and follow one again that is back."""
        gone, now = self.instruments.gone, self._service.clock.now()
        back: set[Symbol] = set()
        for tracker in self.trackers:
            for symbol in sorted(tracker.symbols):
                if (at := gone.get(symbol)) is not None:
                    tracker.end(symbol, at, now)
            back.update(tracker.revive(now, self.instruments.listing_times(), gone))
        if back:
            log.info("back on the exchange", symbols=sorted(back))
            self._reconcile()
