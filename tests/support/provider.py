"""Reading a provider folder without the converter's code, as a test's judge."""

import struct
from datetime import datetime
from pathlib import Path


def labels(root: Path, frequency: str) -> list[datetime]:
    """Return the bars of a calendar."""
    lines = (root / "calendars" / f"{frequency}.txt").read_text().splitlines()
    return [datetime.fromisoformat(f"{line}+00:00" if " " in line else f"{line} 00:00:00+00:00") for line in lines]


def values(root: Path, symbol: str, field: str, frequency: str = "1min") -> dict[datetime, float]:
    """Return what a reader sees: bar → value, within the calendar; bars that are NaN are left out."""
    path = root / "features" / symbol.lower() / f"{field}.{frequency}.bin"
    if not path.exists():
        return {}
    raw = path.read_bytes()
    numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
    bars = labels(root, frequency)
    first = int(numbers[0])
    shown = zip(bars[first:], numbers[1:], strict=False)
    return {bar: number for bar, number in shown if number == number}  # noqa: PLR0124 - NaN


def tree(root: Path) -> dict[str, bytes]:
    """Return every file that Qlib may read, with its content."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".converter" not in path.parts
    }
