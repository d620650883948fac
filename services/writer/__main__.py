"""`python -m services.writer`: reads the bus, makes rows durable, then acknowledges."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import structlog

from services.writer.batch import Batch, is_retired, should_flush
from services.writer.metrics import FILES, FLUSH_SECONDS, RETIRED, ROWS, WAITING, WRITTEN_UNTIL
from services.writer.settings import WriterSettings
from services.writer.store import Stored, retire, scan_day, write_batch
from services.writer.watermark import written_until
from shared.bus import GROUPS, Entry, consumer_name
from shared.command import run
from shared.dataset import days
from shared.durable import remove_stale_temporaries
from shared.events import AnyEvent, Candle, UndecodableError
from shared.service import Service, running
from shared.settings import read_settings

log = structlog.get_logger()

STREAMS = tuple(stream for stream, groups in GROUPS.items() if "writer" in groups)
_READ_COUNT = 2000
_BLOCK_MS = 250
_RETENTION_SECONDS = 3600.0
_REFRESH_SECONDS = 60.0


@dataclass
class Writer:
    """The state of a running writer."""

    service: Service
    settings: WriterSettings
    batch: Batch = field(default_factory=Batch)
    newest: dict[str, datetime] = field(default_factory=dict)
    knows_disk: bool = False
    """Whether everything on disk was looked at; before that nobody can say up to when all is stored."""
    telling: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a day is looked at, or changed, and told: an older look must not overwrite a newer one."""

    @property
    def root(self) -> Path:
        """Return the folder of the raw data."""
        return self.settings.data_dir

    async def run(self) -> None:
        """Work until the service is stopped; what is held then is written before the end."""
        await asyncio.to_thread(self._prepare_folder)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep_house())
            consumer = group.create_task(self._consume())
            await self.service.stop.wait()
            # The consumer sees the stop within one short read and flushes; it is not cancelled in the middle.
            await consumer
            keeper.cancel()

    def _prepare_folder(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if removed := remove_stale_temporaries(self.root):
            log.info("removed what a crash left behind", files=removed)

    async def _consume(self) -> None:
        while not self.service.stop.is_set():
            # A lost connection ends the generator; what was not acknowledged comes again, so the batch starts anew.
            self.batch.clear()
            try:
                await self.service.until_bus_answers(self._consume_while_connected)
            except asyncio.CancelledError:
                if not self.service.stop.is_set():
                    raise

    async def _consume_while_connected(self) -> None:
        bus, me = self.service.bus, consumer_name("writer")
        self.batch.clear()
        async for entries in bus.consume(STREAMS, "writer", consumer=me, count=_READ_COUNT, block_ms=_BLOCK_MS):
            self.service.health.started = True
            self.service.health.solved("redis")
            for entry in entries:
                self.batch.add(entry, await self._decode(entry), time.monotonic())
            WAITING.set(len(self.batch))
            stopping = self.service.stop.is_set()
            if stopping or should_flush(
                self.batch,
                time.monotonic(),
                max_age_seconds=self.settings.flush_seconds,
                max_entries=self.settings.flush_entries,
            ):
                await self._flush()
            if stopping:
                return

    async def _decode(self, entry: Entry) -> AnyEvent | None:
        if not entry.fields:  # trimmed by the hard cap while it was pending: nothing is left to store
            log.warning("entry was trimmed before it was stored", stream=entry.stream, id=entry.id)
            return None
        try:
            event = entry.event()
        except UndecodableError as error:
            await self.service.bus.dead_letter(f"writer:{entry.stream}:{entry.id}", entry.fields, str(error))
            return None
        if self.service.clock.measured and is_retired(event, self._today(), self.settings.retention_days):
            # Its day is gone from disk and complete in Qlib: a lone row must not pose as that day.
            reason = f"older than RETENTION_DAYS={self.settings.retention_days}"
            await self.service.bus.dead_letter(f"writer:{entry.stream}:{entry.id}", entry.fields, reason)
            return None
        return event

    def _today(self) -> date:
        return self.service.clock.now().astimezone(UTC).date()

    async def _flush(self) -> None:
        """Durable before acknowledged: write, fsync, rename, fsync the folder, and only then XACK."""
        if not self.batch.entries:
            return
        async with self.telling:
            with FLUSH_SECONDS.time():
                stored = await self._write_patiently()
                if stored is None:
                    return
                await self.service.bus.acknowledge("writer", self.batch.entries)
            await self._tell(stored)
        for partition, rows in self.batch.rows.items():
            ROWS.labels(partition.dataset).inc(len(rows))
            FILES.labels(partition.dataset).inc()
        self.batch.clear()
        WAITING.set(0)
        pa.default_memory_pool().release_unused()
        for stream in STREAMS:
            await self.service.bus.trim(stream)

    async def _write_patiently(self) -> list[Stored] | None:
        """Write the batch; where the disk refuses, say so, acknowledge nothing and try again until it does not."""
        while True:
            try:
                stored = await asyncio.to_thread(write_batch, self.root, self.batch.rows)
            except OSError as error:
                self.service.health.problem("disk", f"cannot write to {self.root}: {error.strerror or error}")
                if not await self.service.pause(5.0):
                    return None
            else:
                self.service.health.solved("disk")
                return stored

    async def _tell(self, stored: list[Stored]) -> None:
        """Publish what is durable now: coverage per day, newest candle per symbol, the watermark."""
        by_day: dict[date, dict[str, str]] = {}
        for file in stored:
            symbol = file.partition.symbol or ""
            by_day.setdefault(file.partition.day, {})[symbol] = file.runs
            self.newest[symbol] = max(file.newest, self.newest.get(symbol, file.newest))
        for day, runs in by_day.items():
            await self.service.bus.set_coverage(day, runs)
        if not stored:
            return
        marks = {f"newest:{file.partition.symbol}": self.newest[file.partition.symbol or ""] for file in stored}
        universe = await self.service.bus.universe()
        mark = written_until(self.newest, frozenset(universe.members if universe else ()))
        if mark is not None and self.knows_disk:
            marks["written_until"] = mark
            WRITTEN_UNTIL.set(mark.timestamp())
            self.service.health.details["written_until"] = mark.isoformat()
        await self.service.bus.set_watermarks(marks)

    async def _keep_house(self) -> None:
        """Tell what is on disk at the start, and again should Redis forget; retire old days."""
        last_retention = float("-inf")
        while True:
            if not self.knows_disk or not await self.service.until_bus_answers(self.service.bus.coverage_ready):
                await self.service.until_bus_answers(self._tell_everything)
            if self.service.clock.measured and time.monotonic() - last_retention >= _RETENTION_SECONDS:
                await self.service.until_bus_answers(self._retire)
                last_retention = time.monotonic()
            if not await self.service.pause(_REFRESH_SECONDS):
                return

    async def _tell_everything(self) -> None:
        raw_days = await asyncio.to_thread(days, self.root, Candle.dataset)
        for day in reversed(raw_days):
            async with self.telling:
                await self._tell(await asyncio.to_thread(scan_day, self.root, day))
        self.knows_disk = True
        await self.service.bus.set_coverage_ready(ready=True)
        log.info("coverage told", days=len(raw_days), symbols=len(self.newest))

    async def _retire(self) -> None:
        digests = await self.service.bus.converted()
        for day in await asyncio.to_thread(retire, self.root, self._today(), self.settings.retention_days, digests):
            RETIRED.inc()
            await self.service.bus.forget_coverage(day)


async def serve(settings: WriterSettings) -> None:
    """Run the writer until it is stopped."""
    async with running("writer", settings, metrics_port=settings.writer_metrics_port) as service:
        await Writer(service, settings).run()


def main() -> None:
    """Store every event of the bus in deduplicated Parquet under DATA_DIR.

    Settings come from the environment and `.env`; see .env.example.
    """
    asyncio.run(serve(read_settings(WriterSettings)))


if __name__ == "__main__":
    run(main)
