"""The converter as a service: converts once a day after midnight, or more often, and patches in what comes late."""

import asyncio
import time
from datetime import datetime, timedelta

import structlog

from services.converter import metrics
from services.converter.convert import convert
from services.converter.history import PATIENCE_SECONDS, History
from services.converter.late import LateDays, late_days
from services.converter.memory import Memory
from services.converter.qlib.store import CommitError
from services.converter.report import ConversionReport, log_report, publish, unreadable_sentence
from services.converter.settings import ConverterSettings
from services.converter.stages.calendar import NothingToConvertError
from services.converter.versions.versions import head_folder
from shared.bus.compaction import have_rows_merged
from shared.datasets.candle import Candle
from shared.grid import MINUTES_PER_DAY, floor_day
from shared.ledger.day import account, from_bus
from shared.runtime.schedule import daily_at, firings
from shared.runtime.service import Service, running, wait_for_clock
from shared.storage.files import BusyError
from shared.storage.qlib_layout import calendars_of

log = structlog.get_logger()

_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.2
"""Between two looks at what the writer has stored: how long a minute may wait for nothing."""
_SCAN_SECONDS = 60.0
_MERGE_SECONDS = 120.0
"""How long the writer may take to merge a day of rows before they are converted as they are."""
_CLOCK_ROOM = timedelta(hours=1)
"""How far the exchange's clock may be taken for too early: only what is far ahead of it is left out."""
_HEALING_PATIENCE_SECONDS = 300.0
"""A lost hour of 50 symbols is healed in seconds; a hole that stays open for longer must not hold the others up."""


def _failure(error: Exception) -> str:
    """Return what a conversion that failed leaves for readers to see, and why it failed. Pure."""
    if isinstance(error, CommitError):
        return f"conversion failed when it was partly visible: {error}"
    return f"conversion failed, no new bar is visible; late rows of older bars may be: {error}"


class Converter:
    """A running converter: when to convert, and up to when."""

    def __init__(self, service: Service, settings: ConverterSettings) -> None:
        self.service = service
        self.settings = settings
        self._one_at_a_time = asyncio.Lock()
        self._history = History()
        self._memory = Memory()

    async def run(self) -> None:
        """Catch up with the last midnight, then convert on schedule until the service is stopped."""
        if not await wait_for_clock(self.service):
            return
        await self._wait_for_history()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._catch_up())
            group.create_task(self._daily())
            # At once: the writer may be far behind after a restart, and corrections of older days must not wait for it.
            group.create_task(self.watch_for_late())

    async def _catch_up(self) -> None:
        await self._convert_day(floor_day(self.service.clock.now()))
        self.service.health.started = True
        if self.settings.convert_every:
            await self._often()

    async def _wait_for_history(self) -> None:
        """Hold the very first conversion back until the history is there: it fixes the calendar's origin.

        History that does not grow for a while will not come soon; then what is there is converted.
        """
        if calendars_of(head_folder(self.settings.qlib_dir)).exists():
            return
        least, since = None, time.monotonic()
        while True:
            beat = await self.service.until_bus_answers(lambda: self.service.bus.heartbeat("collector"))
            if beat is not None and beat.details.get("history_complete"):
                break
            missing = beat.details.get("missing_minutes") if beat else None
            if missing is not None and (least is None or missing < least):
                least, since = missing, time.monotonic()
            if least is not None and time.monotonic() - since > PATIENCE_SECONDS:
                log.warning("history does not grow, converting what is there", missing_minutes=least)
                break
            reason = "the collector is not there yet" if missing is None else f"{missing:,} minutes of history to go"
            self.service.health.details["waiting"] = f"first conversion waits: {reason}"
            if not await self.service.pause(_POLL_SECONDS):
                return
        self.service.health.details.pop("waiting", None)

    async def _daily(self) -> None:
        at = self.settings.convert_at
        async for due in firings(daily_at(at.hour, at.minute), self.service):
            await self._convert_day(floor_day(due))

    async def _often(self) -> None:
        """Convert as soon as the writer has stored more, every CONVERT_EVERY seconds at most."""
        clock, step = self.service.clock, timedelta(seconds=self.settings.convert_every)
        began = clock.now() - step
        while await self.service.pause(_LOOK_SECONDS):
            if clock.now() - began < step:
                continue
            marks = await self.service.until_bus_answers(self.service.bus.watermarks)
            written, converted = marks.get("written_until"), marks.get("converted_until")
            if written is not None and (converted is None or written > converted):
                began = clock.now()
                await self._convert(written)

    async def watch_for_late(self) -> None:
        """Bring what came late into Qlib soon, not only with the next day."""
        while await self.service.pause(self.settings.patch_every or _SCAN_SECONDS):
            try:
                async with self._one_at_a_time:
                    found = await asyncio.to_thread(
                        late_days,
                        self.settings.data_dir,
                        self.settings.qlib_dir,
                        self.settings.recipe,
                        latest=self._latest(),
                        pending=self._memory.pending_in(self.settings.data_dir),
                    )
            except (OSError, ValueError) as error:
                self.service.health.problem("late", f"cannot scan for late rows: {error}")
                continue
            if found is not None and found.unreadable:
                self.service.health.problem("late", unreadable_sentence(found.unreadable))
            else:
                self.service.health.resolve("late")
            if found is None:
                continue
            self._history.note(found.before, time.monotonic())
            if found.before and await self._is_history_due():
                await self._take_in_history(found)
            elif found.patches and self.settings.patch_every:
                log.info("late rows", symbol_days=found.patches)
                metrics.LATE.inc(found.patches)
                await self._convert(found.end)

    async def _is_history_due(self) -> bool:
        beat = await self.service.until_bus_answers(lambda: self.service.bus.heartbeat("collector"))
        complete = beat is not None and bool(beat.details.get("history_complete"))
        if self._history.is_due(complete, time.monotonic()):
            return True
        self._report_left_out(self._history.symbol_days)
        return False

    async def _take_in_history(self, late: LateDays) -> None:
        """Make a version of the dataset that begins earlier; readers go on with the one that they have."""
        log.info("taking in history from before the first day", symbol_days=late.before)
        self._history.tried = began = time.monotonic()
        await self._convert(late.end, history=True)
        self._history.took_seconds = time.monotonic() - began

    def _report_left_out(self, symbol_days: int, why: str = "") -> None:
        metrics.LEFT_OUT.set(symbol_days)
        if symbol_days:
            self.service.health.problem(
                "origin",
                f"{symbol_days} symbol days of history lie before the calendar's first day; "
                + (f"they cannot be taken in: {why}" if why else "they are taken in once no more of them come"),
            )
        else:
            self.service.health.resolve("origin")

    async def _convert_day(self, midnight: datetime) -> None:
        """Convert up to a midnight once the writer has stored everything before it: the clock alone is no proof.

        Holes that are being healed are waited for a while; what comes later is patched in.
        """
        began = time.monotonic()
        while True:
            mark = (await self.service.until_bus_answers(self.service.bus.watermarks)).get("written_until")
            if mark is not None and mark >= midnight:
                missing = await self._missing_before(midnight)
                if not missing or time.monotonic() - began > _HEALING_PATIENCE_SECONDS:
                    break
                self.service.health.details["waiting"] = (
                    f"for {missing} minutes before {midnight:%Y-%m-%d} to be healed"
                )
                if not await self.service.pause(_POLL_SECONDS):
                    return
                continue
            self.service.health.details["waiting"] = (
                f"for the writer to pass {midnight:%Y-%m-%d %H:%M}; it has stored until {mark or 'nothing yet'}"
            )
            if not await self.service.pause(_POLL_SECONDS):
                return
        self.service.health.details.pop("waiting", None)
        await self._have_rows_merged()
        await self._convert(midnight)

    async def _have_rows_merged(self) -> None:
        """Have the writer, where one runs, put what is stored into the day files.

        Rows that still wait are converted as well; but merged later, their days would count as changed once more.
        """
        bus = self.service.bus
        if await self.service.until_bus_answers(lambda: bus.heartbeat("writer")) is None:
            return
        asked = self.service.until_bus_answers(lambda: have_rows_merged(bus, _MERGE_SECONDS))
        if await self.service.unless_stopped(asked) is False:
            log.warning("the writer has not merged what it stored, converting it all the same")

    async def _missing_before(self, midnight: datetime) -> int:
        """Return how many minutes of the day before the ledger cannot account for yet."""
        day = midnight.date() - timedelta(days=1)
        texts = (await self.service.until_bus_answers(lambda: self.service.bus.ledger([day])))[day]
        try:
            ledgers = from_bus(texts).get(Candle.dataset, {}).values()
        except ValueError as error:  # the collector has the writer publish it again
            log.warning("the ledger on the bus is unreadable, asking again", day=str(day), error=str(error))
            return MINUTES_PER_DAY
        missing = account(((day, ledger) for ledger in ledgers), midnight).missing
        metrics.MISSING.set(missing)
        return missing

    def _latest(self) -> datetime:
        return self.service.clock.latest() + _CLOCK_ROOM

    async def _convert(self, until: datetime, *, history: bool = False) -> None:
        began = time.monotonic()
        folders = self.settings.data_dir, self.settings.qlib_dir
        try:
            async with self._one_at_a_time:
                report = await asyncio.to_thread(
                    convert,
                    *folders,
                    until=until,
                    latest=self._latest(),
                    recipe=self.settings.recipe,
                    history=history,
                    processes=self.settings.processes,
                    memory=self._memory if self.settings.convert_every else None,
                )
        except NothingToConvertError as error:
            log.info("nothing to convert", reason=str(error))
            return
        except (BusyError, OSError, ValueError) as error:
            metrics.CONVERSIONS.labels("failed").inc()
            self.service.health.problem("conversion", _failure(error))
            return
        self.service.health.resolve("conversion")
        self._report(report, time.monotonic() - began)
        await self.service.until_bus_answers(lambda: publish(self.service.bus, report))

    def _report(self, report: ConversionReport, seconds: float) -> None:
        metrics.CONVERSIONS.labels("ok").inc()
        metrics.SECONDS.observe(seconds)
        metrics.DAYS.inc(report.days)
        metrics.CONVERTED_UNTIL.set(report.until.timestamp())
        self.service.health.details["converted_until"] = report.until.isoformat()
        if sentence := report.left_sentence:
            self.service.health.problem("raw", sentence)
        else:
            self.service.health.resolve("raw")
        self._report_left_out(report.left_out, report.why_left_out)
        log_report(report, seconds)


async def serve(settings: ConverterSettings) -> None:
    """Run the converter until it is stopped."""
    async with running("converter", settings, metrics_port=settings.converter_metrics_port) as service:
        try:
            await Converter(service, settings).run()
        except asyncio.CancelledError:
            if not service.stop.is_set():
                raise
