"""May it be published? Bars are checked for sanity, raw days against the ledger, bins against both.

It fails closed: one value that cannot be, and the calendar stays where it was, with the reason.
"""

import random
from collections.abc import Callable, Container, Mapping
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from services.converter.features.bars import Bools
from services.converter.features.fields import COLUMNS
from services.converter.qlib.frequencies import FREQUENCIES, Frequency, calendar_lines
from services.converter.qlib.store import QlibStore
from services.converter.raw.days import Candles, read_candles
from services.converter.stages.run import Build
from shared.datasets.candle import Candle
from shared.grid import MINUTES_PER_DAY, from_ms
from shared.ledger.minutes import mask_to_text
from shared.storage.layout import Partition
from shared.storage.segments import RawRows

Values = NDArray[np.float32]

_SPOT_CHECKS = 5
"""Symbols of which a minute is read back in each conversion: enough to see a layout that went wrong, too few to
cost."""
_AMOUNTS = ("volume", "amount", "contracts")


class ValidationError(ValueError):
    """What would be published is not what it must be; the text says what, where."""


# --- Bars


def check_bars(symbol: str, frequency: Frequency, begin: datetime, values: Mapping[str, Values]) -> None:
    """Check that bars can be: finite, low <= open, close <= high, nothing negative traded. Pure.

    begin: the open of the first bar. Raises `ValidationError`, naming the first bar that cannot be.
    """
    low, high = values["low"], values["high"]
    troubles: dict[str, Bools] = {
        "high is below low": high < low,
        **{f"{name} is above high": values[name] > high for name in ("open", "close")},
        **{f"{name} is below low": values[name] < low for name in ("open", "close")},
        **{f"{name} is negative": values[name] < 0 for name in _AMOUNTS},
        **{f"{name} is infinite": np.isinf(field) for name, field in values.items()},
        "coverage is above 1": values["coverage"] > 1,
    }
    for what, where in troubles.items():
        if where.any():
            bar = int(where.argmax())
            row = ", ".join(f"{name} {field[bar]:g}" for name, field in values.items())
            raise ValidationError(f"{symbol}, {frequency.name} bar {begin + bar * frequency.step}: {what}: {row}")


# --- Raw days


def check_coverage(file: Partition, *, stored: int, present: Bools, over: int, is_still: Callable[[], bool]) -> None:
    """Check that the minutes read from a candle file are those that the ledger counts as stored.

    stored: mask of minutes. present: one value per minute of the day. over: minutes of the day that are converted.
    is_still: returns whether the file is the version of the ledger's record; called only if they differ, since the file
    may have been replaced while it was read.
    """
    expected = stored & ((1 << max(0, min(over, MINUTES_PER_DAY))) - 1)
    read = int.from_bytes(np.packbits(present, bitorder="little").tobytes(), "little")
    if read != expected and is_still():
        lacking, surplus = expected & ~read, read & ~expected
        raise ValidationError(
            f"{file.symbol} {file.day}: the ledger and the candle file differ: minutes "
            f"{mask_to_text(lacking) or 'none'} lack in the file, {mask_to_text(surplus) or 'none'} in the ledger"
        )


# --- Bins


def check_stored(
    build: Build, store: QlibStore, rows: RawRows, dirty: Mapping[str, list[date]], *, trusted: Container[str] = ()
) -> None:
    """Check what was written before the calendars show it: calendars, lengths, and some values against the raw files.

    dirty: symbol → the days that were written. trusted: symbols whose lengths are known to be equal. Raises
    `ValidationError`.
    """
    origin, end = build.span
    for frequency in FREQUENCIES:
        _check_calendar(store, frequency, origin)
    for symbol in (symbol for symbol in dirty if symbol not in trusted):
        _check_lengths(store, symbol, [field.name for field in build.recipe.fields])
    dice = random.Random(end.isoformat())
    for symbol in dice.sample(sorted(dirty), min(_SPOT_CHECKS, len(dirty))):
        file = Partition(Candle.dataset, dice.choice(dirty[symbol]), symbol)
        candles = read_candles(rows, [file], end)
        if len(candles.opens):
            _check_minute(store, file, candles, origin, dice.randrange(len(candles.opens)))


def _check_calendar(store: QlibStore, frequency: Frequency, origin: datetime) -> None:
    """Hold the ends of a calendar against the arithmetic grid; its length is that of its labels."""
    known = store.calendar(frequency)
    if known is None:
        return
    first, bars = known
    last = store.last_label(frequency)
    expected = calendar_lines(frequency, origin, bars - 1, 1).strip()
    if first != origin or last != expected:
        raise ValidationError(
            f"the {frequency.name} calendar goes from {first} to {last}; on the grid from {origin} on, "
            f"its bar no. {bars} would be {expected}"
        )


def _check_lengths(store: QlibStore, symbol: str, names: list[str]) -> None:
    for frequency in FREQUENCIES:
        extents = {name: extent for name in names if (extent := store.extent(symbol, name, frequency)) is not None}
        if len(set(extents.values())) > 1:
            held = ", ".join(f"{name} {first} to {end}" for name, (first, end) in sorted(extents.items()))
            raise ValidationError(f"{symbol}, {frequency.name}: bins of unequal extent: {held}")


def _check_minute(store: QlibStore, file: Partition, candles: Candles, origin: datetime, row: int) -> None:
    """Hold one minute of a raw file against the bins."""
    opened = from_ms(int(candles.opens[row]))
    position = FREQUENCIES[0].position(origin, opened)
    for name in COLUMNS:
        raw = np.float32(candles.columns[name][row])
        read = store.value(file.symbol or "", name, FREQUENCIES[0], position)
        if read != raw and not (np.isnan(raw) and np.isnan(read)):
            raise ValidationError(f"{file.symbol} {opened}: {name} is {raw} in the candle file and {read} in the bin")
