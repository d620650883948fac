"""`python -m services.collector`: follows the universe, publishes closed candles and funding rates."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
import uvloop
from aiolimiter import AsyncLimiter

from services.collector.channels.backfill import Backfill
from services.collector.channels.intake import Intake
from services.collector.channels.settlements import Settlements
from services.collector.metrics import DATA_AGE, DISBELIEVED, FOLLOWED, LIFE_CYCLE
from services.collector.publisher import Publisher
from services.collector.reconcile import Bookkeeping
from services.collector.settings import CollectorSettings
from services.collector.stream.okx import CHANNELS, CONNECTS_PER_SECOND, Endpoint
from services.collector.stream.subscriptions import LiveChannel
from services.collector.tracking.definitions import Definitions
from services.collector.tracking.lifecycle import Instruments
from services.collector.tracking.wanted import Reach, Universe
from shared.bus.streams import consumer_name
from shared.datasets.registry import UndecodableError
from shared.datasets.universe import Ranking
from shared.exchanges.registry import (
    EXCHANGE,
    ExchangeError,
    Listing,
    definition_of,
    inst_id_of,
    symbol_of,
    tls_context,
)
from shared.ledger.replica import LedgerCopy
from shared.runtime.command import run
from shared.runtime.service import Service, running, wait_for_clock
from shared.runtime.settings import read_settings
from shared.symbol import Symbol

log = structlog.get_logger()

_LEDGER_PATIENCE_SECONDS = 60.0
"""How long to wait for the writer to tell what is on disk; without it everything counts as missing, which only costs
requests."""

_INSTRUMENTS_SECONDS = 60.0
"""How often to look what became of the instruments; OKX recommends to read the list again beside its pushes."""
_DOUBTFUL_SECONDS = 15.0
"""The same while names are missing from the list."""
_CONFIRM_SECONDS = 5.0
"""The same where something was said of an instrument for the first time."""
_NO_LEAVERS: Mapping[str, datetime] = {}


class Collector:
    """A running collector: the parts, and how they are wired."""

    def __init__(self, service: Service, settings: CollectorSettings) -> None:
        self.service = service
        self.settings = settings
        self.ledger = LedgerCopy()
        self.universe = Universe(
            Reach(settings.backfill_days, settings.retention_days, settings.leaver_grace, settings.fill_absence),
            self.ledger,
        )
        self.instruments = Instruments()
        self.definitions = Definitions()
        self.publisher = Publisher(service, settings.buffer_events)
        self.intake = Intake(self.universe, service.clock, self.publisher.append, service.set_aside)
        self.publisher.forget = self.intake.forget
        self.backfill = Backfill(service, self.universe, self.instruments, self.intake, self.publisher)
        self.settlements = Settlements(service, self.universe, self.intake, self.publisher)
        self.bookkeeping = Bookkeeping(service, self.universe, self.ledger, self.publisher, self.settlements)
        endpoint = Endpoint(
            settings.okx_ws_url,
            tls=lambda: tls_context(settings.okx_ca_file),
            connects=AsyncLimiter(1, 1 / CONNECTS_PER_SECOND),
        )
        rows = {"candles": self.intake.live_candle, "funding": self.intake.live_funding}
        self.streams = [
            LiveChannel(
                channel=channel,
                endpoint=endpoint,
                wanted=lambda: [inst_id_of(symbol) for symbol in self.universe.followed(service.clock.now())],
                on_row=rows[name],
                on_bad=service.set_aside,
                args_per_connection=settings.args_per_connection,
                is_expected_silent=lambda inst_id: self.instruments.is_expected_silent(symbol_of(inst_id)),
            )
            for name, channel in CHANNELS.items()
        ]

    async def run(self) -> None:
        """Work until the service is stopped; what is buffered then is published before the end."""
        await wait_for_clock(self.service)
        await self._wait_for_ledger()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work)
                for work in (
                    self._follow_universe(),
                    *(stream.run() for stream in self.streams),
                    self.backfill.run(),
                    self.settlements.run(),
                    self.bookkeeping.run(),
                    self._watch_instruments(),
                    self._look_after_followed(),
                    self.publisher.run(),
                )
            ]
            await self.service.stop.wait()
            for task in tasks:
                task.cancel()
        await self._publish_the_rest()

    async def _publish_the_rest(self) -> None:
        """Publish what is buffered; where Redis does not take it in, it is fetched again after the next start."""
        try:
            await self.publisher.flush()
            # What is stored and was never wanted would say nothing of the minutes until the next start.
            for verdict in self.universe.untold(EXCHANGE, self.service.clock.now()):
                self.publisher.append(verdict)
            await self.publisher.flush()
        except asyncio.CancelledError:
            log.warning("Redis is not there: left in the buffer, fetched again next time", events=len(self.publisher))

    async def _wait_for_ledger(self) -> None:
        deadline = time.monotonic() + _LEDGER_PATIENCE_SECONDS
        while time.monotonic() < deadline and not self.service.stop.is_set():
            if await self.service.until_bus_answers(self.service.bus.ledger_ready):
                await self.bookkeeping.refresh()
                return
            await self.service.pause(0.2)
        log.warning("the writer has not told what is on disk: all history counts as missing")

    async def _follow_universe(self) -> None:
        """Take the current universe over, then every ranking as it comes."""
        current = await self.service.until_bus_answers(self.service.bus.universe)
        if current is not None:
            left = await self.service.until_bus_answers(self.service.bus.left)
            await self._apply(current, left)
        while True:
            await self.service.until_bus_answers(self._follow_stream)

    async def _follow_stream(self) -> None:
        bus, me = self.service.bus, consumer_name("collector")
        async for entries in bus.consume([Ranking.stream], "collector", consumer=me, count=10, block_ms=1000):
            self.service.health.solved("redis")
            for entry in entries:
                try:
                    event = entry.event() if entry.fields else None
                except UndecodableError as error:
                    self.service.set_aside(f"collector:{entry.stream}:{entry.id}", entry.fields, str(error))
                    event = None
                if isinstance(event, Ranking):
                    await self._apply(event)
            if entries:
                await self._tell_wanted()
                await bus.acknowledge("collector", entries)

    async def _tell_wanted(self) -> None:
        """Tell the ledger what is wanted now, and see it go: a ranking that is acknowledged is not read again.

        Else a symbol would be forgotten that the next ranking drops while the collector is down.
        """
        await self.publisher.put(self.universe.untold(EXCHANGE, self.service.clock.now()))
        await self.publisher.until_left(self.publisher.appended)

    async def _apply(self, ranking: Ranking, left: Mapping[str, datetime] | None = _NO_LEAVERS) -> None:
        """Take a ranking over. left: who had left before a restart, and when; None where that was forgotten."""
        await self._list_instruments()
        now, listed = self.service.clock.now(), self.instruments.listing_times()
        joined = self.universe.apply(ranking, now, listed)
        known = (
            self.universe.left_by_ledger(now, listed)
            if left is None
            else {Symbol(symbol): at for symbol, at in left.items()}
        )
        if followed_on := self.universe.follow_left(known, now, listed):
            log.info("following on", symbols=followed_on)
        await self.service.until_bus_answers(lambda: self.service.bus.set_left(self.universe.left()))
        self._end_what_is_gone()
        self.service.health.started = True
        self.service.health.details["members"] = len(ranking.members)
        log.info("universe", ranked=ranking.ranked_time.isoformat(), members=len(ranking.members), joined=joined)
        for stream in self.streams:
            stream.reconcile()

    async def _watch_instruments(self) -> None:
        """Look again and again what became of the instruments, and whether the exchange stands still."""
        while True:
            await self._list_instruments(note=True)
            self._end_what_is_gone()
            await self._publish_definitions()
            await self._look_for_maintenance()
            doubtful = self.instruments.missing or "instruments" in self.service.health.problems
            usual = _DOUBTFUL_SECONDS if doubtful else _INSTRUMENTS_SECONDS
            await asyncio.sleep(_CONFIRM_SECONDS if self.definitions.doubtful else usual)

    async def _look_for_maintenance(self) -> None:
        try:
            windows, refused = await self.service.exchange.maintenance()
        except ExchangeError as error:
            log.info("maintenance unknown", error=str(error))
            return
        for row, reason in refused:
            self.service.set_aside("collector:maintenance", row, reason)
        under_way = self.instruments.stood_still(windows, self.service.clock.now())
        self.service.health.details["maintenance"] = [window.title for window in under_way]

    async def _list_instruments(self, *, note: bool = False) -> None:
        """Take the list of instruments over; one that lacks what must be there is not believed, and said.

        `note` what it says for the store: looks in a row confirm each other, so they must be some seconds apart.
        """
        service = self.service
        try:
            listing = await service.exchange.instruments()
        except ExchangeError as error:
            log.warning("instruments unknown, going on with those known", error=str(error))
            return
        for row, reason in listing.refused:
            service.set_aside("collector:instruments", row, reason)
        followed = self.universe.symbols.keys()
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
        service.health.solved("instruments")
        if note:
            self._note_definitions(listing, now)
        for change in changes:
            LIFE_CYCLE.labels(change.what).inc()
            log.info("instrument", symbol=change.symbol, change=change.what, before=change.before, now=change.now)

    def _note_definitions(self, listing: Listing, now: datetime) -> None:
        """Note what the list says, as known now; not while it is in doubt when that is."""
        if not self.service.clock.disputed:
            received = datetime.now(UTC)
            listed = (definition_of(one, now, received) for one in listing.instruments.values())
            self.definitions.note(listed, self.instruments.gone, now)

    async def _publish_definitions(self) -> None:
        """Publish what the store lacks of the definitions of all instruments."""
        self.definitions.note_stored(await self.service.until_bus_answers(self.service.bus.definitions))
        await self.publisher.put(self.definitions.due(time.monotonic()))

    def _end_what_is_gone(self) -> None:
        """Want nothing of an instrument beyond its end, and follow one again that is back."""
        gone = self.instruments.gone
        for symbol in sorted(self.universe.symbols):
            if (at := gone.get(symbol)) is not None:
                self.universe.end(symbol, at, self.service.clock.now())
        if back := self.universe.revive(self.service.clock.now(), self.instruments.listing_times(), gone):
            log.info("back on the exchange", symbols=back)
            for stream in self.streams:
                stream.reconcile()

    async def _look_after_followed(self) -> None:
        """Let go of those that left once their last minute is there; tell how the streams are."""
        while True:
            await asyncio.sleep(1.0)
            self._end_what_is_gone()
            if gone := self.universe.drop_done(self.service.clock.now()):
                log.info("let go", symbols=gone)
                for stream in self.streams:
                    stream.reconcile()
            self._tell_followed()
            for stream in self.streams:
                self._tell_stream(stream)

    def _tell_followed(self) -> None:
        now, details = self.service.clock.now(), self.service.health.details
        leavers = self.universe.leavers
        FOLLOWED.labels("member").set(len(self.universe.symbols) - len(leavers))
        FOLLOWED.labels("leaver").set(len(leavers))
        details["leavers"] = leavers
        details["warming_up"] = [name for name, wanted in self.universe.symbols.items() if not wanted.is_warm(now)]
        details["instruments"] = self.instruments.of_note(self.universe.symbols)
        details["flagged_rates"] = self.intake.flagged(now)

    def _tell_stream(self, stream: LiveChannel) -> None:
        name = stream.channel.name
        DATA_AGE.labels(name).set(stream.data_age() or 0.0)
        self.service.health.details[name] = stream.details()
        if problem := stream.problem():
            self.service.health.problem(name, problem)
        else:
            self.service.health.solved(name)


async def serve(settings: CollectorSettings) -> None:
    """Run the collector until it is stopped."""
    async with running("collector", settings, metrics_port=settings.collector_metrics_port) as service:
        await Collector(service, settings).run()


def main() -> None:
    """Follow the universe over OKX's WebSocket, heal what is missing over REST, publish closed candles and funding.

    Settings come from the environment and `.env`; see .env.example.
    """
    uvloop.run(serve(read_settings(CollectorSettings)))


if __name__ == "__main__":
    run(main)
