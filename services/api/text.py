"""Instants, durations, sizes and lists as a person reads them. Pure."""

from collections.abc import Iterable
from datetime import datetime


def instant(at: datetime) -> str:
    """Return an instant to the minute, in UTC."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """Return a duration in its natural unit: 45 s, 3 min, 5 h, 4 days."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def byte_size(size: float) -> str:
    """Return a number of bytes in its natural unit: 99 B, 12.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def counted(number: int, noun: str) -> str:
    """Return a number of things: 1 minute, 2,000 minutes."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some_of(names: Iterable[str], *, at_most: int = 5) -> str:
    """Name the first few, and count the rest."""
    found = list(names)
    rest = len(found) - at_most
    return ", ".join(found[:at_most]) + (f" and {rest:,} more" if rest > 0 else "")
