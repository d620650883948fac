"""Stage three, for one symbol: raw candles → bars → bins. I/O."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from services.converter.features.bars import Bars, Minutes, on_grid
from services.converter.features.difference import Inputs, first_difference
from services.converter.features.fields import features
from services.converter.memory import Written, versions_of
from services.converter.qlib.bins import Bins, Extent, Slice
from services.converter.qlib.damage import HeldBins, Published, lost_bar, obstacle_of, what_helps
from services.converter.qlib.frequencies import FREQUENCIES, Frequency
from services.converter.qlib.store import QlibStore
from services.converter.raw.days import UnreadableError, candles_of, read_candles
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
    written: Written | None = None
    """What the bars of the running day were made of; None where not all of them are written."""
    held: HeldBins | None = None
    """What its bins hold now; None where that has to be looked up."""
    examined: bool = True
    """Whether its bins have to be looked at before they are published."""


def convert_symbol(build: Build, store: QlibStore, work: SymbolDays) -> Converted:
    """Compute and write some days of a symbol in every frequency; of a running day that is remembered, what is new.

    A day that cannot be read, or that cannot be true, is left as it was in the bins; the others are written. Where that
    would lose what is in the bins alone, all of them are left.

    Raises:
        OSError: a bin cannot be written. Some fields may be longer than others now: the calendars must not show it.
        ChangedBinsError: a bin is not what is remembered of it.

    """
    if work.before is not None and work.before.inputs.days[-1:] == tuple(work.days) and not work.held.damage:
        return advance_symbol(build, store, work, work.before)
    left = {day: work.unknown[day] for day in work.days if day in work.unknown}
    computed = _ComputedBars(0, {}, None)
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
    held = _write(store, build, work, computed.slices)
    store.name_new()
    return Converted(computed.candles, left, None if left else computed.written, held)


def advance_symbol(build: Build, store: QlibStore, work: SymbolDays, before: Written) -> Converted:
    """Write what is new of a day whose bars up to `before.end` are there, as they are made of `before.inputs`.

    Raises as `convert_symbol`.
    """
    day, known = work.days[-1], before.inputs
    if day in work.unknown:
        return Converted(0, {day: work.unknown[day]}, held=work.held, examined=False)
    slices: dict[Frequency, dict[str, list[Slice]]] = {}
    try:
        now = _inputs(build, work, list(known.days), before)
        minutes = _laid_out(build, work, now)
        since = first_difference(known, now)
        for frequency in FREQUENCIES:
            first = frequency.bars_until(build.origin, before.end)
            if since is not None:
                first = min(first, frequency.position(build.origin, max(day_start(day), from_ms(max(since, 0)))))
            if first < frequency.bars_until(build.origin, build.end):
                computed = _slices(build, work.symbol, frequency, minutes, (len(now.days) - 1) * MINUTES_PER_DAY)
                slices[frequency] = {name: [_from(part, first)] for name, part in computed.items()}
    except (UnreadableError, ValidationError) as error:
        return Converted(0, {day: str(error)}, held=work.held, examined=False)
    held = _write(store, build, work, slices)
    store.name_new()
    candles = int(minutes.present[-MINUTES_PER_DAY:].sum())
    written = Written(now, versions_of(work.versions, now.days), build.end)
    return Converted(candles, {}, written, held, examined=False)


def _from(part: Slice, first: int) -> Slice:
    """Return a slice without what lies before a position."""
    skipped = max(0, first - part.position)
    return Slice(part.position + skipped, part.values[skipped:])


def _write(
    store: QlibStore, build: Build, work: SymbolDays, slices: Mapping[Frequency, Mapping[str, list[Slice]]]
) -> HeldBins:
    """Write the bars of some frequencies; return what the bins of all of them hold then."""
    bins = {} if work.held.damage else dict(work.held.bins)
    for frequency, parts in slices.items():
        bins[frequency] = Bins(_write_fields(store, build.published, work, frequency, parts), {})
    return HeldBins({frequency: bins.get(frequency, Bins({}, {})) for frequency in FREQUENCIES})


class _ComputedBars(NamedTuple):
    candles: int
    slices: Mapping[Frequency, Mapping[str, list[Slice]]]
    written: Written | None


def _compute(build: Build, work: SymbolDays) -> _ComputedBars:
    """Compute all days, and write nothing. Raises `UnreadableError`, `ValidationError`."""
    candles, written = 0, None
    slices: dict[Frequency, dict[str, list[Slice]]] = {frequency: defaultdict(list) for frequency in FREQUENCIES}
    for first, length in runs_of_days(work.days, _DAYS_AT_ONCE):
        now, skipped = _inputs_of_run(build, work, first, length)
        minutes = _laid_out(build, work, now)
        if now.days[-1] == (build.end - MINUTE).date():
            last = now.since(now.days[-2] if build.recipe.stock_fields and len(now.days) > 1 else now.days[-1])
            written = Written(last, versions_of(work.versions, last.days), build.end)
        candles += int(minutes.present[skipped:].sum())
        for frequency in FREQUENCIES:
            for name, part in _slices(build, work.symbol, frequency, minutes, skipped).items():
                slices[frequency][name].append(part)
    return _ComputedBars(candles, slices, written)


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


def _inputs_of_run(build: Build, work: SymbolDays, first: date, length: int) -> tuple[Inputs, int]:
    """Read some days; with them the day before, where fields look back on it, and return its minutes."""
    back = 1 if build.recipe.stock_fields and first - DAY in work.versions else 0
    days = [first + timedelta(days=ahead) for ahead in range(-back, length)]
    return _inputs(build, work, days), back * MINUTES_PER_DAY


def _inputs(build: Build, work: SymbolDays, days: list[date], before: Written | None = None) -> Inputs:
    """Read what the bars of some days are made of. before: the same days; files that are as they were are not read."""
    absent = [0 if build.recipe.partial_bars == "keep" else work.ledger_of(day).without for day in days]
    known = work.known_on(days[0], days[-1])
    if before is not None and versions_of(work.versions, before.inputs.days) == before.versions:
        return replace(before.inputs, absent=tuple(absent), known=known)
    if before is not None and (grown := _with_appended(work, days, before)) is not None:
        return replace(grown, absent=tuple(absent), known=known)
    files = [Partition(Candle.dataset, day, work.symbol) for day in days]
    candles = read_candles(work.rows, files, day_start(days[-1]) + DAY)
    return Inputs(tuple(days), candles.opens, candles.columns, tuple(absent), known)


def _with_appended(work: SymbolDays, days: list[date], before: Written) -> Inputs | None:
    """Return what was remembered with the candles that were appended since, so that no day file need be read again.

    None where a file has changed, or a minute has come again: which of two rows counts only the whole day says.
    """
    fresh: list[pa.Table] = []
    for day, version in zip(days, before.versions, strict=True):
        was, now = version or "", work.versions.get(day, "")
        if now != was and not now.startswith(f"{was}+"):
            return None
        waiting = work.rows.waiting.get(Partition(Candle.dataset, day, work.symbol), ())
        fresh += waiting[len(waiting) - (now.count("+") - was.count("+")) :]
    added, known = candles_of(fresh), before.inputs
    opens = np.concatenate([known.opens, added.opens])
    if len(np.unique(opens)) != len(opens):
        return None
    order = np.argsort(opens)
    columns = {name: np.concatenate([values, added.columns[name]])[order] for name, values in known.columns.items()}
    return replace(known, opens=opens[order], columns=columns)


def _laid_out(build: Build, work: SymbolDays, inputs: Inputs) -> Minutes:
    """Lay the minutes that are over on the grid. Raises `ValidationError`."""
    over = int(np.searchsorted(inputs.opens, to_ms(build.end)))
    columns = {name: values[:over] for name, values in inputs.columns.items()}
    begin = to_ms(day_start(inputs.days[0]))
    minutes = on_grid(inputs.opens[:over], columns, begin, list(inputs.absent), inputs.known)
    _check_against_ledger(build, work, list(inputs.days), minutes)
    return minutes


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
) -> Mapping[str, Extent]:
    """Write the fields of one frequency: each bin begins and ends with a bar of which something is known.

    Returns what the bins hold then.
    """
    kept = {} if work.held.damage else work.held.bins[frequency].extents
    ends = list(kept.values())
    # Fields of which one or the other is in every bar that has any.
    for part, other in zip(slices["funding_paid"], slices["coverage"], strict=True):
        known = np.flatnonzero(~(np.isnan(part.values) & np.isnan(other.values)))
        if len(known):
            ends.append((part.position + int(known[0]), part.position + int(known[-1]) + 1))
    if not ends:
        return kept
    span = min(first for first, _ in ends), max(end for _, end in ends)
    held = dict(kept)
    for name, parts in slices.items():
        clipped = [clip for part in parts if (clip := _clip(part, *span)) is not None]
        if clipped:
            _write_bin(store, work, published.bars(frequency), (name, frequency), clipped, span=span)
            held[name] = span
    return held


def _write_bin(
    store: QlibStore, work: SymbolDays, shown: int, field: tuple[str, Frequency], slices: list[Slice], *, span: Extent
) -> None:
    name, frequency = field
    extent = None if work.held.damage else work.held.bins[frequency].extents.get(name)
    if work.before is not None and extent is not None and extent[0] <= span[0]:
        store.patch(work.symbol, name, frequency, slices, span, extent=extent)
    else:
        store.write(work.symbol, name, frequency, slices, span, shown=shown, replaces=extent is None)


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
