"""Reads a Qlib provider folder for the judges: calendars, bins and spans, with numpy alone. I/O.

The format is read here from its definition; no code is shared with the converter.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FREQUENCIES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "60min": 60, "240min": 240, "day": 1440}
"""Name of a frequency → minutes a bar."""

Times = NDArray[np.int64]
Values = NDArray[np.float32]


class UnreadableDatasetError(Exception):
    """The folder is no dataset, or a file of it is broken; the text names it."""


@dataclass(frozen=True)
class Bin:
    """One field of one symbol: its values, from the `first` position of the calendar on."""

    first: int
    values: Values

    @property
    def end(self) -> int:
        """Return the position after the last value."""
        return self.first + len(self.values)

    def part(self, first: int, end: int) -> Values:
        """Return the values of the positions [first, end); NaN where there is none."""
        found = np.full(max(0, end - first), np.nan, np.float32)
        begin, stop = max(first, self.first), min(end, self.end)
        if begin < stop:
            found[begin - first : stop - first] = self.values[begin - self.first : stop - self.first]
        return found


NO_BIN = Bin(0, np.zeros(0, np.float32))


def read_calendar(qlib_dir: Path, frequency: str, *, future: bool = False) -> Times:
    """Return the opens of the bars, Unix ms, as they are listed; no file: none. Raises `UnreadableDatasetError`."""
    path = qlib_dir / "calendars" / (f"{frequency}_future.txt" if future else f"{frequency}.txt")
    if not path.exists() and (qlib_dir / "calendars").is_dir():
        return np.zeros(0, np.int64)
    try:
        labels = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableDatasetError(f"{path}: {error}") from error
    if labels.pop() != "":
        raise UnreadableDatasetError(f"{path}: its last line does not end")
    length = len("2025-01-01" if frequency == "day" else "2025-01-01 00:00:00")
    if any(len(label) != length for label in labels):
        raise UnreadableDatasetError(f"{path}: a label is not {length} characters long")
    seconds = np.array([label.replace(" ", "T") for label in labels], dtype="datetime64[s]")
    return seconds.astype(np.int64) * 1000


def read_bin(qlib_dir: Path, symbol: str, field: str, frequency: str) -> Bin | None:
    """Return a bin; None where there is none. Raises `UnreadableDatasetError`."""
    path = bin_path(qlib_dir, symbol, field, frequency)
    if not path.exists():
        return None
    content = path.read_bytes()
    if not content or len(content) % 4:
        raise UnreadableDatasetError(f"{path}: {len(content)} bytes are not a position and float32 values")
    numbers = np.frombuffer(content, "<f4")
    if not numbers[0] >= 0 or numbers[0] != np.floor(numbers[0]):
        raise UnreadableDatasetError(f"{path}: {numbers[0]} is no position in a calendar")
    return Bin(int(numbers[0]), numbers[1:])


def read_values(qlib_dir: Path, symbol: str, field: str, frequency: str, bars: int) -> Values:
    """Return a field over the first `bars` bars of the calendar, NaN where its bin has none.

    Raises `UnreadableDatasetError`.
    """
    return (read_bin(qlib_dir, symbol, field, frequency) or NO_BIN).part(0, bars)


def bin_path(qlib_dir: Path, symbol: str, field: str, frequency: str) -> Path:
    """Return where a field of a symbol lies."""
    return qlib_dir / "features" / _folder(symbol) / f"{field}.{frequency}.bin"


def symbols_of(qlib_dir: Path) -> list[str]:
    """Return the symbols that have a folder of bins, as all.txt spells them; in upper case where it does not."""
    folder = qlib_dir / "features"
    if not folder.exists():
        return []
    published = read_spans(qlib_dir, "all") if (qlib_dir / "instruments" / "all.txt").exists() else {}
    spelled = {_folder(symbol): symbol for symbol in published}
    return sorted(spelled.get(entry.name, entry.name.upper()) for entry in folder.iterdir() if entry.is_dir())


def _folder(symbol: str) -> str:
    """Return where Qlib looks for a symbol: names that Windows cannot have get a prefix."""
    device = re.fullmatch(r"CON|PRN|AUX|NUL|(COM|LPT)[0-9]", symbol.upper())
    return f"_qlib_{symbol}".lower() if device else symbol.lower()


def fields_of(qlib_dir: Path, symbol: str, frequency: str) -> set[str]:
    """Return the fields that a symbol has at a frequency."""
    suffix = f".{frequency}.bin"
    folder = qlib_dir / "features" / _folder(symbol)
    return {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}


def read_spans(qlib_dir: Path, market: str) -> dict[str, list[tuple[int, int]]]:
    """Return a market's spans: symbol → [first, last] instants, both inclusive, Unix ms.

    A date alone stands for its midnight, as it does for Qlib. Raises `UnreadableDatasetError`.
    """
    path = qlib_dir / "instruments" / f"{market}.txt"
    spans: dict[str, list[tuple[int, int]]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            symbol, *instants = line.split("\t")
            first, last = (
                int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) for text in instants
            )
            spans.setdefault(symbol, []).append((first, last))
    except (OSError, ValueError) as error:
        raise UnreadableDatasetError(f"{path}: {error}") from error
    return spans


def inside(spans: list[tuple[int, int]], opens: Times) -> NDArray[np.bool_]:
    """Return for every bar whether it opens in one of the spans."""
    found = np.zeros(len(opens), bool)
    for first, last in spans:
        found |= (opens >= first) & (opens <= last)
    return found
