"""Stage three, for one symbol: raw candles → bars → bins. I/O."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.converter.features.bars import Bars, Minutes, on_grid
from services.converter.features.fields import features
from services.converter.qlib.bins import Slice
from services.converter.qlib.damage import Published, lost_bar, obstacle_of, what_helps
from services.converter.qlib.frequencies import FREQUENCIES, Frequency
from services.converter.qlib.store import QlibStore
from services.converter.raw.days import UnreadableError, read_candles
from services.converter.stages.checks import ValidationError, check_bars, check_coverage
from services.converter.stages.dirty import runs_of_days
from services.converter.stages.run import Build, SymbolDays
from shared.datasets.candle import Candle
from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start, from_ms, to_ms
from shared.storage.layout import Partition
from shared.storage.parquet import version_of
from shared.storage.versions import content_in

_DAYS_AT_ONCE = 90
"""Days that are computed together, so that years take no more memory than months."""


class Converted(NamedTuple):
    """What became of the days of a symbol. candles: of those that were written. left: the others, each with why."""

    candles: int
    left: dict[date, str]


def convert_symbol(build: Build, store: QlibStore, work: SymbolDays) -> Converted:
    """Compute and write some days of a symbol in every frequency.

    A day that cannot be read, or that cannot be true, is left as it was in the bins; the others are written. Where that
    would lose what is in the bins alone, all of them are left.

    Raises:
        OSError: a bin cannot be written. Some fields may be longer than others now: the calendars must not show it.

    """
    left = {day: work.unknown[day] for day in work.days if day in work.unknown}
    computed = _ComputedBars(0, {})
    while days := [day for day in work.days if day not in left]:
        versions = {day: version for day, version in work.versions.items() if day not in left}
        whole = replace(work, days=days, versions=versions)
        try:
            computed = _compute(build, whole)
        except (UnreadableError, ValidationError) as error:
            left |= _faults(build, whole) or dict.fromkeys(days, str(error))
        else:
            break
    if refusal := _refusal(build, store, work, computed):
        return Converted(0, dict.fromkeys(work.days, refusal))
    for frequency, slices in computed.slices.items():
        _write_fields(store, build.published, work, frequency, slices)
    store.name_new()
    return Converted(computed.candles, left)


class _ComputedBars(NamedTuple):
    candles: int
    slices: Mapping[Frequency, Mapping[str, list[Slice]]]


def _compute(build: Build, work: SymbolDays) -> _ComputedBars:
    """Compute all days, and write nothing. Raises `UnreadableError`, `ValidationError`."""
    candles = 0
    slices: dict[Frequency, dict[str, list[Slice]]] = {frequency: defaultdict(list) for frequency in FREQUENCIES}
    for first, length in runs_of_days(work.days, _DAYS_AT_ONCE):
        minutes, skipped = _minutes(build, work, first, length)
        candles += int(minutes.present[skipped:].sum())
        for frequency in FREQUENCIES:
            for name, part in _slices(build, work.symbol, frequency, minutes, skipped).items():
                slices[frequency][name].append(part)
    return _ComputedBars(candles, slices)


def _refusal(build: Build, store: QlibStore, work: SymbolDays, computed: _ComputedBars) -> str:
    """Return why nothing of a symbol is to be written; empty where it can be."""
    if obstacle := obstacle_of(store, work.symbol, work.held.bins):
        return obstacle
    for frequency in FREQUENCIES:
        parts = computed.slices[frequency]["coverage"] if computed.slices else []
        lost = lost_bar(store, work.symbol, frequency, build.published, held=work.held, computed=parts)
        if lost is not None:
            return (
                f"{work.held.damage or store.folder(work.symbol)}; the {frequency.name} bar {lost:%Y-%m-%d %H:%M} is "
                f"in no raw day that can be read: {what_helps(store, work.symbol)}"
            )
    return ""


def _faults(build: Build, work: SymbolDays) -> dict[date, str]:
    """Return which of the days cannot be computed, and why: each is tried alone."""
    alone = {day: replace(work, days=[day], versions=_of_day(work, day)) for day in work.days}
    if found := _failing(build, alone):
        return found
    return _failing(build, {day: replace(work, days=[day]) for day in work.days})  # the day before may be the cause


def _failing(build: Build, tried: Mapping[date, SymbolDays]) -> dict[date, str]:
    found = {}
    for day, work in tried.items():
        try:
            _compute(build, work)
        except (UnreadableError, ValidationError) as error:
            found[day] = str(error)
    return found


def _of_day(work: SymbolDays, day: date) -> dict[date, str]:
    return {day: work.versions[day]} if day in work.versions else {}


def _minutes(build: Build, work: SymbolDays, first: date, length: int) -> tuple[Minutes, int]:
    """Lay some days on the minute grid; with them the day before, where fields look back on it, and its length."""
    back = 1 if build.recipe.stock_fields and first - DAY in work.versions else 0
    days = [first + timedelta(days=ahead) for ahead in range(-back, length)]
    candles = read_candles(work.rows, [Partition(Candle.dataset, day, work.symbol) for day in days], build.end)
    absent = [0 if build.recipe.partial_bars == "keep" else work.ledger_of(day).without for day in days]
    minutes = on_grid(
        candles.opens, candles.columns, to_ms(day_start(days[0])), absent, work.known_on(days[0], days[-1])
    )
    _check_against_ledger(build, work, days, minutes)
    return minutes, back * MINUTES_PER_DAY


def _slices(build: Build, symbol: str, frequency: Frequency, minutes: Minutes, skipped: int) -> dict[str, Slice]:
    """Compute the bars of one frequency, as far as they are over."""
    begin = from_ms(minutes.begin_ms)
    values = features(Bars(minutes, frequency, build.recipe.partial_bars), build.recipe.fields)
    check_bars(symbol, frequency, begin, values)
    over, back = frequency.bars_until(begin, build.end), skipped // frequency.minutes
    position = frequency.position(build.origin, begin)
    return {name: Slice(position + back, field[back:over]) for name, field in values.items()}


def _write_fields(
    store: QlibStore,
    published: Published,
    work: SymbolDays,
    frequency: Frequency,
    slices: Mapping[str, list[Slice]],
) -> None:
    """Write the fields of one frequency: each bin begins and ends with a bar of which something is known."""
    kept = {} if work.held.damage else work.held.bins[frequency].extents
    ends = list(kept.values())
    # Fields of which one or the other is in every bar that has any.
    for part, other in zip(slices["funding_paid"], slices["coverage"], strict=True):
        known = np.flatnonzero(~(np.isnan(part.values) & np.isnan(other.values)))
        if len(known):
            ends.append((part.position + int(known[0]), part.position + int(known[-1]) + 1))
    if not ends:
        return
    span = min(first for first, _ in ends), max(end for _, end in ends)
    for name, parts in slices.items():
        clipped = [clip for part in parts if (clip := _clip(part, *span)) is not None]
        if clipped:
            shown = published.bars(frequency)
            store.write(work.symbol, name, frequency, clipped, span, shown=shown, replaces=name not in kept)


def _clip(part: Slice, first: int, end: int) -> Slice | None:
    begin, stop = max(part.position, first), min(part.end, end)
    return Slice(begin, part.values[begin - part.position : stop - part.position]) if begin < stop else None


def _check_against_ledger(build: Build, work: SymbolDays, days: list[date], minutes: Minutes) -> None:
    """Compare what was read of each day with the minutes that the ledger counts as stored. Raises `ValidationError`."""
    for number, day in enumerate(days):
        record = work.ledger_of(day)
        if not record.version or record.version != work.versions.get(day):
            continue  # the record is of another version of the file
        file = Partition(Candle.dataset, day, work.symbol)
        check_coverage(
            file,
            stored=record.stored,
            present=minutes.present[number * MINUTES_PER_DAY : (number + 1) * MINUTES_PER_DAY],
            over=(build.end - day_start(day)) // MINUTE,
            is_still=partial(_has_content, file.path(build.data_dir), record.version),
        )


def _has_content(path: Path, content: str) -> bool:
    return content_in(version_of(path, path.stat())) == content
