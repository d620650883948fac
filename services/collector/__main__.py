"""`python -m services.collector`: follows the universe, publishes closed candles and funding rates."""

import asyncio
import time

import structlog
import uvloop
from aiolimiter import AsyncLimiter

from services.collector.backfill import Backfill
from services.collector.bookkeeping import Bookkeeping
from services.collector.feeds import CHANNELS, CONNECTS_PER_SECOND, Endpoint
from services.collector.instruments import Instruments
from services.collector.intake import Intake
from services.collector.live import LiveChannel
from services.collector.metrics import DATA_AGE, FOLLOWED, LIFE_CYCLE
from services.collector.publisher import Publisher
from services.collector.settings import CollectorSettings
from services.collector.settlements import Settlements
from services.collector.wanted import Reach, Universe
from shared.bus import BusError, consumer_name
from shared.command import run
from shared.events import Ranking, UndecodableError
from shared.exchange import EXCHANGE, ExchangeError, SpellingError, inst_id_of, symbol_of, tls_context
from shared.ledger_copy import LedgerCopy
from shared.service import Service, running, wait_for_clock
from shared.settings import read_settings

log = structlog.get_logger()

_LEDGER_PATIENCE_SECONDS = 60.0
"""How long to wait for the writer to tell what is on disk; without it everything counts as missing, which only costs
requests."""

_INSTRUMENTS_SECONDS = 60.0
"""How often to look what became of the instruments; OKX recommends to read the list again beside its pushes."""


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
        self.asides: asyncio.Queue[tuple[str, object, str]] = asyncio.Queue(maxsize=1000)
        self.publisher = Publisher(service, settings.buffer_events)
        self.intake = Intake(self.universe, service.clock, self.publisher.append, self.set_aside)
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
                on_bad=self.set_aside,
                args_per_connection=settings.args_per_connection,
                is_expected_silent=lambda inst_id: self.instruments.is_expected_silent(symbol_of(inst_id)),
            )
            for name, channel in CHANNELS.items()
        ]

    def set_aside(self, origin: str, payload: object, error: str) -> None:
        """Queue bad input for the dead letters; when even that queue is full, the log has it."""
        log.warning("set aside", origin=origin, error=error)
        try:
            self.asides.put_nowait((origin, payload, error))
        except asyncio.QueueFull:
            log.error("dead letter lost, too many at once", origin=origin, payload=repr(payload)[:500])  # noqa: TRY400

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
                    self._post_dead_letters(),
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
            await self._apply(current)
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
                    self.set_aside(f"collector:{entry.stream}:{entry.id}", entry.fields, str(error))
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

    async def _apply(self, ranking: Ranking) -> None:
        await self._list_instruments()
        now = self.service.clock.now()
        joined = self.universe.apply(ranking, now, self.instruments.listing_times())
        self._end_what_is_gone()
        self.service.health.started = True
        self.service.health.details["members"] = len(ranking.members)
        log.info("universe", ranked=ranking.ranked_time.isoformat(), members=len(ranking.members), joined=joined)
        for stream in self.streams:
            stream.reconcile()

    async def _watch_instruments(self) -> None:
        """Look again and again what became of the instruments, and whether the exchange stands still."""
        while True:
            await self._list_instruments()
            self._end_what_is_gone()
            try:
                now = self.service.clock.now()
                under_way = self.instruments.stood_still(await self.service.exchange.maintenance(), now)
            except (ExchangeError, SpellingError) as error:
                log.info("maintenance unknown", error=str(error))
            else:
                self.service.health.details["maintenance"] = [window.title for window in under_way]
            await asyncio.sleep(_INSTRUMENTS_SECONDS)

    async def _list_instruments(self) -> None:
        try:
            listed = await self.service.exchange.instruments()
        except (ExchangeError, SpellingError) as error:
            log.warning("instruments unknown, going on with those known", error=str(error))
            return
        for change in self.instruments.update(listed, self.service.clock.now()):
            LIFE_CYCLE.labels(change.what).inc()
            log.info("instrument", symbol=change.symbol, change=change.what, before=change.before, now=change.now)

    def _end_what_is_gone(self) -> None:
        """Want nothing of an instrument beyond its end."""
        for symbol in sorted(self.universe.symbols):
            if (at := self.instruments.gone.get(symbol)) is not None:
                self.universe.end(symbol, at)

    async def _look_after_followed(self) -> None:
        """Let go of those that left once their last minute is there; tell how the streams are."""
        while True:
            await asyncio.sleep(1.0)
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

    def _tell_stream(self, stream: LiveChannel) -> None:
        name = stream.channel.name
        DATA_AGE.labels(name).set(stream.data_age() or 0.0)
        self.service.health.details[name] = stream.details()
        if problem := stream.problem():
            self.service.health.problem(name, problem)
        else:
            self.service.health.solved(name)

    async def _post_dead_letters(self) -> None:
        while True:
            origin, payload, error = await self.asides.get()
            try:
                await self.service.bus.dead_letter(origin, payload, error)
            except BusError as failure:
                log.error("dead letter not kept", origin=origin, payload=repr(payload)[:500], error=str(failure))  # noqa: TRY400


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
