"""One conversion: raw days that changed → bins → calendars → instruments → manifest. I/O, in that order."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import structlog

from services.converter.calendars import FREQUENCIES, Frequency
from services.converter.changes import (
    Listing,
    Manifest,
    after,
    dirty_days,
    read_manifest,
    runs_of_days,
    scan,
    write_manifest,
)
from services.converter.features import FIELDS, FUNDING_VALID, Settlements, features, minute_grid
from services.converter.origin import finish_shift, shift_origin
from services.converter.qlib_store import QlibStore, Slice, trimmed
from services.converter.raw import UnreadableError, read_candles, read_rankings, read_settlements
from services.converter.universe import all_lines, market_lines, spans
from shared.dataset import Partition, digest_of
from shared.durable import exclusive, remove_stale_temporaries
from shared.events import Candle
from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start, from_ms, to_ms

log = structlog.get_logger()


@dataclass(frozen=True)
class _Run:
    """What stays the same during one conversion."""

    data_dir: Path
    store: QlibStore
    origin: datetime
    end: datetime


Progress = Callable[[str, int, int], None]
"""(symbol, symbols done, symbols in all)."""

_NO_SETTLEMENTS = Settlements(np.array([], np.int64), np.array([], np.float64))


class NothingToConvertError(Exception):
    """There is no raw day before the instant asked for."""


@dataclass(frozen=True)
class Report:
    """What a conversion did."""

    origin: datetime
    until: datetime
    symbols: int
    days: int
    bars: int
    """Candles of one minute that were read."""
    left_out: int
    """Raw days before the calendar's origin, which only a rebuild takes in."""
    unreadable: tuple[str, ...]
    digests: dict[str, str]
    """What the writer needs to know before it retires a day: "kline_1m/2025-04-05" → the version that is in Qlib."""


def convert(
    data_dir: Path,
    qlib_dir: Path,
    *,
    until: datetime | None,
    rebuild: bool = False,
    progress: Progress = lambda *_: None,
) -> Report:
    """Bring Qlib's folder up to `until` (None: to the newest minute on disk), touching only what changed.

    `rebuild` computes every raw day on disk anew, and lets the calendar begin with the first of them; days of which no
    raw file is left stay as they are.

    Raises:
        NothingToConvertError: no raw day lies before `until`.
        BusyError: another converter holds the folder.

    """
    with exclusive(qlib_dir / ".converter" / "lock", f"another converter is at work on {qlib_dir}"):
        finish_shift(qlib_dir)
        remove_stale_temporaries(qlib_dir)
        return _convert(data_dir, QlibStore(qlib_dir), until=until, rebuild=rebuild, progress=progress)


def late_days(data_dir: Path, qlib_dir: Path) -> tuple[datetime, int] | None:
    """Return up to when Qlib reaches, and how many of its whole symbol days changed on disk since; None before Qlib.

    Rows that were healed, corrected or settled late are why: converting up to the same instant patches them in.
    """
    calendar = QlibStore(qlib_dir).calendar(FREQUENCIES[0])
    if calendar is None:
        return None
    origin, end = calendar[0], calendar[0] + calendar[1] * MINUTE
    dirty = dirty_days(scan(data_dir), read_manifest(qlib_dir), end)
    whole = [day for days in dirty.values() for day in days if origin <= day_start(day) <= end - DAY]
    return end, len(whole)


def _convert(data_dir: Path, store: QlibStore, *, until: datetime | None, rebuild: bool, progress: Progress) -> Report:
    if not any((store.root / "calendars").glob("*.txt")):
        # A first run that died: without an origin the positions in its bins mean nothing.
        shutil.rmtree(store.root / "features", ignore_errors=True)
    listing = scan(data_dir)
    manifest = Manifest() if rebuild else read_manifest(store.root)
    end = _end(data_dir, store, listing, until)
    origin = _origin(store, listing, end, rebuild=rebuild)
    dirty = dirty_days(listing, manifest, end)
    left_out = sum(day_start(day) < origin for days in dirty.values() for day in days)
    dirty = {symbol: [day for day in days if day_start(day) >= origin] for symbol, days in dirty.items()}
    dirty = {symbol: days for symbol, days in dirty.items() if days}
    run = _Run(data_dir, store, origin, end)
    settlements = _settlements(data_dir, listing, dirty)
    bars, unreadable = 0, []
    for done, (symbol, days) in enumerate(dirty.items()):
        progress(symbol, done, len(dirty))
        try:
            bars += _convert_symbol(run, symbol, days, settlements.get(symbol, _NO_SETTLEMENTS))
        except (OSError, ValueError) as error:
            log.error("symbol not converted", symbol=symbol, error=str(error))  # noqa: TRY400 - the file is named
            unreadable.append(symbol)
    progress("", len(dirty), len(dirty))
    store.commit(origin, end, _markets(data_dir, store, listing, origin, end))
    converted = _converted(listing, unreadable, origin)
    write_manifest(store.root, after(converted, end))
    return Report(
        origin=origin,
        until=end,
        symbols=len(dirty),
        days=sum(len(days) for days in dirty.values()),
        bars=bars,
        left_out=left_out,
        unreadable=tuple(unreadable),
        digests=_digests(converted, end),
    )


def _end(data_dir: Path, store: QlibStore, listing: Listing, until: datetime | None) -> datetime:
    """Return the instant up to which minutes are converted; what is visible already stays visible."""
    calendar = store.calendar(FREQUENCIES[0])
    known = calendar[0] + calendar[1] * MINUTE if calendar else None
    if until is None:
        until = _newest_minute(data_dir, listing)
    ends = [end for end in (known, until) if end is not None]
    if not ends or (calendar is None and not any(day_start(file.day) < max(ends) for file in listing.candles)):
        raise NothingToConvertError(f"no raw candle in {data_dir} before {until or 'now'}")
    return max(ends)


def _newest_minute(data_dir: Path, listing: Listing) -> datetime | None:
    """Return the end of the newest minute on disk."""
    if not listing.candles:
        return None
    newest_day = max(file.day for file in listing.candles)
    newest = day_start(newest_day)
    for file in listing.candles:
        if file.day == newest_day:
            with suppress(UnreadableError):  # it is named when its symbol is converted
                opens = read_candles(data_dir, [file], day_start(newest_day) + DAY).opens
                newest = max(newest, from_ms(int(opens.max())) + MINUTE) if len(opens) else newest
    return newest


def _origin(store: QlibStore, listing: Listing, end: datetime, *, rebuild: bool) -> datetime:
    """Return the origin of the grid: as it is, or the first raw day; a rebuild may move it back."""
    raw_days = [day_start(file.day) for file in listing.candles if day_start(file.day) < end]
    calendar = store.calendar(FREQUENCIES[0])
    if calendar is None:
        return min(raw_days)
    if rebuild and raw_days and min(raw_days) < calendar[0]:
        shift_origin(store, calendar[0], min(raw_days))
        return min(raw_days)
    return calendar[0]


def _settlements(data_dir: Path, listing: Listing, dirty: dict[str, list[date]]) -> dict[str, Settlements]:
    days = [day for days in dirty.values() for day in days]
    if not days:
        return {}
    first, last = min(days) - FUNDING_VALID - timedelta(days=1), max(days) + timedelta(days=1)
    return read_settlements(data_dir, [file for file in sorted(listing.funding) if first <= file.day <= last])


def _convert_symbol(run: _Run, symbol: str, days: list[date], settlements: Settlements) -> int:
    """Compute and write some days of a symbol in every frequency; return how many candles they hold."""
    slices: dict[tuple[Frequency, str], list[Slice]] = {}
    count = 0
    for first, length in runs_of_days(days):
        files = [Partition(Candle.dataset, first + timedelta(days=ahead), symbol) for ahead in range(length)]
        candles = read_candles(run.data_dir, files, run.end)
        count += len(candles.opens)
        begin = day_start(first)
        grid = minute_grid(candles.opens, candles.columns, to_ms(begin), length * MINUTES_PER_DAY)
        for frequency in FREQUENCIES:
            over = frequency.bars_until(begin, run.end)
            for name, values in features(grid, frequency, to_ms(begin), settlements).items():
                part = Slice(frequency.position(run.origin, begin), values[:over])
                slices.setdefault((frequency, name), []).append(part)
    for frequency in FREQUENCIES:
        _write_fields(run.store, symbol, frequency, {name: slices[frequency, name] for name in FIELDS})
    return count


def _write_fields(store: QlibStore, symbol: str, frequency: Frequency, fields: dict[str, list[Slice]]) -> None:
    """Write the fields of one frequency, cut to the bars that exist: a bin begins and ends with one."""
    present = [
        (part.position + cut[0], part.position + cut[1]) for part in fields["close"] if (cut := trimmed(part.values))
    ]
    for name, parts in fields.items():
        extent = store.extent(symbol, name, frequency)
        firsts = [first for first, _ in present] + ([extent[0]] if extent else [])
        ends = [end for _, end in present] + ([extent[1]] if extent else [])
        if not firsts:
            continue
        first, end = min(firsts), max(ends)
        clipped = [clip for part in parts if (clip := _clip(part, first, end)) is not None]
        if clipped:
            store.write(symbol, name, frequency, clipped)


def _clip(part: Slice, first: int, end: int) -> Slice | None:
    begin, stop = max(part.position, first), min(part.end, end)
    return Slice(begin, part.values[begin - part.position : stop - part.position]) if begin < stop else None


def _markets(data_dir: Path, store: QlibStore, listing: Listing, origin: datetime, end: datetime) -> dict[str, str]:
    """Return the instruments files: all symbols, and who was in the universe when."""
    minute = FREQUENCIES[0]
    rankings = read_rankings(data_dir, sorted(listing.rankings))
    return {
        "all": all_lines(store.day_spans(minute, origin, end)),
        "top50": market_lines(spans(rankings)),
    }


def _converted(listing: Listing, unreadable: list[str], origin: datetime) -> Listing:
    """Return the files that are in Qlib now: not those of a damaged symbol, nor those from before the origin."""
    candles = {
        file: version
        for file, version in listing.candles.items()
        if file.symbol not in unreadable and day_start(file.day) >= origin
    }
    return Listing(candles, listing.funding, listing.rankings)


def _digests(listing: Listing, end: datetime) -> dict[str, str]:
    by_day: dict[date, dict[Partition, str]] = {}
    for file, version in listing.candles.items():
        if day_start(file.day) + DAY <= end:
            by_day.setdefault(file.day, {})[file] = version
    return {f"{Candle.dataset}/{day}": digest_of(versions) for day, versions in by_day.items()}
