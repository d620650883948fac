"""The converter as a service: converts once a day after midnight, or more often, and patches in what comes late."""

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog

from services.converter import metrics
from services.converter.convert import Late, NothingToConvertError, convert, late_days
from services.converter.qlib_store import CommitError
from services.converter.report import Report, log_report, publish
from services.converter.settings import ConverterSettings
from services.converter.versions import changing, head_folder
from shared.durable import BusyError
from shared.grid import floor_day
from shared.ledger import account, from_text
from shared.schedule import daily_at, every, firings
from shared.service import Service, running, wait_for_clock

log = structlog.get_logger()

_LOOK_AGAIN_SECONDS = 1.0
_HISTORY_PATIENCE_SECONDS = 900.0
"""Longer than a rate limit or a maintenance usually lasts."""
_SETTLED_SECONDS = 60.0
"""How long no history must have come before it is taken in."""
_REBUILD_SECONDS = 600.0
"""Between two conversions of everything."""
_HEALING_PATIENCE_SECONDS = 300.0
"""A lost hour of 50 symbols is healed in seconds; a hole that stays open for longer must not hold the others up."""


class _History(NamedTuple):
    """How many symbol days lie before the calendar's first day, and since when so many."""

    symbol_days: int
    since: float


def is_rebuild_due(complete: bool, unchanged_seconds: float, since_last_seconds: float) -> bool:
    """Return whether history from before the first day is to be taken in now. Pure.

    A rebuild costs as much as all that is there. So it waits until the history is complete and has stopped growing, or
    has not grown for long; and there is a while between two of them.
    """
    patience = _SETTLED_SECONDS if complete else _HISTORY_PATIENCE_SECONDS
    return unchanged_seconds >= patience and since_last_seconds >= _REBUILD_SECONDS


def _failure(error: Exception) -> str:
    """Return what a conversion that failed leaves for readers to see, and why it failed. Pure."""
    if isinstance(error, CommitError):
        return f"conversion failed when it was partly visible: {error}"
    return f"conversion failed, no new bar is visible; late rows of older bars may be: {error}"


def _prune(qlib_dir: Path) -> None:
    with changing(qlib_dir) as versions:
        versions.prune(1)


class Converter:
    """A running converter: when to convert, and up to when."""

    def __init__(self, service: Service, settings: ConverterSettings) -> None:
        self.service = service
        self.settings = settings
        self._one_at_a_time = asyncio.Lock()
        self._history = _History(0, time.monotonic())
        self._rebuilt = float("-inf")

    async def run(self) -> None:
        """Catch up with the last midnight, then convert on schedule until the service is stopped."""
        if not await wait_for_clock(self.service):
            return
        await self._wait_for_history()
        await self._convert_day(floor_day(self.service.clock.now()))
        self.service.health.started = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._daily())
            if self.settings.convert_every:
                group.create_task(self._often())
            if self.settings.patch_every:
                group.create_task(self._patch())

    async def _wait_for_history(self) -> None:
        """Hold the very first conversion back until the history is there: it fixes the calendar's origin.

        History that does not grow for a while will not come soon; then what is there is converted.
        """
        if (head_folder(self.settings.qlib_dir) / "calendars").exists():
            return
        least, since = None, time.monotonic()
        while True:
            beat = await self.service.until_bus_answers(lambda: self.service.bus.heartbeat("collector"))
            if beat is not None and beat.details.get("history_complete"):
                break
            missing = beat.details.get("missing_minutes") if beat else None
            if missing is not None and (least is None or missing < least):
                least, since = missing, time.monotonic()
            if least is not None and time.monotonic() - since > _HISTORY_PATIENCE_SECONDS:
                log.warning("history does not grow, converting what is there", missing_minutes=least)
                break
            reason = "the collector is not there yet" if missing is None else f"{missing:,} minutes of history to go"
            self.service.health.details["waiting"] = f"first conversion waits: {reason}"
            if not await self.service.pause(_LOOK_AGAIN_SECONDS):
                return
        self.service.health.details.pop("waiting", None)

    async def _daily(self) -> None:
        at = self.settings.convert_at
        async for due in firings(daily_at(at.hour, at.minute), self.service):
            await self._convert_day(floor_day(due))

    async def _often(self) -> None:
        async for _ in firings(every(timedelta(seconds=self.settings.convert_every)), self.service):
            marks = await self.service.until_bus_answers(self.service.bus.watermarks)
            written, converted = marks.get("written_until"), marks.get("converted_until")
            if written is not None and (converted is None or written > converted):
                await self._convert(written)

    async def _patch(self) -> None:
        """Bring rows that came late into Qlib soon, not only with the next day."""
        while await self.service.pause(self.settings.patch_every):
            async with self._one_at_a_time:
                found = await asyncio.to_thread(
                    late_days, self.settings.data_dir, self.settings.qlib_dir, self.settings.recipe
                )
            if found is None:
                continue
            if found.before:
                await self._take_in_history(found)
            elif found.patches:
                log.info("late rows", symbol_days=found.patches)
                metrics.LATE.inc(found.patches)
                await self._convert(found.end)

    async def _take_in_history(self, late: Late) -> None:
        """Make another version of the dataset that begins earlier, once the history has stopped growing.

        Readers go on with the version that they have. Of the versions that this leaves behind one is kept.
        """
        beat = await self.service.until_bus_answers(lambda: self.service.bus.heartbeat("collector"))
        complete = beat is not None and bool(beat.details.get("history_complete"))
        now = time.monotonic()
        if late.before != self._history.symbol_days:
            self._history = _History(late.before, now)
        if not is_rebuild_due(complete, now - self._history.since, now - self._rebuilt):
            self.service.health.problem(
                "origin",
                f"{late.before} symbol days of history lie before the calendar's first day; "
                "they are taken in once no more of them come",
            )
            return
        log.info("taking in history from before the first day", symbol_days=late.before)
        self._rebuilt = now
        await self._convert(late.end, rebuild=True)
        try:
            await asyncio.to_thread(_prune, self.settings.qlib_dir)
        except (BusyError, OSError, ValueError) as error:
            log.warning("older versions stay", error=str(error))

    async def _convert_day(self, midnight: datetime) -> None:
        """Convert up to a midnight once the writer has stored everything before it; the clock alone says nothing.

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
                if not await self.service.pause(_LOOK_AGAIN_SECONDS):
                    return
                continue
            self.service.health.details["waiting"] = (
                f"for the writer to pass {midnight:%Y-%m-%d %H:%M}; it has stored until {mark or 'nothing yet'}"
            )
            if not await self.service.pause(_LOOK_AGAIN_SECONDS):
                return
        self.service.health.details.pop("waiting", None)
        await self._convert(midnight)

    async def _missing_before(self, midnight: datetime) -> int:
        """Return how many minutes of the day before the ledger cannot account for yet."""
        day = midnight.date() - timedelta(days=1)
        texts = (await self.service.until_bus_answers(lambda: self.service.bus.ledger([day])))[day]
        missing = account(((day, from_text(text)) for text in texts.values()), midnight).missing
        metrics.MISSING.set(missing)
        return missing

    async def _convert(self, until: datetime, *, rebuild: bool = False) -> None:
        began = time.monotonic()
        folders = self.settings.data_dir, self.settings.qlib_dir
        try:
            async with self._one_at_a_time:
                report = await asyncio.to_thread(
                    convert, *folders, until=until, recipe=self.settings.recipe, rebuild=rebuild
                )
        except NothingToConvertError as error:
            log.info("nothing to convert", reason=str(error))
            return
        except (BusyError, OSError, ValueError) as error:
            metrics.CONVERSIONS.labels("failed").inc()
            self.service.health.problem("conversion", _failure(error))
            return
        self.service.health.solved("conversion")
        self._tell(report, time.monotonic() - began)
        await self.service.until_bus_answers(lambda: publish(self.service.bus, report))

    def _tell(self, report: Report, seconds: float) -> None:
        metrics.CONVERSIONS.labels("ok").inc()
        metrics.SECONDS.observe(seconds)
        metrics.DAYS.inc(report.days)
        metrics.CONVERTED_UNTIL.set(report.until.timestamp())
        metrics.LEFT_OUT.set(report.left_out)
        self.service.health.details["converted_until"] = report.until.isoformat()
        if report.left:
            self.service.health.problem("raw", report.left_sentence)
        else:
            self.service.health.solved("raw")
        if report.left_out:
            self.service.health.problem(
                "origin",
                f"{report.left_out} symbol days of history lie before the calendar's first day "
                f"{report.origin:%Y-%m-%d}; they are taken in once no more of them come",
            )
        else:
            self.service.health.solved("origin")
        log_report(report, seconds)


async def serve(settings: ConverterSettings) -> None:
    """Run the converter until it is stopped."""
    async with running("converter", settings, metrics_port=settings.converter_metrics_port) as service:
        try:
            await Converter(service, settings).run()
        except asyncio.CancelledError:
            if not service.stop.is_set():
                raise
