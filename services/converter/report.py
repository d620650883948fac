"""What a conversion did, and who is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.bus import Bus

log = structlog.get_logger()

_MOST_SHOWN = 5
"""Symbols that a sentence names: more of them have the same cause."""


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
    """Symbol days before the calendar's origin, which only a new version of the dataset takes in."""
    why_left_out: str
    """Why they are not taken in, where that was tried."""
    left: Mapping[str, str]
    """Symbols of which days could not be converted, each with the reason. What Qlib had of those days stays."""
    digests: dict[str, str]
    """What the writer needs to know before it retires a day: "kline_1m/2025-04-05" → the version that is in Qlib."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The symbols of which days could not be converted."""
        return tuple(sorted(self.left))

    @property
    def left_sentence(self) -> str:
        """What could not be converted, for whoever operates the system."""
        shown = [f"{symbol}: {self.left[symbol]}" for symbol in self.unreadable[:_MOST_SHOWN]]
        more = len(self.left) - len(shown)
        return f"not converted: {'; '.join(shown)}" + (f"; and {more} more symbols" if more else "")


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
