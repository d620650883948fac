"""`python -m services.collector`: follows the universe of an exchange, publishes closed candles and funding rates."""

import asyncio

import structlog
import uvloop

from services.collector.channels.channel import OpenedChannel, Surroundings, open_channel
from services.collector.follow import Follow
from services.collector.instruments import InstrumentWatch
from services.collector.metrics import DATA_AGE, FOLLOWED
from services.collector.publisher import Publisher
from services.collector.reconcile import Bookkeeping
from services.collector.settings import CollectorSettings
from services.collector.stream.connection import OpenStreams
from services.collector.stream.subscriptions import LiveChannel
from services.collector.tracking.universe import Reach
from shared.datasets.registry import AnyEvent
from shared.exchanges.registry import instance_of, part_of
from shared.ledger.replica import LedgerCopy
from shared.runtime.command import run
from shared.runtime.service import Service, running, wait_for_clock
from shared.runtime.settings import read_settings

log = structlog.get_logger()


class Collector:
    """A running collector: the parts, and how they are wired."""

    def __init__(self, service: Service, settings: CollectorSettings) -> None:
        self.service = service
        self.ledger = LedgerCopy(exchange=service.exchange.name)
        self.publisher = Publisher(service, settings.buffer_events)
        self.watch = InstrumentWatch(service, self.publisher, self._reconcile_streams)
        reach = Reach(settings.backfill_days, settings.retention_days, settings.leaver_grace, settings.fill_absence)
        around = Surroundings(service, self.publisher, self.watch.instruments, self.ledger, reach)
        self.channels = [open_channel(name, around) for name in settings.opened]
        self.publisher.forget = self._forget
        self.watch.trackers = trackers = [channel.tracker for channel in self.channels]
        self.follow = Follow(service, trackers, self.watch, self.publisher, self._reconcile_streams)
        self.bookkeeping = Bookkeeping(service, self.channels, self.ledger, self.publisher)
        self.streams = self._open_streams(settings)

    def _open_streams(self, settings: CollectorSettings) -> list[LiveChannel]:
        """Open the streams that the exchange has; a channel without one is healed over REST alone."""
        open_streams: OpenStreams = part_of(settings.exchange, "stream")
        streams = open_streams(settings.okx_ws_url, ca_file=settings.okx_ca_file, now=self.service.clock.latest)

        def live(channel: OpenedChannel) -> LiveChannel:
            return LiveChannel(
                stream=streams[channel.channel.name],
                wanted=lambda: channel.tracker.followed(self.service.clock.now()),
                on_row=channel.take,
                on_unreadable=self.service.set_aside,
                symbols_per_connection=settings.args_per_connection,
                is_expected_silent=self.watch.instruments.is_expected_silent,
            )

        return [live(channel) for channel in self.channels if channel.channel.name in streams]

    def _forget(self, event: AnyEvent) -> None:
        for channel in self.channels:
            channel.forget(event)

    def _reconcile_streams(self) -> None:
        for stream in self.streams:
            stream.reconcile()

    async def run(self) -> None:
        """Work until the service is stopped; what is buffered then is published before the end."""
        await wait_for_clock(self.service)
        await self._wait_for_ledger()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work)
                for work in (
                    self.follow.run(),
                    *(stream.run() for stream in self.streams),
                    *(channel.run() for channel in self.channels),
                    self.bookkeeping.run(),
                    self.watch.run(),
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
            for channel in self.channels:
                pending = channel.tracker.pending_verdicts(self.service.exchange.name, self.service.clock.now())
                for verdict in pending:
                    self.publisher.append(verdict)
            await self.publisher.flush()
        except asyncio.CancelledError:
            log.warning("Redis is not there: left in the buffer, fetched again next time", events=len(self.publisher))

    async def _wait_for_ledger(self) -> None:
        """Wait until the writer has said what is on disk.

        Without it all of history would be fetched again, and stored as if it had become known now.
        """
        details = self.service.health.details
        while not self.service.stop.is_set():
            ready = await self.service.until_bus_answers(self.service.bus.ledger_ready)
            if ready and await self.bookkeeping.refresh():
                break
            details["waiting"] = "for the writer to say what is on disk"
            await self.service.pause(0.2)
        details.pop("waiting", None)

    async def _look_after_followed(self) -> None:
        """Let go of those that left once their last minute is there; report how the streams are."""
        while True:
            await asyncio.sleep(1.0)
            self.watch.end_what_is_gone()
            now = self.service.clock.now()
            if gone := {symbol for channel in self.channels for symbol in channel.tracker.drop_done(now)}:
                log.info("let go", symbols=sorted(gone))
                self._reconcile_streams()
            self._report_followed()
            for stream in self.streams:
                self._report_stream(stream)

    def _report_followed(self) -> None:
        now, details = self.service.clock.now(), self.service.health.details
        symbols = {symbol: one for channel in self.channels for symbol, one in channel.tracker.symbols.items()}
        leavers = sorted({symbol for channel in self.channels for symbol in channel.tracker.leavers})
        FOLLOWED.labels("member").set(len(symbols) - len(leavers))
        FOLLOWED.labels("leaver").set(len(leavers))
        details["leavers"] = leavers
        details["warming_up"] = sorted(
            {
                symbol
                for channel in self.channels
                for symbol, wanted in channel.tracker.symbols.items()
                if not wanted.is_warm(now)
            }
        )
        details["instruments"] = self.watch.instruments.of_note(symbols)
        for channel in self.channels:
            details.update(channel.report())

    def _report_stream(self, stream: LiveChannel) -> None:
        name = stream.stream.name
        DATA_AGE.labels(name).set(stream.data_age() or 0.0)
        self.service.health.details[name] = stream.details()
        if problem := stream.problem():
            self.service.health.problem(name, problem)
        else:
            self.service.health.resolve(name)


async def serve(settings: CollectorSettings) -> None:
    """Run the collector until it is stopped."""
    name = instance_of("collector", settings.exchange)
    async with running(name, settings, metrics_port=settings.collector_metrics_port) as service:
        await Collector(service, settings).run()


def main() -> None:
    """Follow the universe over the exchange's WebSocket, heal what is missing over REST, publish candles and funding.

    Settings come from the environment and `.env`; see .env.example.
    """
    uvloop.run(serve(read_settings(CollectorSettings)))


if __name__ == "__main__":
    run(main)
