"""What a conversion did, and who is told."""

from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.bus import Bus

log = structlog.get_logger()


@dataclass(frozen=True)
class Report:
    """What a conversion did."""

    origin: datetime
    until: datetime
    symbols: int
    days: int
    bars: int
    """Candles of one minute that were read."""
    left_out: int
    """Raw days before the calendar's origin, which only a rebuild takes in."""
    unreadable: tuple[str, ...]
    digests: dict[str, str]
    """What the writer needs to know before it retires a day: "kline_1m/2025-04-05" → the version that is in Qlib."""


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
