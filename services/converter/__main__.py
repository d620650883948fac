"""`python -m services.converter`: converts once a day after midnight, or more often, or once."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.converter import metrics
from services.converter.convert import NothingToConvertError, Report, convert, late_days
from services.converter.convert import Progress as TellProgress
from services.converter.settings import ConverterSettings
from services.converter.versions import head_folder
from shared.bus import Bus, BusError
from shared.command import run
from shared.durable import BusyError
from shared.grid import floor_day
from shared.ledger import account, from_text
from shared.log import setup_logging
from shared.schedule import daily_at, every, firings
from shared.service import Service, running, wait_for_clock
from shared.settings import read_settings

log = structlog.get_logger()

_LOOK_AGAIN_SECONDS = 1.0
_HISTORY_PATIENCE_SECONDS = 900.0
"""Longer than a rate limit or a maintenance usually lasts."""
_HEALING_PATIENCE_SECONDS = 300.0
"""A lost hour of 50 symbols is healed in seconds; a hole that stays open for longer must not hold the others up."""


class Converter:
    """A running converter: when to convert, and up to when."""

    def __init__(self, service: Service, settings: ConverterSettings) -> None:
        self.service = service
        self.settings = settings
        self._one_at_a_time = asyncio.Lock()

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
            if found is not None and found[1]:
                log.info("late rows", symbol_days=found[1])
                metrics.LATE.inc(found[1])
                await self._convert(found[0])

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

    async def _convert(self, until: datetime) -> None:
        began = time.monotonic()
        folders = self.settings.data_dir, self.settings.qlib_dir
        try:
            async with self._one_at_a_time:
                report = await asyncio.to_thread(convert, *folders, until=until, recipe=self.settings.recipe)
        except NothingToConvertError as error:
            log.info("nothing to convert", reason=str(error))
            return
        except (BusyError, OSError, ValueError) as error:
            metrics.CONVERSIONS.labels("failed").inc()
            self.service.health.problem("conversion", f"conversion failed, Qlib stays as it was: {error}")
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
        if report.unreadable:
            self.service.health.problem("raw", f"raw files that cannot be read: {', '.join(report.unreadable)}")
        else:
            self.service.health.solved("raw")
        if report.left_out:
            self.service.health.problem(
                "origin",
                f"{report.left_out} days of history lie before the calendar's first day {report.origin:%Y-%m-%d}; "
                "run the converter with --rebuild to take them in",
            )
        else:
            self.service.health.solved("origin")
        log_report(report, seconds)


async def publish(bus: Bus, report: Report) -> None:
    """Tell the writer and the api what is in Qlib now."""
    await bus.set_converted(report.digests)
    await bus.set_watermarks({"converted_until": report.until})


def log_report(report: Report, seconds: float) -> None:
    """Say what a conversion did."""
    log.info(
        "converted",
        until=report.until.isoformat(),
        symbols=report.symbols,
        days=report.days,
        candles=report.bars,
        seconds=round(seconds, 2),
    )


async def serve(settings: ConverterSettings) -> None:
    """Run the converter until it is stopped."""
    async with running("converter", settings, metrics_port=settings.converter_metrics_port) as service:
        try:
            await Converter(service, settings).run()
        except asyncio.CancelledError:
            if not service.stop.is_set():
                raise


def convert_now(settings: ConverterSettings, *, rebuild: bool) -> int:
    """Convert everything that is on disk, with a progress bar on a terminal; return the exit code."""
    setup_logging("converter", settings.log_level, settings.log_format)
    began = time.monotonic()
    try:
        with _progress_bar() as progress:
            report = convert(
                settings.data_dir,
                settings.qlib_dir,
                until=None,
                recipe=settings.recipe,
                rebuild=rebuild,
                progress=progress,
            )
    except (NothingToConvertError, BusyError, OSError, ValueError) as error:
        log.error("not converted", reason=str(error))  # noqa: TRY400 - the reason says it all
        return 1
    log_report(report, time.monotonic() - began)
    asyncio.run(_publish_if_possible(settings, report))
    return 1 if report.unreadable else 0


async def _publish_if_possible(settings: ConverterSettings, report: Report) -> None:
    bus = Bus(str(settings.redis_url), timeout_seconds=2)
    try:
        await publish(bus, report)
    except BusError as error:
        log.info("Redis does not know of this conversion, it did not answer", error=type(error).__name__)
    finally:
        await bus.close()


@contextmanager
def _progress_bar() -> Iterator[TellProgress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("converting", total=None)
        yield lambda symbol, done, total: bar.update(task, description=symbol or "done", completed=done, total=total)


def main(
    once: Annotated[bool, typer.Option("--once", help="Convert everything that is on disk, then end")] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Compute every raw day anew, then end; days without raw files stay as they are"),
    ] = False,
) -> None:
    """Turn the raw Parquet days into Qlib's format under QLIB_DIR.

    Settings come from the environment and `.env`; see .env.example. --once and --rebuild need neither Redis nor the
    exchange.
    """
    settings = read_settings(ConverterSettings)
    if once or rebuild:
        sys.exit(convert_now(settings, rebuild=rebuild))
    asyncio.run(serve(settings))


if __name__ == "__main__":
    run(main)
