"""What did a conversion do? Its report, published for the other services, and logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.bus.bus import Bus

log = structlog.get_logger()

PUT_ASIDE = "a running writer puts such a file aside, and what can be had again comes back; without one, move it away"
"""What to do about a raw file that cannot be read."""

_MOST_SHOWN = 5
"""Symbols that a sentence names: more of them have the same cause."""


def unreadable_sentence(files: Sequence[str]) -> str:
    """Return a sentence on raw files that cannot be read: which, why, and what to do."""
    more = len(files) - _MOST_SHOWN
    named = "; ".join(files[:_MOST_SHOWN]) + (f"; and {more} more files" if more > 0 else "")
    return f"cannot be read: {named}; {PUT_ASIDE}"


@dataclass(frozen=True)
class ConversionReport:
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
    unreadable_files: tuple[str, ...]
    """Files of all symbols, such as rankings, that cannot be read, each with the reason."""
    later: tuple[str, ...]
    """What is later than the clock allows: raw files that were left out, and the calendar, each in a sentence."""
    digests: dict[str, str]
    """What the writer needs to know before it retires a day: "kline_1m/2025-04-05" → the version that is in Qlib."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The symbols of which days could not be converted."""
        return tuple(sorted(self.left))

    @property
    def is_whole(self) -> bool:
        """Whether every raw file was read and all of it is in Qlib."""
        return not (self.left or self.left_out or self.unreadable_files or self.later)

    @property
    def left_sentence(self) -> str:
        """What could not be converted, for whoever operates the system; empty where all was."""
        shown = [f"{symbol}: {self.left[symbol]}" for symbol in self.unreadable[:_MOST_SHOWN]]
        more = len(self.left) - len(shown)
        parts = [f"not converted: {'; '.join(shown)}" + (f"; and {more} more symbols" if more else "")] if shown else []
        if self.unreadable_files:
            parts.append(unreadable_sentence(self.unreadable_files))
        if self.later:
            more = len(self.later) - _MOST_SHOWN
            parts.append("; ".join(self.later[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else ""))
        return "; ".join(parts)


async def publish(bus: Bus, report: ConversionReport) -> None:
    """Publish which days are in Qlib now: the writer retires by it, the api shows it."""
    await bus.set_converted(report.digests)
    await bus.set_watermarks({"converted_until": report.until})


def log_report(report: ConversionReport, seconds: float) -> None:
    """Log what a conversion did."""
    log.info(
        "converted",
        until=report.until.isoformat(),
        symbols=report.symbols,
        days=report.days,
        candles=report.bars,
        seconds=round(seconds, 2),
    )
