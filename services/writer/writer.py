"""The writer at work: read the bus, make rows durable, then acknowledge; publish what is stored; merge; retire. I/O."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import structlog

from services.writer.audit.auditor import ContinuousAudit, withdraw
from services.writer.batch import Batch, should_flush
from services.writer.disk.day_files import Seen, look_again
from services.writer.disk.definitions import digests_of_definitions, newest_definitions, read_definitions
from services.writer.disk.ledger import Records, add_verdicts, changed_since, ledger_version, newest_of, scan_day
from services.writer.disk.retention import is_past, is_retired, retire
from services.writer.disk.store import RawStore, Written
from services.writer.metrics import (
    COMPACTION_SECONDS,
    FLUSH_SECONDS,
    PENDING_ROWS,
    RETIRED,
    ROWS,
    SEGMENTS,
    SUSPECTS,
    WAITING,
    WRITTEN_UNTIL,
)
from services.writer.settings import WriterSettings
from services.writer.watermark import written_until
from shared.bus.connection import BusError
from shared.bus.streams import GROUPS, Entry, consumer_name
from shared.datasets.candle import Candle
from shared.datasets.funding import PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow
from shared.datasets.plausible import AHEAD, impossible
from shared.datasets.registry import BY_DATASET, AnyEvent, UndecodableError
from shared.datasets.universe import Rank
from shared.exchanges.registry import EXCHANGES
from shared.grid import LAST_DAY, day_start
from shared.ledger.day import bus_field, from_bus, to_text
from shared.runtime.service import Service, suppress_at_stop
from shared.storage.files import BusyError, exclusive, reason_of
from shared.storage.layout import Partition, days
from shared.symbol import Symbol, belongs

log = structlog.get_logger()

STREAMS = tuple(stream for stream, groups in GROUPS.items() if "writer" in groups)
_READ_COUNT = 5000
_BLOCK_MS = 250
_RETENTION_SECONDS = 3600.0
_LOOK_SECONDS = 60.0
"""How often the files are looked at: one that was damaged, or changed by hand, is found and healed."""
_READY_SECONDS = 2.0
"""How often to look whether Redis has forgotten the ledger."""
_STANDBY_SECONDS = 1.0
_DISK_RETRY_SECONDS = 5.0
_COMPACTION_LOOK_SECONDS = 1.0
_MOST_ROWS = 1_000_000
"""In segments; more of them are merged before their time."""


class LockLostError(Exception):
    """Another writer could work on the folder now."""


@dataclass
class Writer:
    """The state of a running writer."""

    service: Service
    settings: WriterSettings
    store: RawStore = field(init=False)
    batch: Batch = field(default_factory=Batch)
    newest: dict[str, datetime] = field(default_factory=dict)
    definitions: dict[Symbol, InstrumentDefinition] | None = None
    """The newest definition of every instrument on disk; None before they were read."""
    definition_digests: dict[date, str] = field(default_factory=dict)
    """Day → version of the file that they were read from."""
    rankings: dict[date, Seen] = field(default_factory=dict)
    predictions: dict[date, Seen] = field(default_factory=dict)
    """The files of those datasets, as they were looked at."""
    ledgers: dict[date, str | None] = field(default_factory=dict)
    """Version of each day's ledger as it was published last: another one was put there by somebody else."""
    knows_disk: bool = False
    """Whether everything on disk was looked at; before that it is not known up to when all is stored."""
    lost_verdicts: bool = False
    """Whether a crash lost what had been found out of some day: the bus knows it still."""
    unpublished: bool = False
    """Whether something that is durable could not be published."""
    publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a day is read, or changed, and published: an older reading must not overwrite a newer one."""
    files: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while day files, or those of the ledger, are changed: rows that come meanwhile go into segments.

    Taken before the other one.
    """
    audit: ContinuousAudit = field(init=False)
    _held: os.stat_result | None = None
    """The lock file that is held."""

    def __post_init__(self) -> None:
        self.store = RawStore(self.root)
        self.audit = ContinuousAudit(self.service, self.settings, lambda: self.knows_disk, self._withdraw)

    @property
    def root(self) -> Path:
        """Return the folder of the raw data."""
        return self.settings.data_dir

    async def run(self) -> None:
        """Work until the service is stopped; what is held then is written before the end."""
        async with AsyncExitStack() as held:
            if not await self._alone(held):
                return
            if await self._recover():
                await self._work()

    async def _alone(self, held: AsyncExitStack) -> bool:
        """Wait until no other writer works on the folder; return whether to go on.

        Two writers would merge into the same files and lose each other's rows. The second one stands by instead.
        """
        while True:
            try:
                lock = held.enter_context(exclusive(self._lock, f"another writer works on {self.root}"))
                self._held = os.fstat(lock)
            except BusyError as error:
                self.service.health.problem("standby", f"{error}: standing by")
            except OSError as error:
                self.service.health.problem("disk", f"cannot write to {self.root}: {reason_of(error)}")
            else:
                self.service.health.resolve("standby")
                self.service.health.resolve("disk")
                return True
            if not await self.service.pause(_STANDBY_SECONDS):
                return False

    async def _recover(self) -> bool:
        """Merge what a crash left in segments; return whether to go on: where the disk refuses, it is tried again."""
        while True:
            try:
                recovered = await asyncio.to_thread(self.store.recover)
            except OSError as error:
                self.service.health.problem("disk", f"cannot write to {self.root}: {reason_of(error)}")
                if not await self.service.pause(_DISK_RETRY_SECONDS):
                    return False
            else:
                self.service.health.resolve("disk")
                self.lost_verdicts = LedgerRow.dataset in recovered.lost
                if recovered.temporaries:
                    log.info("removed what a crash left behind", files=recovered.temporaries)
                return True

    @property
    def _lock(self) -> Path:
        return self.root / ".writer.lock"

    def _holds_lock(self) -> bool:
        """Return whether the lock is still the one of the folder: another folder may have been put in its place."""
        try:
            return self._held is not None and os.path.samestat(self._held, self._lock.stat())
        except OSError:
            return False

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            # None of them is cancelled in the middle of a file: each sees the stop, and ends.
            for task in (self._keep_house(), self.audit.run(), self._compact_in_time(), self._consume()):
                group.create_task(task)
        await self._compact()

    async def _consume(self) -> None:
        while not self.service.stop.is_set():
            # A lost connection ends the generator; what was not acknowledged comes again, so the batch starts again.
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
            self.service.health.resolve("redis")
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
        if reason := self._reason_against(event):
            await self.service.bus.dead_letter(f"writer:{entry.stream}:{entry.id}", entry.fields, reason)
            return None
        if isinstance(event, Candle) and self.audit.suspects.note(event):
            SUSPECTS.inc()
            log.warning("price jumps, to be audited", symbol=event.symbol, open_time=event.open_time.isoformat())
        return event

    def _reason_against(self, event: AnyEvent) -> str | None:
        """Return why an event is not stored, or None."""
        known = self._knows_today()
        if reason := impossible(event, EXCHANGES, self.service.clock.now() if known else None):
            return reason
        if known and is_retired(event, self._today(), self.settings.retention_days):
            # Its day is gone from disk and complete in Qlib: a lone row must not pose as that day.
            return f"older than RETENTION_DAYS={self.settings.retention_days}"
        return None

    def _knows_today(self) -> bool:
        """Return whether the exchange's day is known: while its clock is in dispute nothing is too old."""
        return self.service.clock.measured and not self.service.clock.disputed

    def _latest(self) -> datetime:
        """Return the latest time that a stored row can have: a file of others may be of any year."""
        return self.service.clock.now() + AHEAD if self._knows_today() else day_start(LAST_DAY)

    def _today(self) -> date:
        return self.service.clock.now().astimezone(UTC).date()

    async def _flush(self) -> None:
        """Durable before acknowledged: write, fsync, rename, fsync the folder, and only then XACK."""
        if not self.batch.entries:
            return
        async with self.publishing:
            with FLUSH_SECONDS.time():
                written = await self._write_patiently()
                if written is None:
                    return
                # Published before it is acknowledged: what is acknowledged and not in the ledger counts as lost.
                await self._publish_or_remember(written)
                await self.service.bus.acknowledge("writer", self.batch.entries)
                await self._mark_rankings()
                await self._mark_definitions()
        for kind, rows in self.batch.rows.items():
            ROWS.labels(kind.dataset).inc(len(rows))
        self.batch.clear()
        WAITING.set(0)
        self._count_segments()
        pa.default_memory_pool().release_unused()
        for stream in STREAMS:
            await self.service.bus.trim(stream)

    def _count_segments(self) -> None:
        SEGMENTS.set(len(self.store.segments))
        PENDING_ROWS.set(self.store.rows)

    async def _mark_rankings(self) -> None:
        """Say which rankings are on disk; one that is not said is published again, and stored again as the same."""
        ranked: dict[str, set[datetime]] = defaultdict(set)
        for row in (row for row in self.batch.rows.get(Rank, ()) if isinstance(row, Rank)):
            ranked[row.exchange].add(row.ranked_time)
        try:
            for exchange, times in ranked.items():
                await self.service.bus.mark_stored(exchange, times)
        except BusError as error:
            log.warning("that a ranking is stored is not published", error=str(error))

    async def _mark_definitions(self) -> None:
        """Say which definitions of instruments are on disk; one that is not said is published again."""
        found = self.batch.rows.get(InstrumentDefinition, ())
        rows = [row for row in found if isinstance(row, InstrumentDefinition)]
        if not rows or self.definitions is None:
            return
        fresh = newest_definitions([*self.definitions.values(), *rows])
        changed = [one for symbol, one in fresh.items() if one != self.definitions.get(symbol)]
        self.definitions = fresh
        try:
            await self.service.bus.set_definitions(changed)
        except BusError as error:
            log.warning("that definitions of instruments are stored is not published", error=str(error))

    async def _write_patiently(self) -> Written | None:
        """Write the batch; where the disk refuses, say so, acknowledge nothing and try again until it does not."""
        while True:
            try:
                written = await asyncio.to_thread(self.store.append, self.batch.rows, self.batch.verdicts)
            except OSError as error:
                self.service.health.problem("disk", f"cannot write to {self.root}: {reason_of(error)}")
                if not await self.service.pause(_DISK_RETRY_SECONDS):
                    return None
            else:
                self.service.health.resolve("disk")
                return written

    async def _publish_or_remember(self, written: Written) -> None:
        """Publish what was written; where Redis takes nothing in, publish everything once it does.

        A Redis that is full takes acknowledgements still, and only they make room: so nothing may stand before them.
        """
        try:
            await self._publish(written)
        except BusError as error:
            log.warning("what was stored is not published, publishing it later", error=str(error))
            self.unpublished = True

    async def _publish(self, written: Written, *, all_of_them: bool = False) -> None:
        """Publish what is durable now, of some or all symbols: the ledger, the newest candle of each, the watermark."""
        marks: dict[str, datetime] = {}
        for day, records in written.items():
            of_candles = {key.symbol: known for key, known in records.items() if key.dataset == Candle.dataset}
            self.audit.note(day, of_candles)
            for symbol, known in of_candles.items():
                newest = newest_of(day, known.ledger)
                if newest is not None and self.newest.get(symbol, newest) <= newest <= self._latest():
                    self.newest[symbol] = marks[f"newest:{symbol}"] = newest
            if not self._is_past(day):
                texts = {bus_field(*key): to_text(one.ledger) for key, one in records.items()}
                await self.service.bus.set_ledger(day, texts, all_of_them=all_of_them)
        mark = await self._written_until()
        if mark is not None and self.knows_disk:
            marks["written_until"] = mark
            WRITTEN_UNTIL.set(mark.timestamp())
            self.service.health.details["written_until"] = mark.isoformat()
        await self.service.bus.set_watermarks(marks)

    async def _written_until(self) -> datetime | None:
        """Return up to when everything is stored, of the exchange that is ahead: none waits for another's outage."""
        marks = []
        for exchange in EXCHANGES:
            universe = await self.service.bus.universe(exchange)
            newest = {symbol: at for symbol, at in self.newest.items() if belongs(symbol, exchange)}
            marks.append(written_until(newest, frozenset(universe.members if universe else ())))
        return max((mark for mark in marks if mark is not None), default=None)

    def _is_past(self, day: date) -> bool:
        """Return whether a day is beyond the retention: then the ledger of it lies on disk alone."""
        return self._knows_today() and is_past(day, self._today(), self.settings.retention_days)

    # --- compaction

    async def _compact_in_time(self) -> None:
        """Merge segments into the day files now and then, and when somebody asks for it."""
        while await self.service.pause(_COMPACTION_LOOK_SECONDS):
            if not self._holds_lock():
                raise LockLostError(f"{self._lock} was deleted, or the folder replaced: starting again, with its lock")
            asked = await self._asked()
            if asked or self._is_compaction_due():
                if not await self._compact():
                    await self.service.pause(_DISK_RETRY_SECONDS)
                elif asked:
                    await self._say_compacted(asked)
            elif not self.files.locked() and await asyncio.to_thread(self.store.is_damaged):
                log.error("a segment is not what was written any more")
                await self._compact()

    def _is_compaction_due(self) -> bool:
        store = self.store
        if any(not (self.root / segment.dataset).exists() for segment in store.segments):
            return True  # the first rows of a dataset: whoever looks for its folder finds it
        aged = store.oldest is not None and time.monotonic() - store.oldest >= self.settings.compact_every * 60
        return aged or store.rows >= _MOST_ROWS

    async def _asked(self) -> int:
        """Return the number of the last request to merge that was not met yet; 0 where there is none."""
        try:
            return await self.service.bus.compaction_asked()
        except BusError:  # the consumer reports it
            return 0

    async def _say_compacted(self, asked: int) -> None:
        try:
            await self.service.bus.set_compacted(asked)
        except BusError as error:
            log.warning("that files are merged is not published", error=str(error))

    async def _compact(self) -> bool:
        """Merge all segments into the day files, while rows go on to be stored; return whether that was done."""
        async with self.files:
            async with self.publishing:
                chosen = self.store.begin_compaction()
            try:
                with COMPACTION_SECONDS.time():
                    await asyncio.to_thread(self.store.merge, chosen, self._is_past_file)
            except OSError as error:
                async with self.publishing:
                    self.store.give_up_compaction()
                self.service.health.problem("compaction", f"cannot merge rows into day files: {reason_of(error)}")
                return False
            self.service.health.resolve("compaction")
            async with self.publishing:
                written = self.store.end_compaction(chosen)
                for day in written:
                    self.ledgers[day] = await asyncio.to_thread(ledger_version, self.root, day)
                await self._publish_or_remember(written)
            self._count_segments()
        pa.default_memory_pool().release_unused()
        return True

    def _is_past_file(self, file: Partition) -> bool:
        return BY_DATASET[file.dataset].retired and self._is_past(file.day)

    # --- what is on disk

    async def _keep_house(self) -> None:
        """Publish what is on disk at the start, and again should Redis forget; find damage; retire old days."""
        with suppress_at_stop(self.service):
            await self._keep_house_while_connected()

    async def _keep_house_while_connected(self) -> None:
        looked = retired = float("-inf")
        while True:
            ready = await self.service.until_bus_answers(self.service.bus.ledger_ready) and not self.unpublished
            if not (self.knows_disk and ready) or time.monotonic() - looked >= _LOOK_SECONDS:
                await self._look_patiently(everything=not ready)
                looked = time.monotonic()
            if self._knows_today() and time.monotonic() - retired >= _RETENTION_SECONDS:
                await self.service.until_bus_answers(self._retire)
                retired = time.monotonic()
            if not await self.service.pause(_READY_SECONDS):
                return

    async def _look_patiently(self, *, everything: bool) -> None:
        try:
            await self.service.until_bus_answers(lambda: self._look_at_disk(everything=everything))
        except OSError as error:
            self.service.health.problem("ledger", f"cannot look at {self.root}: {reason_of(error)}")
        else:
            self.service.health.resolve("ledger")

    async def _look_at_disk(self, *, everything: bool) -> None:
        """Bring the ledger in line with the files; publish every day, or those of which something changed."""
        self.unpublished = False
        await self._look_at_definitions(everything=everything)
        await self._look_at_rankings(everything=everything)
        async with self.files:
            if await self._look_at_days(everything=everything):
                self.knows_disk, self.lost_verdicts = True, False
                await self.service.bus.set_ledger_ready(ready=True)
        await self._look_at_predictions()

    async def _look_at_days(self, *, everything: bool) -> bool:
        """Bring the ledger in line with the files of every day; return whether it came to an end before the stop."""
        raw_days = {*await asyncio.to_thread(days, self.root, Candle.dataset), *self.store.days}
        known_days = await asyncio.to_thread(days, self.root, LedgerRow.dataset)
        raw_days |= {day for day in known_days if not self._is_past(day)}
        if self.lost_verdicts:  # of a day of which nothing else was stored, perhaps
            raw_days |= {day for day in await self.service.bus.ledger_versions() if not self._is_past(day)}
        whole, changed = everything or not self.knows_disk, 0
        if whole:  # what Redis says may be of another folder
            await self.service.bus.forget_ledger(sorted((await self.service.bus.ledger_versions()).keys() - raw_days))
        for day in sorted(raw_days, reverse=True):
            if self.service.stop.is_set():
                return False
            async with self.publishing:
                version, last = await asyncio.to_thread(ledger_version, self.root, day), self.ledgers.get(day)
                before, known = await asyncio.to_thread(scan_day, self.root, day)
                if self.lost_verdicts or (not before and (version or last)):  # damaged, or deleted
                    known |= await self._remember_verdicts(day)
                everything_of_day = whole or version != last  # somebody else has written it
                changes = known if everything_of_day else changed_since(before, known)
                changed += len(changes)
                self.ledgers[day] = await asyncio.to_thread(ledger_version, self.root, day)
                stored = self.store.with_pending(day, known)
                now = stored if everything_of_day else {key: stored[key] for key in changes}
                await self._publish({day: now}, all_of_them=everything_of_day)
        if whole:
            log.info("ledger published", days=len(raw_days), symbols=len(self.newest))
        elif changed:
            log.warning("data files changed outside the writer", symbol_days=changed)
        return True

    async def _remember_verdicts(self, day: date) -> Records:
        """Put what the bus knows of a day into a ledger that was damaged: what was wanted no data file says."""
        try:
            books = from_bus((await self.service.bus.ledger([day]))[day])
        except ValueError as error:
            log.warning("what the ledger said is lost", day=str(day), error=str(error))
            return {}
        return await asyncio.to_thread(add_verdicts, self.root, day, books)

    async def _look_at_definitions(self, *, everything: bool) -> None:
        """Publish what is stored of the instruments, where that has changed."""
        async with self.publishing:
            digests = await asyncio.to_thread(digests_of_definitions, self.root)
            if everything or self.definitions is None or digests != self.definition_digests:
                found = newest_definitions(await asyncio.to_thread(read_definitions, self.root))
                await self.service.bus.set_definitions(found.values(), all_of_them=True)
                self.definitions, self.definition_digests = found, digests

    async def _look_at_rankings(self, *, everything: bool) -> None:
        """Say which rankings are stored, where that has changed: the ranker publishes the last of the others again."""
        async with self.publishing:
            seen = await asyncio.to_thread(look_again, self.root, Rank.dataset, self.rankings, keep_times=True)
            if everything or seen != self.rankings:
                for exchange in EXCHANGES:
                    stored = (at for one in seen.values() for of, at in one.times if of == exchange)
                    await self.service.bus.set_stored(exchange, stored)
                self.rankings = seen

    async def _look_at_predictions(self) -> None:
        """Put aside what is no file of predictions."""
        async with self.files:
            dataset = PredictedFundingRate.dataset
            self.predictions = await asyncio.to_thread(look_again, self.root, dataset, self.predictions)

    async def _withdraw(self, day: date, symbol: str, opens: Collection[datetime]) -> int:
        """Delete candles that the exchange does not have, and publish that; return how many were there."""
        if not await self._compact():  # what is in a segment would come back
            return 0
        async with self.files, self.publishing:
            gone, known = await asyncio.to_thread(withdraw, self.root, day, symbol, opens)
            self.ledgers[day] = await asyncio.to_thread(ledger_version, self.root, day)
            stored = self.store.with_pending(day, known)
            await self._publish_or_remember({day: {key: stored[key] for key in known}})
        return gone

    async def _retire(self) -> None:
        digests = await self.service.bus.converted()
        if not await self._compact():  # no day may go while a segment has rows of it
            return
        async with self.files:
            retired = await asyncio.to_thread(retire, self.root, self._today(), self.settings.retention_days, digests)
        if retired.failed:
            self.service.health.problem("retention", f"old days stay on disk: {'; '.join(retired.failed)}")
        else:
            self.service.health.resolve("retention")
        for day in retired.days:
            RETIRED.inc()
            await self.service.bus.forget_ledger([day])
