"""A provider folder written with numpy, bar by bar: the values in it are exactly those that a test says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

BEGIN = datetime(2026, 1, 1)  # noqa: DTZ001 - Qlib's labels are UTC without a zone
STEPS = {
    "1min": timedelta(minutes=1),
    "60min": timedelta(hours=1),
    "240min": timedelta(hours=4),
    "day": timedelta(days=1),
}

FIELDS = (
    *("open", "high", "low", "close", "volume", "amount", "vwap"),
    *("funding_rate", "funding_predicted", "funding_paid"),
)


def bar(number: int, freq: str = "60min") -> datetime:
    """Return when a bar opens."""
    return BEGIN + number * STEPS[freq]


def f32(values: ArrayLike) -> NDArray[np.float64]:
    """Return values as a bin keeps them."""
    return np.asarray(values, dtype="<f4").astype("float64")


@dataclass
class Symbol:
    """Bars of a symbol from bar number `first` on. What is not given follows from the closes, or is 0."""

    close: Sequence[float]
    first: int = 0
    fields: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Return every field."""
        close = np.asarray(self.close, dtype="float64")
        nothing = np.zeros(len(close))
        given = {name: np.asarray(values, dtype="float64") for name, values in self.fields.items()}
        open_ = given.get("open", np.concatenate([close[:1], close[:-1]]))
        derived = {
            "open": open_,
            "high": np.maximum(open_, close),
            "low": np.minimum(open_, close),
            "close": close,
            "volume": np.full(len(close), 1000.0),
            "amount": 1000 * close,
            "vwap": (open_ + close) / 2,
            "funding_rate": nothing,
            "funding_predicted": nothing * np.nan,
            "funding_paid": nothing,
        }
        return derived | given


def write_delisted(folder: Path, *lives: tuple[str, datetime]) -> None:
    """Write `instruments/delisted.txt`: symbols, and when each was traded last."""
    rows = [f"{symbol}\t{BEGIN:%Y-%m-%d %H:%M:%S}\t{end:%Y-%m-%d %H:%M:%S}\n" for symbol, end in lives]
    (folder / "instruments" / "delisted.txt").write_text("".join(rows))


def cut_provider(folder: Path, freq: str, bars: int) -> None:
    """Make a dataset of one frequency what it was when it had its first bars only."""
    for calendar in (folder / "calendars").glob(f"{freq}*.txt"):
        more = 3 if calendar.stem.endswith("_future") else 0
        calendar.write_text("".join(calendar.read_text().splitlines(keepends=True)[: bars + more]))
    for path in folder.glob(f"features/*/*.{freq}.bin"):
        values = np.fromfile(path, "<f4")
        kept = values[: 1 + max(0, bars - int(values[0]))]
        kept.tofile(path) if len(kept) > 1 else path.unlink()


def write_provider(folder: Path, freq: str, symbols: Mapping[str, Symbol], bars: int, future: int = 3) -> Path:
    """Write one frequency of a dataset (called again: one more) and return the folder."""
    for name in ("calendars", "instruments"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    form = "%Y-%m-%d" if freq == "day" else "%Y-%m-%d %H:%M:%S"
    labels = [f"{bar(number, freq):{form}}\n" for number in range(bars + future)]
    (folder / "calendars" / f"{freq}.txt").write_text("".join(labels[:bars]))
    if future:
        (folder / "calendars" / f"{freq}_future.txt").write_text("".join(labels))
    spans = []
    for name, symbol in symbols.items():
        last = bar(symbol.first + len(symbol.close) - 1, freq)
        spans.append(f"{name}\t{bar(symbol.first, freq):%Y-%m-%d} 00:00:00\t{last:%Y-%m-%d} 23:59:59\n")
        place = folder / "features" / name.lower()
        place.mkdir(parents=True, exist_ok=True)
        for field_name, values in symbol.values().items():
            np.concatenate([[symbol.first], values]).astype("<f4").tofile(place / f"{field_name}.{freq}.bin")
    (folder / "instruments" / "all.txt").write_text("".join(spans))
    return folder
