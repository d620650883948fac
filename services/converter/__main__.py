"""`python -m services.converter`: the service, or one conversion of what is on disk."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.converter.convert import convert
from services.converter.report import PUT_ASIDE, ConversionReport, log_report, publish
from services.converter.settings import ConverterSettings
from services.converter.stages.calendar import NothingToConvertError
from services.converter.stages.pool import Progress as ReportProgress
from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.runtime.command import run
from shared.runtime.log import setup_logging
from shared.runtime.settings import read_settings
from shared.storage.files import BusyError

log = structlog.get_logger()

_CLOCK_ROOM = timedelta(days=1)
"""How far the host's clock may be behind: without Redis and the exchange there is no better one."""


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
                latest=datetime.now(UTC) + _CLOCK_ROOM,
                recipe=settings.recipe,
                rebuild=rebuild,
                history=True,
                every_file=True,
                processes=settings.processes,
                progress=progress,
            )
    except (NothingToConvertError, BusyError, OSError, ValueError) as error:
        log.error("not converted", reason=str(error))  # noqa: TRY400 - the reason says it all
        return 1
    for symbol, reason in report.left.items():
        log.error("days of a symbol not converted", symbol=symbol, reason=reason)
    for reason in report.unreadable_files:
        log.error("file not converted", reason=f"{reason}: {PUT_ASIDE}")
    for reason in report.later:
        log.error("later than the clock allows", reason=reason)
    if report.left_out:
        log.error("history not converted", symbol_days=report.left_out, reason=report.why_left_out)
    log_report(report, time.monotonic() - began)
    asyncio.run(_publish_if_possible(settings, report))
    return 0 if report.is_whole else 1


async def _publish_if_possible(settings: ConverterSettings, report: ConversionReport) -> None:
    bus = Bus(str(settings.redis_url), timeout_seconds=2)
    try:
        await publish(bus, report)
    except BusError as error:
        log.info("Redis does not know of this conversion, it did not answer", error=type(error).__name__)
    finally:
        await bus.close()


@contextmanager
def _progress_bar() -> Iterator[ReportProgress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("converting", total=None)
        yield lambda symbol, done, total: bar.update(task, description=symbol or "done", completed=done, total=total)


def main(
    once: Annotated[bool, typer.Option("--once", help="Convert everything that is on disk, then end")] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Compute every raw day again, then end; days without raw files stay as they are"
        ),
    ] = False,
) -> None:
    """Turn the raw Parquet days into Qlib's format under QLIB_DIR.

    Settings come from the environment and `.env`; see .env.example. --once and --rebuild need neither Redis nor the
    exchange.
    """
    settings = read_settings(ConverterSettings)
    if once or rebuild:
        sys.exit(convert_now(settings, rebuild=rebuild))
    from services.converter.service import serve  # noqa: PLC0415 - with all that speaks to the exchange

    asyncio.run(serve(settings))


if __name__ == "__main__":
    run(main)
