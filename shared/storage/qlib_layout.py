"""Where does what lie in Qlib's folder, and beside it? Pure.

    qlib_data/calendars/60min.txt, 60min_future.txt     one label a line; the second one lets a backtest reach the end
    qlib_data/instruments/all.txt                       symbol, first, last
    qlib_data/features/btc_usdt/close.60min.bin         values by position
    qlib_data/.converter/                               what the converter remembers; Qlib does not read it
    qlib_data.versions/                                 versions and snapshots of the dataset

Source: Qlib's file storage (`FileFeatureStorage`, `FileCalendarStorage`, `FileInstrumentStorage`). What is in a file:
`services/converter/qlib`.
"""

import re
from pathlib import Path

CALENDARS, INSTRUMENTS, FEATURES = "calendars", "instruments", "features"
PARTS = frozenset({CALENDARS, INSTRUMENTS, FEATURES})
"""The folders that Qlib reads."""

FUTURE = "_future"
"""Ends the name of a calendar that goes beyond the last bar."""
LISTS = "*.txt"
"""Calendars, and instruments files."""

ALL = "all"
"""The market that holds every symbol."""

OWN = Path(".converter")
"""The folder of the converter."""

BIN_NAME = re.compile(r"(?P<field>\w+)\.(?P<frequency>\w+)\.bin")


def calendars_of(root: Path) -> Path:
    """Return the folder of the calendars."""
    return root / CALENDARS


def calendar_path(root: Path, frequency: str, *, future: bool = False) -> Path:
    """Return where the calendar of a frequency lies, or the one that goes beyond it."""
    return root / CALENDARS / f"{frequency}{FUTURE if future else ''}.txt"


def market_path(root: Path, market: str) -> Path:
    """Return where an instruments file lies."""
    return root / INSTRUMENTS / f"{market}.txt"


def features_of(root: Path) -> Path:
    """Return the folder in which each symbol has one."""
    return root / FEATURES


def bin_path(root: Path, folder: str, field: str, frequency: str) -> Path:
    """Return where a field lies. folder: the one of its symbol."""
    return Path(f"{root}/{FEATURES}/{folder}/{field}.{frequency}.bin")  # many times quicker than with /


def bins_of(frequency: str) -> str:
    """Return the pattern of the names of all bins of a frequency."""
    return f"*.{frequency}.bin"


def versions_of(name: Path) -> Path:
    """Return the folder of the versions. name: the path that readers open."""
    return name.with_name(f"{name.name}.versions")
