"""The audit: asks the exchange again for what is stored, and mends what differs. I/O.

By hand it is `python -m services.writer.audit`; in the writer it goes on all the time, a page now and then.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from services.writer.audit.compare import (
    SETTLED_SURE,
    Answer,
    Kind,
    Mismatch,
    Page,
    answer_of,
    comparable,
    compare_candles,
    compare_settlements,
    last_hour_end,
    next_recent,
    pages_of,
    pick_day,
    repairs_of,
    sure_until,
)
from services.writer.audit.suspects import Suspects
from services.writer.disk.ledger import DayRecord, Records, changed_since, scan_day
from services.writer.disk.reading import StoredRows
from services.writer.metrics import (
    AUDIT_CORRECTED,
    AUDIT_FAILED,
    AUDIT_LAST,
    AUDIT_MINUTES,
    AUDIT_MISMATCHES,
    AUDIT_PAGES,
)
from services.writer.settings import WriterSettings
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import LedgerRow
from shared.exchanges.base import Exchange, ExchangeError, UnknownInstrument
from shared.exchanges.registry import instance_of, open_exchange
from shared.grid import DAY, MINUTE, day_start, days_between, floor_day, floor_minute
from shared.ledger.day import NOTHING, DayLedger, over_mask
from shared.ledger.minutes import gaps_of_mask, mask_from_minutes
from shared.runtime.service import Service
from shared.storage.layout import Partition
from shared.storage.parquet import ContentError, read_partition, write_table
from shared.symbol import Symbol, belongs

log = structlog.get_logger()

AuditTrouble = (ExchangeError, ContentError, OSError, pa.ArrowException)
"""What keeps an audit from a result, and may be over the next time."""

DENIALS = 5
"""How often the exchange must say that it has no such candle before a stored one is deleted."""
DENIAL_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 60.0
_RANDOM_EVERY = 4
"""One page in so many is a random one, however many of the last hours are due."""


@dataclass(frozen=True)
class Finding:
    """What one look brought to light."""

    compared: int
    """Minutes, or settlements, that were held against each other."""
    mismatches: list[Mismatch]


# --- What is stored. Read only: damage is for the writer to put aside.


def _between[R: (Candle, FundingRate)](
    kind: type[R], stored: StoredRows, file: Partition, begin: datetime, end: datetime
) -> list[R]:
    """Read the rows of a day whose time lies in [begin, end); nothing where nothing is stored (any more)."""
    try:
        table = stored.of(file)
    except FileNotFoundError:
        return []
    inside = pc.and_(pc.greater_equal(table[kind.time], _scalar(begin)), pc.less(table[kind.time], _scalar(end)))
    return [kind(**row) for row in table.filter(inside).to_pylist()]


def _scalar(instant: datetime) -> pa.Scalar:
    return pa.scalar(instant, pa.timestamp("ms", tz="UTC"))


def read_ledgers(stored: StoredRows, day: date, exchange: str, about: str = Candle.dataset) -> dict[Symbol, DayLedger]:
    """Return what the ledger says of a dataset's day, of the symbols of an exchange."""
    known = stored.ledger(day, about)
    return {Symbol(key.symbol): one.ledger for key, one in known.items() if belongs(key.symbol, exchange)}


def auditable_days(stored: StoredRows, today: date, retention_days: int) -> list[date]:
    """Return the days that can be audited and mended: known, and not past the retention."""
    known = stored.days(Candle.dataset) | stored.days(LedgerRow.dataset)
    return sorted(day for day in known if (today - day).days <= retention_days)


# --- One look


class Auditor:
    """Asks the exchange, then looks at the disk: what was stored meanwhile counts as stored."""

    def __init__(self, root: Path, exchange: Exchange) -> None:
        self.stored = StoredRows(root)
        self._exchange = exchange

    async def ask(self, page: Page, now: datetime) -> Answer:
        """Return what the exchange has of a page; now: its clock. Raises `ExchangeError`."""
        return answer_of(page, await self._exchange.candles(page.symbol, page.begin, page.end, now=now, final=True))

    async def audit(self, page: Page, now: datetime) -> Finding:
        """Compare a page of candles. Raises one of `AuditTrouble`.

        What the exchange does not have it must say twice: an answer may have holes.
        """
        answer = await self.ask(page, now)
        found = await asyncio.to_thread(self._compare, page, answer)
        if any(mismatch.kind is Kind.INVENTED for mismatch in found.mismatches):
            answer |= await self.ask(page, now)
            found = await asyncio.to_thread(self._compare, page, answer)
        return found

    def _compare(self, page: Page, answer: Answer) -> Finding:
        file = Partition(Candle.dataset, page.day, page.symbol)
        stored = {row.open_time: row for row in _between(Candle, self.stored, file, page.begin, page.end)}
        ledger = read_ledgers(self.stored, page.day, self._exchange.name).get(page.symbol, NOTHING)
        return Finding(len(comparable(page, stored, answer, ledger)), compare_candles(page, stored, answer, ledger))

    async def audit_settlements(self, symbol: Symbol, begin: datetime, end: datetime, now: datetime) -> Finding:
        """Compare the settlements of [begin, end). Raises one of `AuditTrouble`."""
        page = await self._exchange.settlements(symbol, begin - DAY, end, now=now)
        return await asyncio.to_thread(self._compare_settlements, symbol, begin, end, page.events)

    def _compare_settlements(
        self, symbol: Symbol, begin: datetime, end: datetime, said: Sequence[FundingRate]
    ) -> Finding:
        stored: dict[datetime, FundingRate] = {}
        due: set[datetime] = set()
        for day in days_between(begin, end):
            rows = _between(FundingRate, self.stored, Partition(FundingRate.dataset, day), begin, end)
            stored |= {row.funding_time: row for row in rows if row.symbol == symbol}
            for dataset in (
                Candle.dataset,
                FundingRate.dataset,
            ):  # what is settled while a symbol is followed is wanted
                known = read_ledgers(self.stored, day, self._exchange.name, dataset).get(symbol, NOTHING)
                due |= minutes_of(day, known.wanted & over_mask(day, end))
        theirs = {row.funding_time: row for row in said}
        found = compare_settlements(symbol, stored, theirs, lambda at: floor_minute(at) in due)
        inside = [mismatch for mismatch in found if begin <= mismatch.at < end]
        return Finding(sum(begin <= at < end for at in {*stored, *theirs}), inside)


def withdraw(root: Path, day: date, symbol: str, opens: Collection[datetime]) -> tuple[int, Records]:
    """Delete candles from a file durably; return how many, and what the ledger says of it then.

    The last candle of a file stays: a file without rows, or none, would leave the bins as they are. Only whoever may
    write the file may call this.
    """
    file = Partition(Candle.dataset, day, symbol)
    path = file.path(root)
    try:
        table = read_partition(root, file)
    except FileNotFoundError:  # retired meanwhile
        return 0, {}
    gone = pa.array(sorted(opens), pa.timestamp("ms", tz="UTC"))
    rest = table.filter(pc.invert(pc.is_in(table["open_time"], value_set=gone)))
    if len(rest) in {0, len(table)}:
        return 0, {}
    write_table(path, rest)
    return len(table) - len(rest), changed_since(*scan_day(root, day))


# --- All the time


@dataclass
class Tally:
    """What the continuous audit has done since the start, for the heartbeat."""

    minutes: int = 0
    mismatches: int = 0
    corrected: int = 0
    last: datetime | None = None

    def reported(self) -> dict[str, int | str | None]:
        """Return it as the heartbeat shows it."""
        last = self.last.isoformat() if self.last else None
        return {"minutes": self.minutes, "mismatches": self.mismatches, "corrected": self.corrected, "last": last}


@dataclass
class ContinuousAudit:
    """Audits a page now and then, as long as the writer runs: the last hours as they end, and what is older at random.

    What differs is published like any other row. Stored minutes that somebody called absent are doubted: they are
    asked for again and again, and only then deleted.
    """

    service: Service
    settings: WriterSettings
    is_ready: Callable[[], bool]
    """Whether the writer knows its disk."""
    withdraw: Callable[[date, str, Collection[datetime]], Awaitable[int]]
    """Deletes candles for good and reports it; returns how many were there."""
    tally: Tally = field(default_factory=Tally)
    suspects: Suspects = field(default_factory=Suspects)
    """Candles whose price jumps: their page comes first."""
    _dice: random.Random = field(default_factory=random.Random)
    _audited: dict[str, datetime] = field(default_factory=dict)
    """Symbol → up to when it was audited as it came."""
    _doubted: dict[tuple[date, Symbol], int] = field(default_factory=dict)
    """Stored minutes that are called absent, too."""
    _believed: dict[tuple[date, Symbol], int] = field(default_factory=dict)
    """Those among them that were asked for again and stay."""
    _turn: int = 0
    _stored: StoredRows = field(init=False)

    def __post_init__(self) -> None:
        self._stored = StoredRows(self.settings.data_dir)

    def note(self, day: date, symbols: Mapping[str, DayRecord]) -> None:
        """Look through what the ledger says of the candles of a day for minutes to doubt."""
        for symbol, known in symbols.items():
            at = (day, Symbol(symbol))
            if doubted := known.ledger.absent & known.ledger.stored & ~self._believed.get(at, 0):
                self._doubted[at] = doubted
            else:
                self._doubted.pop(at, None)

    async def run(self) -> None:
        """Audit until the service stops. Nothing that goes wrong in here reaches the writer."""
        settings, loop = self.settings, asyncio.get_running_loop()
        next_page = next_doubt = 0.0
        async with open_exchange(
            settings.exchange, settings.okx_rest_url, ca_file=settings.okx_ca_file, share="audit"
        ) as exchange:
            auditor = Auditor(settings.data_dir, exchange)
            while await self.service.pause(_LOOK_SECONDS):
                if not self.is_ready() or not self.service.clock.measured or self.service.clock.disputed:
                    continue
                if self._doubted and loop.time() >= next_doubt and not await self._guarded(self._ask_again(auditor)):
                    next_doubt = loop.time() + _RETRY_SECONDS
                if settings.audit_pages_per_hour and loop.time() >= next_page:
                    next_page = loop.time() + 3600 / settings.audit_pages_per_hour
                    await self._guarded(self._audit_next(auditor))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do some work; return whether it came to an end."""
        try:
            await work
        except asyncio.CancelledError:  # the bus does not answer, and the service stops
            if not self.service.stop.is_set():
                raise
        except AuditTrouble as error:
            AUDIT_FAILED.inc()
            log.warning("not audited, trying again later", error=str(error), kind=type(error).__name__)
        except Exception:  # a mistake in here must not end the writer, but it must be seen
            AUDIT_FAILED.inc()
            log.exception("the audit failed")
        else:
            return True
        return False

    async def _audit_next(self, auditor: Auditor) -> None:
        """Audit one page and the settlements in it, unless the history is still on its way."""
        # Before, most of what lacks is on its way, and the collector knows it.
        beat = await self.service.until_bus_answers(
            lambda: self.service.bus.heartbeat(instance_of("collector", self.settings.exchange))
        )
        if beat is not None and not beat.details.get("history_complete", True):
            return
        now, rate = self.service.clock.now(), self.service.clock.rate
        self._turn += 1
        suspected = self.suspects.take(sure_until(now, rate))
        recent = None
        if suspected is None and self._turn % _RANDOM_EVERY:
            recent = await asyncio.to_thread(self._next_recent, now, rate)
        page = suspected or recent or await asyncio.to_thread(self._choose_at_random, now, rate)
        if page is None:
            return
        found = await self.service.unless_stopped(auditor.audit(page, now))
        if found is None:
            return
        AUDIT_PAGES.inc()
        AUDIT_MINUTES.inc(found.compared)
        AUDIT_LAST.set_to_current_time()
        self.tally.minutes += found.compared
        self.tally.last = datetime.now(UTC)
        await self._mend(found, now)
        if recent is not None:
            self._audited[page.symbol] = page.end
        settled_end = min(page.end, sure_until(now, rate, after=SETTLED_SURE))
        if page.begin < settled_end:
            settled = await self.service.unless_stopped(
                auditor.audit_settlements(page.symbol, page.begin, settled_end, now)
            )
            await self._mend(settled or Finding(0, []), now)

    def _ledgers(self, day: date) -> dict[Symbol, DayLedger]:
        return read_ledgers(self._stored, day, self.settings.exchange)

    def _next_recent(self, now: datetime, rate: float) -> Page | None:
        hour_end = last_hour_end(now, rate)
        return next_recent(self._audited, self._ledgers((hour_end - MINUTE).date()), hour_end)

    def _choose_at_random(self, now: datetime, rate: float) -> Page | None:
        known = auditable_days(self._stored, now.date(), self.settings.retention_days)
        until = sure_until(now, rate)
        day = pick_day(self._dice, [day for day in known if day <= until.date()], now.date())
        if day is None:
            return None
        pages = pages_of(day, self._ledgers(day), day_start(day), until)
        return self._dice.choice(pages) if pages else None

    async def _mend(self, found: Finding, now: datetime) -> None:
        for mismatch in found.mismatches:
            self.tally.mismatches += 1
            AUDIT_MISMATCHES.labels(mismatch.kind).inc()
            if mismatch.kind is Kind.INVENTED:
                self._believed.pop((mismatch.at.date(), mismatch.symbol), None)
            log.warning("not stored as the exchange has it", **fields_of(mismatch))
        mended = repairs_of(found.mismatches, found.compared, exchange_now=now)
        if mended:
            events = [event for _, event in mended]
            await self.service.until_bus_answers(lambda: self.service.bus.publish(events))
        for mismatch, _ in mended:
            if mismatch.kind is not Kind.INVENTED:  # of these only a doubt was published
                self._count_corrected(mismatch.kind, 1)
        self.service.health.details["audit"] = self.tally.reported()

    def _count_corrected(self, kind: Kind, count: int) -> None:
        self.tally.corrected += count
        AUDIT_CORRECTED.labels(kind).inc(count)

    async def _ask_again(self, auditor: Auditor) -> None:
        """Ask for the doubted minutes of each symbol's day, and delete those that the exchange never has."""
        now = self.service.clock.now()
        sure = sure_until(now, self.service.clock.rate)
        for (day, symbol), mask in list(self._doubted.items()):
            if not (doubted := mask & over_mask(day, sure)):
                continue
            try:
                denied = await self._denied(auditor, symbol, minutes_of(day, doubted), now)
            except UnknownInstrument:  # delisted: there is no one to ask any more
                denied = set()
            if denied is None:
                return
            if denied and (gone := await self.withdraw(day, symbol, denied)):
                log.warning("deleted what the exchange does not have", symbol=symbol, opens=sorted(map(str, denied)))
                self._count_corrected(Kind.INVENTED, gone)
            self._believed[day, symbol] = self._believed.get((day, symbol), 0) | doubted
            self._doubted[day, symbol] = self._doubted.get((day, symbol), 0) & ~doubted
            if not self._doubted[day, symbol]:
                del self._doubted[day, symbol]
        self.service.health.details["audit"] = self.tally.reported()

    async def _denied(
        self, auditor: Auditor, symbol: Symbol, opens: set[datetime], now: datetime
    ) -> set[datetime] | None:
        """Return the minutes that the exchange does not have each time it is asked; None where the service stops.

        An answer without a single row says nothing about a minute: the exchange may have a bad moment.
        """
        day = min(opens).date()
        denied = set(opens)
        for page in pages_of(day, {symbol: DayLedger(wanted=mask_of_opens(opens))}, day_start(day), now):
            for turn in range(DENIALS):
                if not any(page.begin <= at < page.end for at in denied):
                    break
                if turn and not await self.service.pause(DENIAL_SECONDS):
                    return None
                answer = await self.service.unless_stopped(auditor.ask(page, now))
                if answer is None:
                    return None
                there = {*answer.candles, *answer.unsure}
                denied = denied - there if there else {at for at in denied if not page.begin <= at < page.end}
        return denied


def minutes_of(day: date, mask: int) -> set[datetime]:
    """Return the opens of the minutes in a day's mask."""
    return {gap.begin + number * MINUTE for gap in gaps_of_mask(day, mask) for number in range(gap.minutes)}


def mask_of_opens(opens: Collection[datetime]) -> int:
    """Return the mask of some minutes of one day."""
    return mask_from_minutes((at - floor_day(at)) // MINUTE for at in opens)


def fields_of(mismatch: Mismatch) -> dict[str, Any]:
    """Return a mismatch as a log line or JSON shows it."""
    fields = {one.field: {"stored": one.stored, "exchange": one.exchange} for one in mismatch.differences}
    return {"kind": mismatch.kind.value, "symbol": mismatch.symbol, "at": mismatch.at.isoformat(), "fields": fields}
