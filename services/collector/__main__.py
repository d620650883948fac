"""`python -m services.collector`: follows the universe, publishes closed candles and funding rates."""

import asyncio
import time
from datetime import date, datetime

import structlog
import uvloop
from aiolimiter import AsyncLimiter

from services.collector.backfill import Backfill
from services.collector.feeds import CHANNELS, CONNECTS_PER_SECOND, Endpoint
from services.collector.intake import Intake
from services.collector.live import LiveChannel
from services.collector.metrics import DATA_AGE, LOST
from services.collector.publisher import Publisher
from services.collector.settings import CollectorSettings
from services.collector.wanted import Universe, history_begin
from shared.bus import BusError, consumer_name
from shared.command import run
from shared.events import Ranking, UndecodableError
from shared.exchange import ExchangeError, inst_id_of, tls_context
from shared.grid import days_between
from shared.service import Service, running, wait_for_clock
from shared.settings import read_settings

log = structlog.get_logger()

_COVERAGE_PATIENCE_SECONDS = 60.0
"""How long to wait for the writer to tell what is on disk; without it everything counts as missing, which only costs
requests."""

_RETRY_SECONDS = 5.0
_DURABLE_WITHIN_SECONDS = 600.0
"""What was handed on this long ago and is not on disk was lost on the way."""


class Collector:
    """A running collector: the parts, and how they are wired."""

    def __init__(self, service: Service, settings: CollectorSettings) -> None:
        self.service = service
        self.settings = settings
        self.universe = Universe(settings.backfill_days)
        self.asides: asyncio.Queue[tuple[str, object, str]] = asyncio.Queue(maxsize=1000)
        self.publisher = Publisher(service, settings.buffer_events)
        self.intake = Intake(self.universe, service.clock, self.publisher.append, self.set_aside)
        self.publisher.forget = self.intake.forget
        self.backfill = Backfill(service, self.universe, self.intake, self.publisher)
        self.funding_wanted: set[str] = set()
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
                wanted=lambda: [inst_id_of(symbol) for symbol in self.universe.members()],
                on_row=rows[name],
                on_bad=self.set_aside,
                args_per_connection=settings.args_per_connection,
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
        await self._wait_for_coverage()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work)
                for work in (
                    self._follow_universe(),
                    *(stream.run() for stream in self.streams),
                    self.backfill.run(),
                    self._fetch_settlements(),
                    self._look_after_members(),
                    self._take_back_lost(),
                    self._post_dead_letters(),
                    self.publisher.run(),
                )
            ]
            await self.service.stop.wait()
            for task in tasks:
                task.cancel()
        await self.publisher.flush()

    async def _wait_for_coverage(self) -> None:
        deadline = time.monotonic() + _COVERAGE_PATIENCE_SECONDS
        while time.monotonic() < deadline and not self.service.stop.is_set():
            if await self.service.until_bus_answers(self.service.bus.coverage_ready):
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
            await bus.acknowledge("collector", entries)

    async def _apply(self, ranking: Ranking) -> None:
        now = self.service.clock.now()
        stored = await self._stored(now)
        joined = self.universe.apply(ranking, now, await self._listed(), stored)
        self.funding_wanted |= set(joined)
        self.service.health.started = True
        self.service.health.details["members"] = len(ranking.members)
        log.info("universe", ranked=ranking.ranked_time.isoformat(), members=len(ranking.members), joined=joined)
        for stream in self.streams:
            stream.reconcile()

    async def _stored(self, now: datetime) -> dict[date, dict[str, str]]:
        days = days_between(history_begin(now, self.settings.backfill_days), now)
        return await self.service.until_bus_answers(lambda: self.service.bus.coverage(days))

    async def _listed(self) -> dict[str, datetime | None]:
        """Return when each swap was listed: before that there is nothing to ask for."""
        try:
            return {symbol: swap.list_time for symbol, swap in (await self.service.exchange.instruments()).items()}
        except ExchangeError as error:
            log.warning("listing times unknown, asking for all of the history", error=str(error))
            return {}

    async def _fetch_settlements(self) -> None:
        """Fetch the funding history of new symbols, and of those that missed a settlement."""
        while True:
            await asyncio.sleep(0.2)
            self.funding_wanted |= self.intake.missed_settlements
            self.intake.missed_settlements.clear()
            for symbol in sorted(self.funding_wanted & set(self.universe.symbols)):
                wanted = self.universe.symbols.get(symbol)
                if wanted is None or await self.backfill.settlements(symbol, wanted.begin):
                    self.funding_wanted.discard(symbol)
                else:
                    await asyncio.sleep(_RETRY_SECONDS)
            self.funding_wanted &= set(self.universe.symbols)

    async def _take_back_lost(self) -> None:
        """Find out what was handed on and never became durable, and have it fetched again."""
        while True:
            await asyncio.sleep(_DURABLE_WITHIN_SECONDS)
            if not await self.service.until_bus_answers(self.service.bus.coverage_ready):
                continue  # the writer is still telling what is on disk
            stored = await self._stored(self.service.clock.now())
            if lost := self.universe.take_back_lost(stored):
                LOST.inc(lost)
                log.warning("handed on but not durable, fetching again", minutes=lost)

    async def _look_after_members(self) -> None:
        """Let go of those that left once their last minute is there; tell how the streams are."""
        while True:
            await asyncio.sleep(1.0)
            if self.universe.drop_done(self.service.clock.now()):
                for stream in self.streams:
                    stream.reconcile()
            for stream in self.streams:
                self._tell_stream(stream)

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
