"""Judge: is every value of the dataset what its definition says, and nothing else there? I/O.

Values that are computed without freedom (first, last, greatest, least, states, counts) must be equal in float32. Sums,
and what is made of them, may be one float32 step apart above 1min: added up in another order they end in another bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from proofs.judges.bins import (
    FREQUENCIES,
    NO_BIN,
    Times,
    UnreadableDatasetError,
    fields_of,
    inside,
    read_bin,
    read_calendar,
    read_spans,
    symbols_of,
)
from proofs.judges.recompute import FIELDS, STOCK_FIELDS, Options, Raw, SymbolFacts, facts_of, recompute
from proofs.judges.tally import Judgement, ValueTally, compare
from proofs.units import DAY_MS, MINUTE_MS

SUMS = frozenset({"volume", "amount", "contracts", "vwap", "funding_paid"})
UNIVERSE = "top50"

OnProgress = Callable[[str], None]
"""Called with what was judged last, to show progress."""


def label(milliseconds: int) -> str:
    """Name an instant."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))
    return f"{instant:%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True)
class _Dataset:
    """Where a dataset lies, and how far it reaches."""

    qlib_dir: Path
    origin: int
    until: int
    options: Options

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that it should have."""
        return FIELDS + (STOCK_FIELDS if self.options.stock_fields else ())


def judge_values(raw: Raw, qlib_dir: Path, options: Options, on_progress: OnProgress = lambda _: None) -> Judgement:
    """Compare every value of every field at every frequency with the raw data, up to the end of the calendar.

    Raises `RawError` and `UnreadableDatasetError`.
    """
    found = Judgement()
    calendar = read_calendar(qlib_dir, "1min")
    if not len(calendar):
        raise UnreadableDatasetError(f"{qlib_dir} has no 1min bar")
    dataset = _Dataset(qlib_dir, raw.first_day, int(calendar[-1]) + MINUTE_MS, options)
    _judge_calendars(found, dataset)
    listed = read_spans(qlib_dir, "all")
    for symbol in sorted((set(symbols_of(qlib_dir)) | set(listed)) - set(raw.candle_files)):
        found.problem(f"{symbol} is in the dataset and has no candle")
    for symbol in sorted(raw.candle_files):
        facts = facts_of(raw, symbol, dataset.until, options)
        _judge_span(found, facts, symbol, listed.get(symbol, []))
        for frequency in FREQUENCIES:
            _judge_frequency(found, dataset, facts, symbol, frequency)
        on_progress(symbol)
    _judge_universe(found, raw, dataset)
    return found


def _judge_frequency(found: Judgement, dataset: _Dataset, facts: SymbolFacts, symbol: str, frequency: str) -> None:
    bars = recompute(facts, frequency)
    if strangers := fields_of(dataset.qlib_dir, symbol, frequency) - set(dataset.fields):
        found.problem(f"{symbol} {frequency}: fields that nobody judges: {', '.join(sorted(strangers))}")
    for name in dataset.fields:
        _judge_field(found, dataset, bars, symbol=symbol, frequency=frequency, name=name)


def _judge_field(found: Judgement, dataset: _Dataset, bars: Any, *, symbol: str, frequency: str, name: str) -> None:
    stored = read_bin(dataset.qlib_dir, symbol, name, frequency)
    step = FREQUENCIES[frequency] * MINUTE_MS
    opens: Times = np.zeros(0, np.int64) if bars is None else bars.index.to_numpy(np.int64)
    first = int(opens[0] - dataset.origin) // step if len(opens) else 0
    end = first + len(opens)
    if stored is None and bars is None:
        return
    if stored is None:
        found.problem(f"{symbol} {frequency}: no bin of {name}")
    elif (stored.first, stored.end) != (first, end) or bars is None:
        found.problem(
            f"{symbol} {frequency} {name}: the bin is of the positions [{stored.first}, {stored.end}) "
            f"instead of [{first}, {end})"
        )
    read = stored or NO_BIN
    least, most = (min(first, read.first), max(end, read.end)) if stored else (first, end)
    should = np.full(most - least, np.nan, np.float32)
    if bars is not None:
        should[first - least : end - least] = bars[name].to_numpy(np.float64).astype(np.float32)
    steps = int(name in SUMS and frequency != "1min")

    def place(index: int) -> str:
        return f"{symbol} {name} {label(dataset.origin + (least + index) * step)}"

    found.count(frequency, name, compare(should, read.part(least, most), place, steps=steps))


# --- Calendars and spans


def _judge_calendars(found: Judgement, dataset: _Dataset) -> None:
    """Hold every calendar against the grid from the first raw midnight, without a hole, up to the end of 1min."""
    for frequency, minutes in FREQUENCIES.items():
        step = minutes * MINUTE_MS
        grid = np.arange(dataset.origin, dataset.until - step + 1, step, dtype=np.int64)
        calendar = read_calendar(dataset.qlib_dir, frequency)
        if not np.array_equal(calendar, grid):
            found.problem(
                f"calendar {frequency} is not the grid from {label(dataset.origin)}: {_differs(calendar, grid)}"
            )
        if frequency != "1min" and len(grid):
            future = read_calendar(dataset.qlib_dir, frequency, future=True)
            beyond = dataset.origin + step * np.arange(len(future), dtype=np.int64)
            if len(future) <= len(grid) or not np.array_equal(future, beyond):
                found.problem(f"calendar {frequency}_future does not continue the grid: {_differs(future, beyond)}")
    allowed = {f"{name}.txt" for name in FREQUENCIES} | {f"{name}_future.txt" for name in FREQUENCIES if name != "1min"}
    strangers = {path.name for path in (dataset.qlib_dir / "calendars").glob("*.txt")} - allowed
    if strangers:
        found.problem(f"calendars that break every query: {', '.join(sorted(strangers))}")


def _differs(calendar: Times, grid: Times) -> str:
    if len(calendar) != len(grid):
        return f"{len(calendar)} bars instead of {len(grid)}"
    place = int(np.flatnonzero(calendar != grid)[0])
    return f"bar {place} is {label(int(calendar[place]))} instead of {label(int(grid[place]))}"


def _judge_span(found: Judgement, facts: SymbolFacts, symbol: str, spans: list[tuple[int, int]]) -> None:
    """Hold a symbol's rows in all.txt against its candles: whole days, from its first past its last.

    A row ends, and the next begins, where another instrument of the name does.
    """
    if facts.candles.empty:
        if spans:
            found.problem(f"all.txt: {symbol} has no candle yet")
        return
    first_day, last_day = (int(facts.candles.index[place]) // DAY_MS * DAY_MS for place in (0, -1))
    inner = [birth for birth in facts.births.tolist() if facts.candles.index[0] < birth <= facts.candles.index[-1]]
    begins, ends = [first for first, _ in spans], [last + 1000 for _, last in spans]
    if begins != [first_day, *inner] or ends[:-1] != inner or ends[-1] <= last_day or ends[-1] % DAY_MS != 0:
        rows = ", ".join(f"{label(first)} to {label(last)}" for first, last in spans)
        should = ", ".join(label(begin) for begin in (first_day, *inner))
        found.problem(f"all.txt: {symbol} should have rows that begin at {should}, and has: {rows or 'none'}")


def _judge_universe(found: Judgement, raw: Raw, dataset: _Dataset) -> None:
    """Hold the universe's spans against the rankings, bar by bar: a bar is a member's that was one when it opened."""
    if not len(raw.ranked_times):
        return
    spans = read_spans(dataset.qlib_dir, UNIVERSE)
    for frequency in FREQUENCIES:
        opens = read_calendar(dataset.qlib_dir, frequency)
        ranking = np.searchsorted(raw.ranked_times, opens, side="right") - 1
        for symbol in sorted(set(spans) | set(raw.rankings)):
            should = _member_in(raw, symbol)[ranking] & (ranking >= 0)
            does = inside(spans.get(symbol, []), opens)
            wrong = np.flatnonzero(should != does)
            if len(wrong):
                at = label(int(opens[wrong[0]]))
                found.problem(f"{UNIVERSE}.txt {frequency}: {symbol} is wrong in {len(wrong)} bars, first at {at}")
            members = int(np.count_nonzero(should & does))
            found.count(frequency, UNIVERSE, ValueTally(compared=members, empty=len(opens) - members))


def _member_in(raw: Raw, symbol: str) -> Any:
    """Return for every ranking whether it made the symbol a member."""
    members = np.zeros(len(raw.ranked_times), bool)
    if symbol in raw.rankings:
        places = raw.rankings[symbol]
        members[np.searchsorted(raw.ranked_times, places["ranked_time"].to_numpy(np.int64))] = places["member"]
    return members
