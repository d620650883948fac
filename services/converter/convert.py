"""One conversion: raw days that changed → bins → calendars → instruments → manifest. I/O, in that order."""

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from services.converter.bars import Bars, Minutes, on_grid
from services.converter.calendars import FREQUENCIES, Frequency
from services.converter.changes import (
    Holes,
    Listing,
    Manifest,
    after,
    changed_days,
    dirty_days,
    name_of,
    read_manifest,
    runs_of_days,
    scan,
    write_manifest,
)
from services.converter.fields import Recipe, features
from services.converter.known import PREDICTION_VALID, SETTLEMENT_VALID, Known, Predictions, Settlements
from services.converter.members import members_after_rankings
from services.converter.origin import with_origin
from services.converter.qlib_store import QlibStore, Slice
from services.converter.raw import (
    AllRankings,
    LedgerDay,
    UnreadableError,
    read_candles,
    read_ledger,
    read_predictions,
    read_rankings,
    read_settlements,
)
from services.converter.universe import all_lines, market_lines, spans
from services.converter.validation import check_bars, check_coverage, check_stored
from services.converter.versions import LockedVersions, changing, head_folder
from shared.coverage import mask_to_text
from shared.dataset import Partition, digest_of, signature
from shared.durable import remove_stale_temporaries
from shared.events import Candle
from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start, from_ms, to_ms

log = structlog.get_logger()

Ledger = dict[date, dict[str, LedgerDay]]
Dirty = dict[str, list[date]]
"""Symbol → the days to compute again."""

Progress = Callable[[str, int, int], None]
"""(symbol, symbols done, symbols in all)."""


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


@dataclass(frozen=True)
class _Run:
    """What stays the same during one conversion."""

    data_dir: Path
    store: QlibStore
    listing: Listing
    recipe: Recipe
    origin: datetime
    end: datetime
    ledger: Ledger
    settlements: dict[str, Settlements]
    predictions: dict[str, Predictions]
    rankings: AllRankings

    def known_of(self, symbol: str) -> Known:
        """Return what is known of a symbol beside its candles."""
        return Known(
            self.settlements.get(symbol, Settlements()),
            self.predictions.get(symbol, Predictions()),
            self.rankings.of(symbol),
        )

    def ledger_of(self, day: date, symbol: str) -> LedgerDay:
        """Return what the ledger says of a symbol's day."""
        return self.ledger.get(day, {}).get(symbol, LedgerDay())


def convert(
    data_dir: Path,
    qlib_dir: Path,
    *,
    until: datetime | None,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    rebuild: bool = False,
    progress: Progress = lambda *_: None,
) -> Report:
    """Bring Qlib's folder up to `until` (None: to the newest minute on disk), touching only what changed.

    `rebuild` computes every raw day on disk anew, and lets the calendar begin with the first of them; days of which no
    raw file is left stay as they are. So does another `recipe` than that of the last conversion. A calendar that begins
    earlier is a new version of the dataset: readers of the old one are not disturbed.

    Raises:
        NothingToConvertError: no raw day lies before `until`.
        BusyError: another converter holds the dataset.
        VersionError: a new version is needed, and QLIB_DIR is a mount point.
        ValidationError: what would be published is not what it must be; what is visible stays as it was.

    """
    with changing(qlib_dir) as versions:
        remove_stale_temporaries(versions.head)
        return _convert(data_dir, versions, until=until, recipe=recipe, rebuild=rebuild, progress=progress)


def late_days(data_dir: Path, qlib_dir: Path, recipe: Recipe = Recipe()) -> tuple[datetime, int] | None:  # noqa: B008 - frozen
    """Return up to when Qlib reaches, and how many of its whole symbol days changed on disk since; None before Qlib.

    Rows that were healed, corrected or settled late are why: converting up to the same instant patches them in.
    """
    store = QlibStore(head_folder(qlib_dir))
    calendar = store.calendar(FREQUENCIES[0])
    if calendar is None:
        return None
    origin, end = calendar[0], calendar[0] + calendar[1] * MINUTE
    listing, manifest = scan(data_dir), read_manifest(store.root)
    holes = _holes(data_dir, listing, manifest, recipe)
    dirty = dirty_days(listing, manifest, end, holes, looks_back=recipe.stock_fields)
    whole = [day for days in dirty.values() for day in days if origin <= day_start(day) <= end - DAY]
    return end, len(whole)


def _convert(
    data_dir: Path,
    versions: LockedVersions,
    *,
    until: datetime | None,
    recipe: Recipe,
    rebuild: bool,
    progress: Progress,
) -> Report:
    store = QlibStore(versions.head)
    if not any((store.root / "calendars").glob("*.txt")):
        # A first run that died: without an origin the positions in its bins mean nothing.
        shutil.rmtree(store.root / "features", ignore_errors=True)
    listing = scan(data_dir)
    manifest = _manifest(store.root, recipe, rebuild=rebuild)
    end = _end(data_dir, store, listing, until)
    origin = _origin(store, listing, end, rebuild=rebuild)
    store = with_origin(store, origin, versions.begin)
    holes = _holes(data_dir, listing, manifest, recipe)
    dirty = dirty_days(listing, manifest, end, holes, looks_back=recipe.stock_fields)
    left_out = sum(day_start(day) < origin for days in dirty.values() for day in days)
    dirty = {symbol: [day for day in days if day_start(day) >= origin] for symbol, days in dirty.items()}
    dirty = {symbol: days for symbol, days in dirty.items() if days}
    run = _gather(data_dir, store, listing, recipe=recipe, span=(origin, end), dirty=dirty)
    store.begin()
    bars, unreadable = _convert_symbols(run, dirty, progress)
    check_stored(data_dir, store, {symbol: dirty[symbol] for symbol in dirty if symbol not in unreadable}, origin, end)
    store.commit(origin, end, _markets(data_dir, store, listing, origin, end))
    converted = _converted(listing, unreadable, origin)
    told = {name: mask_to_text(mask) for name, mask in holes.items()}
    write_manifest(store.root, after(converted, end, recipe.name(), {**manifest.holes, **told}))
    versions.publish()
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


def _manifest(root: Path, recipe: Recipe, *, rebuild: bool) -> Manifest:
    """Return what is in Qlib already: nothing, where all is to be computed anew."""
    manifest = read_manifest(root)
    return Manifest() if rebuild or manifest.recipe != recipe.name() else manifest


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
    return min([calendar[0], *raw_days]) if rebuild else calendar[0]


# --- What is known beside the candles


def _ledgers(data_dir: Path, listing: Listing, days: Iterable[date]) -> Ledger:
    """Read the ledger of some days, where there is one."""
    there = {file.day for file in listing.ledger}
    return {day: read_ledger(data_dir, day) for day in days if day in there}


def _holes(data_dir: Path, listing: Listing, manifest: Manifest, recipe: Recipe) -> Holes:
    """Return what the ledgers that changed say of the candle files of their days."""
    if recipe.partial_bars == "keep":
        return {}
    ledger = _ledgers(data_dir, listing, changed_days(listing.ledger, manifest))
    return {
        name_of(file): ledger[file.day].get(file.symbol or "", LedgerDay()).without
        for file in listing.candles
        if file.day in ledger
    }


def _gather(
    data_dir: Path, store: QlibStore, listing: Listing, *, recipe: Recipe, span: tuple[datetime, datetime], dirty: Dirty
) -> _Run:
    """Read everything that the dirty days need beside their candles. span: origin and end."""
    days = {day for found in dirty.values() for day in found}
    if recipe.stock_fields:
        days |= {day - DAY for day in days}
    settled = _before(days, SETTLEMENT_VALID // DAY)
    predicted = _before(days, -(-PREDICTION_VALID // DAY))
    return _Run(
        data_dir,
        store,
        listing,
        recipe,
        origin=span[0],
        end=span[1],
        ledger=_ledgers(data_dir, listing, days),
        settlements=read_settlements(data_dir, sorted(file for file in listing.funding if file.day in settled)),
        predictions=read_predictions(data_dir, sorted(file for file in listing.predictions if file.day in predicted)),
        rankings=read_rankings(data_dir, _rankings_for(listing, days)),
    )


def _before(days: Iterable[date], reach: int) -> set[date]:
    return {day - timedelta(days=back) for day in days for back in range(reach + 1)}


def _rankings_for(listing: Listing, days: set[date]) -> list[Partition]:
    """Return the rankings of some days, and for each of them the last ones before it: they are in force at midnight."""
    files = sorted(listing.rankings)
    chosen = {file for file in files if file.day in days}
    for first, _ in runs_of_days(sorted(days)):
        chosen |= set([file for file in files if file.day < first][-1:])
    return sorted(chosen)


# --- From candles to bins


def _convert_symbols(run: _Run, dirty: Dirty, progress: Progress) -> tuple[int, list[str]]:
    """Convert symbol after symbol; return how many candles were read, and whose files cannot be."""
    bars, unreadable = 0, []
    for done, (symbol, days) in enumerate(dirty.items()):
        progress(symbol, done, len(dirty))
        try:
            bars += _convert_symbol(run, symbol, days)
        except (OSError, UnreadableError) as error:
            log.error("symbol not converted", symbol=symbol, error=str(error))  # noqa: TRY400 - the file is named
            unreadable.append(symbol)
    progress("", len(dirty), len(dirty))
    return bars, unreadable


def _convert_symbol(run: _Run, symbol: str, days: list[date]) -> int:
    """Compute and write some days of a symbol in every frequency; return how many candles they hold."""
    parts = [_minutes(run, symbol, first, length) for first, length in runs_of_days(days)]
    for frequency in FREQUENCIES:
        slices: dict[str, list[Slice]] = {field.name: [] for field in run.recipe.fields}
        for minutes, skipped in parts:
            for name, part in _slices(run, symbol, frequency, minutes, skipped).items():
                slices[name].append(part)
        _write_fields(run.store, symbol, frequency, slices)
    run.store.name_new()
    return sum(int(minutes.present[skipped:].sum()) for minutes, skipped in parts)


def _minutes(run: _Run, symbol: str, first: date, length: int) -> tuple[Minutes, int]:
    """Lay some days on the minute grid; with them the day before, where fields look back on it, and its length."""
    before = Partition(Candle.dataset, first - DAY, symbol)
    back = 1 if run.recipe.stock_fields and before in run.listing.candles else 0
    days = [first + timedelta(days=ahead) for ahead in range(-back, length)]
    candles = read_candles(run.data_dir, [Partition(Candle.dataset, day, symbol) for day in days], run.end)
    absent = [0 if run.recipe.partial_bars == "keep" else run.ledger_of(day, symbol).without for day in days]
    minutes = on_grid(candles.opens, candles.columns, to_ms(day_start(days[0])), absent, run.known_of(symbol))
    _check_against_ledger(run, symbol, days, minutes)
    return minutes, back * MINUTES_PER_DAY


def _slices(run: _Run, symbol: str, frequency: Frequency, minutes: Minutes, skipped: int) -> dict[str, Slice]:
    """Compute the bars of one frequency, as far as they are over."""
    begin = from_ms(minutes.begin_ms)
    values = features(Bars(minutes, frequency, run.recipe.partial_bars), run.recipe.fields)
    check_bars(symbol, frequency, begin, values)
    over, back = frequency.bars_until(begin, run.end), skipped // frequency.minutes
    position = frequency.position(run.origin, begin)
    return {name: Slice(position + back, field[back:over]) for name, field in values.items()}


def _write_fields(store: QlibStore, symbol: str, frequency: Frequency, slices: dict[str, list[Slice]]) -> None:
    """Write the fields of one frequency: each bin begins and ends with a bar of which something is known."""
    extent = store.extent(symbol, "close", frequency)
    ends = [extent] if extent else []
    for part in slices["funding_paid"]:  # the field that every bar has which has any
        bars = np.flatnonzero(~np.isnan(part.values))
        if len(bars):
            ends.append((part.position + int(bars[0]), part.position + int(bars[-1]) + 1))
    if not ends:
        return
    span = min(first for first, _ in ends), max(end for _, end in ends)
    for name, parts in slices.items():
        clipped = [clip for part in parts if (clip := _clip(part, *span)) is not None]
        if clipped:
            store.write(symbol, name, frequency, clipped, span)


def _clip(part: Slice, first: int, end: int) -> Slice | None:
    begin, stop = max(part.position, first), min(part.end, end)
    return Slice(begin, part.values[begin - part.position : stop - part.position]) if begin < stop else None


def _check_against_ledger(run: _Run, symbol: str, days: list[date], minutes: Minutes) -> None:
    """Hold what was read of each day against what the ledger says is stored. Raises `ValidationError`."""
    for number, day in enumerate(days):
        said = run.ledger_of(day, symbol)
        file = Partition(Candle.dataset, day, symbol)
        if not said.version or said.version != run.listing.candles.get(file):
            continue  # the ledger speaks of another version of the file
        check_coverage(
            file,
            stored=said.stored,
            present=minutes.present[number * MINUTES_PER_DAY : (number + 1) * MINUTES_PER_DAY],
            over=(run.end - day_start(day)) // MINUTE,
            is_still=partial(_has_signature, file.path(run.data_dir), said.version),
        )


def _has_signature(path: Path, version: str) -> bool:
    return signature(path.stat()) == version


# --- What is published beside the bins


def _markets(data_dir: Path, store: QlibStore, listing: Listing, origin: datetime, end: datetime) -> dict[str, str]:
    """Return the instruments files: all symbols, those margined in USDT, and who was in the universe when."""
    symbols = store.day_spans(FREQUENCIES[0], origin, end)
    return {
        "all": all_lines(symbols),
        "usdt": all_lines({symbol: span for symbol, span in symbols.items() if symbol.endswith("_USDT")}),
        "top50": market_lines(spans(members_after_rankings(store.root, data_dir, listing.rankings))),
    }


def _converted(listing: Listing, unreadable: list[str], origin: datetime) -> Listing:
    """Return the files that are in Qlib now: not those of a damaged symbol, nor those from before the origin."""
    candles = {
        file: version
        for file, version in listing.candles.items()
        if file.symbol not in unreadable and day_start(file.day) >= origin
    }
    return replace(listing, candles=candles)


def _digests(listing: Listing, end: datetime) -> dict[str, str]:
    by_day: dict[tuple[str, date], dict[Partition, str]] = {}
    for file, version in (listing.candles | listing.predictions).items():
        if day_start(file.day) + DAY <= end:
            by_day.setdefault((file.dataset, file.day), {})[file] = version
    return {f"{dataset}/{day}": digest_of(versions) for (dataset, day), versions in by_day.items()}
