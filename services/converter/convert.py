"""One conversion: raw days that changed → bins → calendars → instruments → manifest. I/O, in that order."""

import shutil
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog

from services.converter.checks import check_stored
from services.converter.features.asof import AsOf, Ints, PredictedRates, SettledRates
from services.converter.features.fields import BarRecipe, fields_named
from services.converter.features.symbol import Build, SymbolDays
from services.converter.manifest import (
    NO_FILES,
    VALID_DAYS,
    ContractRecord,
    Holes,
    Listing,
    Manifest,
    after,
    changed_days,
    digests,
    dirty_days,
    read_manifest,
    runs_of_days,
    scan,
    track_of,
    until_latest,
    write_manifest,
)
from services.converter.pool import Outcome, processes_for, symbol_conversion
from services.converter.qlib.damage import HeldBins, Published, held_by, what_helps
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.qlib.instruments import all_lines, delisted_lines, market_lines, spans
from services.converter.qlib.rebase import last_value, with_span
from services.converter.qlib.store import CommitError, QlibStore
from services.converter.raw.days import (
    EVERY,
    Faults,
    LedgerDay,
    Unreadable,
    UnreadableError,
    read_candles,
    read_ledgers,
    read_predictions,
    read_rankings,
    read_settlements,
)
from services.converter.raw.definitions import DefinitionHistory, contract_of, definitions
from services.converter.raw.lives import lives_of
from services.converter.raw.membership import Members, members_after_rankings
from services.converter.report import ConversionReport
from services.converter.versions.versions import LockedVersions, VersionError, changing, head_folder
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow
from shared.datasets.row import Row
from shared.datasets.universe import Rank
from shared.grid import DAY, MINUTE, day_start, from_ms
from shared.storage.files import remove_stale_temporaries
from shared.storage.layout import Partition

log = structlog.get_logger()

Dirty = dict[str, list[date]]
"""Symbol → the days to compute again."""


class LedgerDays(NamedTuple):
    """What the ledger says of some days. unreadable: those whose file cannot be read, and why."""

    of: dict[date, dict[str, LedgerDay]]
    unreadable: Unreadable


Left = dict[str, dict[date, str]]
"""Symbol → the days of it that could not be converted, each with the reason."""

Progress = Callable[[str, int, int], None]
"""(symbol, symbols done, symbols in all)."""


class NothingToConvertError(Exception):
    """There is no raw day before the instant asked for."""


def convert(
    data_dir: Path,
    qlib_dir: Path,
    *,
    until: datetime | None,
    latest: datetime | None = None,
    recipe: BarRecipe = BarRecipe(),  # noqa: B008 - frozen
    rebuild: bool = False,
    history: bool = False,
    every_file: bool = False,
    processes: int = 1,
    progress: Progress = lambda *_: None,
) -> ConversionReport:
    """Bring Qlib's folder up to `until` (None: to the newest minute on disk), touching only what changed.

    `latest` is the latest time that it can be now: raw days after it are left out and named in the report, and no new
    bar is after it. A calendar that goes beyond it already stays as it is, but for a rebuild: that makes a new version,
    which ends with the last bar before it.

    `history` lets the calendar begin with the first raw day on disk. One that begins earlier than before is a new
    version of the dataset: bins are copied to their new positions, and readers of the old version are not disturbed.
    Of the versions that this leaves behind one is kept. Where another one cannot be made, those days are left out.

    `rebuild` does so, too, and computes every raw day on disk again; days of which no raw file is left stay as they
    are. Another `recipe` than that of the last conversion computes every raw day again. `every_file`: see
    `scan`. `processes`: among how many the symbols are shared out at most, where there is enough to do.

    Raises:
        NothingToConvertError: no raw day lies before `until`.
        BusyError: another converter holds the dataset.
        VersionError: a rebuild needs a new version, and there is no room for one, or QLIB_DIR is a mount point.
        ValidationError: what would be published is not what it must be; no new bar is visible.
        ProcessDiedError: one of several processes was killed; no new bar is visible.
        CommitError: a part of it is visible; the text says which.
        OSError: something cannot be read or written; no new bar is visible.

    """
    with changing(qlib_dir) as versions:
        remove_stale_temporaries(versions.head)
        return _convert(
            data_dir,
            versions,
            until=until,
            latest=latest,
            recipe=recipe,
            rebuild=rebuild,
            history=history or rebuild,
            every_file=every_file,
            processes=processes,
            progress=progress,
        )


class LateDays(NamedTuple):
    """What has come since the last conversion, of days before its end."""

    end: datetime
    """Up to when Qlib reaches."""
    patches: int
    """Whole symbol days in Qlib that changed on disk."""
    before: int
    """Symbol days on disk before the calendar's origin: only another version of the dataset takes them in."""
    unreadable: tuple[str, ...] = ()
    """Files that keep from seeing more of them, each with the reason."""


def late_days(
    data_dir: Path,
    qlib_dir: Path,
    recipe: BarRecipe = BarRecipe(),  # noqa: B008 - frozen
    *,
    latest: datetime | None = None,
) -> LateDays | None:
    """Return what has changed on disk of the days that Qlib has, or should have; None before Qlib.

    Rows that were healed, corrected or settled late are why: converting up to the same instant patches them in.
    """
    store = QlibStore(head_folder(qlib_dir))
    span = store.span()
    if span is None:
        return None
    origin, end = span
    manifest = read_manifest(store.root)
    store.converted = _converted(manifest)
    listing, _ = until_latest(scan(data_dir, manifest), latest)
    changed = _changed_ledger(data_dir, listing, manifest, recipe)
    defined = definitions(store.root, data_dir, listing.of(InstrumentDefinition), keep=False)
    holes, tracks = _holes(listing, changed), _tracks(defined)
    dirty = dirty_days(listing, manifest, end, holes, tracks, looks_back=recipe.stock_fields)
    late = [day for symbol in store.names.possible(dirty) for day in dirty[symbol] if day_start(day) <= end - DAY]
    before = sum(day_start(day) < origin for day in late)
    return LateDays(end, len(late) - before, before, (*changed.unreadable.values(), *defined.unreadable.values()))


def _convert(
    data_dir: Path,
    versions: LockedVersions,
    *,
    until: datetime | None,
    latest: datetime | None,
    recipe: BarRecipe,
    rebuild: bool,
    history: bool,
    every_file: bool,
    processes: int,
    progress: Progress,
) -> ConversionReport:
    known = read_manifest(versions.head)
    store = QlibStore(versions.head, converted=_converted(known))
    if not any((store.root / "calendars").glob("*.txt")):
        # A first run that died: without an origin the positions in its bins mean nothing.
        shutil.rmtree(store.root / "features", ignore_errors=True)
    before = store.span(), store.unfinished, fields_named(known.recipe)
    manifest = Manifest() if rebuild or known.recipe != recipe.name() else known
    listing, later = until_latest(scan(data_dir, manifest, every_file=every_file), latest)
    end = _end(data_dir, store, listing, until, latest, shortens=rebuild)
    origin = _origin(data_dir, store, listing, end, history=history)
    why_left_out = ""
    try:
        store = with_span(store, (origin, end), versions.begin)
    except (VersionError, OSError) as error:
        if rebuild:
            raise
        versions.abandon()  # new days need no other version
        store, why_left_out = QlibStore(versions.head, converted=store.converted), str(error)
        origin = _origin(data_dir, store, listing, end, history=False)
    published = _published((origin, end), recipe, *before)
    changed = _changed_ledger(data_dir, listing, manifest, recipe)
    holes = _holes(listing, changed)
    defined = definitions(store.root, data_dir, listing.of(InstrumentDefinition))
    tracks = _tracks(defined)
    dirty = dirty_days(listing, manifest, end, holes, tracks, looks_back=recipe.stock_fields)
    left_out = sum(day_start(day) < origin for symbol in store.names.possible(dirty) for day in dirty[symbol])
    dirty = {name: kept for name, days in dirty.items() if (kept := [day for day in days if day_start(day) >= origin])}
    held = _held(store, recipe, published, dirty)
    damaged = {symbol: one.damage for symbol, one in held.items() if one.damage}
    dirty |= _raw_days(listing, damaged, (origin, end))
    # Of two that Qlib cannot tell apart the one that was there first stays, in a rebuild, too.
    refused = store.names.admit(sorted(dirty, key=lambda symbol: (dirty[symbol][0], symbol)))
    left: Left = {symbol: dict.fromkeys(dirty.pop(symbol), reason) for symbol, reason in refused.items()}
    left |= {
        symbol: {origin.date(): f"{damage}; there is no raw day of it: {what_helps(store, symbol)}"}
        for symbol, damage in damaged.items()
        if symbol not in dirty and symbol not in refused
    }
    with symbol_conversion(
        Build(data_dir, recipe, origin, end, published),
        store,
        lock=versions.lock_descriptor,
        processes=processes_for(dirty, processes),
    ) as convert_symbols:
        work, unreadable = _gather(data_dir, listing, recipe, dirty, changed=changed, defined=defined, held=held)
        store.begin()
        bars, faulty = _collect(convert_symbols(work), len(work), progress)
    left |= faulty
    written = {symbol: [day for day in days if day not in left.get(symbol, {})] for symbol, days in dirty.items()}
    check_stored(
        data_dir, store, {symbol: days for symbol, days in written.items() if days}, recipe, span=(origin, end)
    )
    members = members_after_rankings(store.root, data_dir, listing.of(Rank))
    markets = _markets(store, members, defined, (origin, end))
    unreadable |= _named(Rank, members.unreadable) | _named(InstrumentDefinition, defined.unreadable)
    converted = after(
        listing,
        manifest,
        holes,
        span=(origin, end),
        recipe=recipe.name(),
        tracks=tracks,
        left=left,
        unreadable=unreadable,
    )
    with _saying_what_is_visible(versions):
        store.commit(origin, end, markets)
        _remember(store, converted)
    is_new = versions.is_building
    _swap_in(versions)
    if is_new and not rebuild:
        _prune(versions)
    return ConversionReport(
        origin=origin,
        until=end,
        symbols=len(dirty),
        days=sum(len(days) for days in dirty.values()),
        bars=bars,
        left_out=left_out,
        why_left_out=why_left_out,
        left=_why(left),
        unreadable_files=tuple(unreadable[name] for name in sorted(unreadable)),
        later=_later(data_dir, later, store, latest),
        digests=digests(converted),
    )


def _converted(manifest: Manifest) -> tuple[str, ...]:
    """Return the symbols of which candle files are in Qlib."""
    days = (files for name, files in manifest.days.items() if name.startswith(f"{Candle.dataset}/"))
    return tuple(sorted({symbol for files in days for symbol in files.versions}))


def _published(
    now: tuple[datetime, datetime],
    recipe: BarRecipe,
    span: tuple[datetime, datetime] | None,
    unfinished: bool,
    fields: frozenset[str],
) -> Published:
    """Return what readers see. Where it is not known which fields that are, it is those of the recipe.

    now, span: [from, until) of the calendar of this conversion, and as it was before.
    """
    names = frozenset(field.name for field in recipe.fields)
    return Published(now[0], min(span[1], now[1]) if span else now[0], names & fields or names, unfinished)


def _held(store: QlibStore, recipe: BarRecipe, published: Published, dirty: Iterable[str]) -> dict[str, HeldBins]:
    """Return what the bins of each symbol hold: of all, since damage is found wherever it is."""
    names = [field.name for field in recipe.fields]
    found = {symbol: held_by(store, symbol, names, published) for symbol in sorted({*store.symbols(), *dirty})}
    for symbol, held in found.items():
        if held.damage:
            log.warning("damaged bins, computing all raw days of the symbol", symbol=symbol, damage=held.damage)
    return found


def _raw_days(listing: Listing, symbols: Collection[str], span: tuple[datetime, datetime]) -> Dirty:
    """Return all days of some symbols of which there is a candle file."""
    found: Dirty = {symbol: [] for symbol in symbols}
    for day, files in listing.of(Candle).items():
        if span[0] <= day_start(day) < span[1]:
            for symbol in found.keys() & files.versions.keys():
                found[symbol].append(day)
    return {symbol: days for symbol, days in found.items() if days}


def _end(
    data_dir: Path,
    store: QlibStore,
    listing: Listing,
    until: datetime | None,
    latest: datetime | None,
    *,
    shortens: bool,
) -> datetime:
    """Return the instant up to which minutes are converted; what is visible already stays visible.

    shortens: but not what is later than `latest`.
    """
    span = store.span()
    known = span[1] if span else None
    if until is None:
        until = _newest_minute(data_dir, listing)
    if latest is not None:
        until = min(until, latest) if until else None
        if shortens and known is not None and known > latest:
            known = last_value(store, latest)
    ends = [end for end in (known, until) if end is not None]
    if not ends or (span is None and not any(day_start(day) < max(ends) for day in listing.of(Candle))):
        raise NothingToConvertError(f"no raw candle in {data_dir} before {until or latest or 'now'}")
    return max(ends)


def _later(data_dir: Path, files: list[Partition], store: QlibStore, latest: datetime | None) -> tuple[str, ...]:
    """Return what is later than the clock allows, in sentences."""
    sentences = [f"{file.path(data_dir)}: of a day that has not begun, left out; move it away" for file in files]
    span = store.span()
    if latest is not None and span is not None and span[1] > latest:
        sentences.append(
            f"{store.root / 'calendars'}: the calendars go on until {span[1]:%Y-%m-%d %H:%M}, which is not over yet; "
            "--rebuild makes them end with the data"
        )
    return tuple(sentences)


def _newest_minute(data_dir: Path, listing: Listing) -> datetime | None:
    """Return the end of the newest minute on disk; a day of which no file can be read holds none."""
    for day in sorted(listing.of(Candle), reverse=True):
        ends = [from_ms(int(opens.max())) + MINUTE for opens in _opens(data_dir, listing, day)]
        if ends:
            return max(ends)
    return None


def _opens(data_dir: Path, listing: Listing, day: date) -> Iterator[Ints]:
    """Yield the opens of the candles of a day, for each file that can be read and has any."""
    for file in listing.partitions(Candle, [day]):
        with suppress(UnreadableError):  # it is named when its symbol is converted
            opens = read_candles(data_dir, [file], day_start(day) + DAY).opens
            if len(opens):
                yield opens


def _origin(data_dir: Path, store: QlibStore, listing: Listing, end: datetime, *, history: bool) -> datetime:
    """Return the origin of the grid: as it is, or the first day with a candle; with `history` it may move back.

    Raises `NothingToConvertError` where there is no grid, and no file can be read.
    """
    span = store.span()
    if span is not None and not history:
        return span[0]
    before = span[0] if span is not None else end
    for day in sorted(listing.of(Candle)):
        if day_start(day) < before and any(True for _ in _opens(data_dir, listing, day)):
            return day_start(day)
    if span is None:
        raise NothingToConvertError(f"no raw candle in {data_dir} before {end} can be read")
    return span[0]


# --- What is known beside the candles


def _ledger(data_dir: Path, listing: Listing, days: set[date]) -> LedgerDays:
    """Read the ledger of some days, where there is one."""
    return LedgerDays(*read_ledgers(data_dir, listing.partitions(LedgerRow, days)))


def _changed_ledger(data_dir: Path, listing: Listing, manifest: Manifest, recipe: BarRecipe) -> LedgerDays:
    """Read the ledgers that changed, where they decide anything."""
    if recipe.partial_bars == "keep":
        return LedgerDays({}, {})
    return _ledger(data_dir, listing, changed_days(listing, LedgerRow, manifest))


def _holes(listing: Listing, changed: LedgerDays) -> Holes:
    """Return what the ledgers that changed say of the candle files of their days."""
    candles = listing.of(Candle)
    return {
        day: {symbol: said.get(symbol, LedgerDay()).without for symbol in candles[day].versions}
        for day, said in changed.of.items()
        if day in candles
    }


def _tracks(defined: DefinitionHistory) -> dict[str, ContractRecord]:
    return {symbol: track_of(contract_of(said)) for symbol, said in defined.of.items()}


def _gather(
    data_dir: Path,
    listing: Listing,
    recipe: BarRecipe,
    dirty: Dirty,
    *,
    changed: LedgerDays,
    defined: DefinitionHistory,
    held: Mapping[str, HeldBins],
) -> tuple[list[SymbolDays], dict[str, str]]:
    """Read everything that the dirty days need beside their candles. changed: the ledgers that have been read.

    held: symbol → what its bins hold.

    Return with it what `_named` returns of the ledgers and rankings that cannot be read.
    """
    days = {day for found in dirty.values() for day in found}
    if recipe.stock_fields:
        days |= {day - DAY for day in days}
    fresh = _ledger(data_dir, listing, days - changed.of.keys() - changed.unreadable.keys())
    ledger, without_ledger = changed.of | fresh.of, changed.unreadable | fresh.unreadable
    settlements, unsettled = read_settlements(data_dir, _still_known(listing, FundingRate, days))
    predictions, unpredicted = read_predictions(data_dir, _still_known(listing, PredictedFundingRate, days))
    rankings, unranked = read_rankings(data_dir, _rankings_for(listing, days))
    unknown: tuple[Faults, ...] = (
        _reaching(FundingRate, unsettled),
        _reaching(PredictedFundingRate, unpredicted),
        {EVERY: _until_next_ranking(listing, unranked, days)},
        {EVERY: _with_next_day(without_ledger) if recipe.stock_fields else without_ledger},
    )
    candles = listing.of(Candle)
    work = [
        SymbolDays(
            symbol,
            found,
            AsOf(
                settlements.get(symbol, SettledRates()),
                predictions.get(symbol, PredictedRates()),
                rankings.of(symbol),
                contract_of(defined.of.get(symbol, ())),
            ),
            ledger={day: ledger[day][symbol] for day in ledger if symbol in ledger[day]},
            versions={day: files[symbol] for day in days if symbol in (files := candles.get(day, NO_FILES).versions)},
            unknown={
                day: why for faults in unknown for name in (EVERY, symbol) for day, why in faults.get(name, {}).items()
            },
            held=held[symbol],
        )
        for symbol, found in dirty.items()
    ]
    return work, _named(Rank, unranked) | _named(LedgerRow, without_ledger)


def _named(kind: type[Row], unreadable: Unreadable) -> dict[str, str]:
    """Return the days of a dataset as the manifest names them, each with the reason."""
    return {f"{kind.dataset}/{day}": why for day, why in unreadable.items()}


def _until_next_ranking(listing: Listing, unranked: Unreadable, days: Collection[date]) -> Unreadable:
    """Return the days on which a ranking that cannot be read may be in force: until the first one of another day."""
    ranked, found = list(listing.of(Rank)), Unreadable()
    for first, why in unranked.items():
        last = min((day for day in ranked if day > first), default=max(days))
        found |= {day: why for day in days if first <= day <= last}
    return found


def _with_next_day(unreadable: Unreadable) -> Unreadable:
    """Return days and those after them, whose bars look back on them."""
    return {day + DAY: why for day, why in unreadable.items()} | unreadable


def _reaching(kind: type[Row], faults: Faults) -> Faults:
    """Return the days of which nothing can be known where a day of a dataset cannot be true."""
    reach = range(VALID_DAYS[kind] + 1)
    return {
        symbol: {day + timedelta(days=ahead): why for day, why in sorted(days.items()) for ahead in reach}
        for symbol, days in faults.items()
    }


def _still_known(listing: Listing, kind: type[Row], days: Iterable[date]) -> list[Partition]:
    """Return the files of some days, and of those before them whose rows may be the last ones known."""
    reach = range(VALID_DAYS[kind] + 1)
    return listing.partitions(kind, {day - timedelta(days=back) for day in days for back in reach})


def _rankings_for(listing: Listing, days: set[date]) -> list[Partition]:
    """Return the rankings of some days, and for each of them the last ones before it: they are in force at midnight."""
    ranked = list(listing.of(Rank))
    chosen = days & set(ranked)
    for first, _ in runs_of_days(sorted(days)):
        chosen |= set(ranked[: bisect_left(ranked, first)][-1:])
    return listing.partitions(Rank, chosen)


def _collect(outcomes: Iterable[Outcome], symbols: int, progress: Progress) -> tuple[int, Left]:
    """Report every symbol that is done; return how many candles were read, and which days could not be converted."""
    candles, left = 0, {}
    progress("", 0, symbols)
    for done, (symbol, found) in enumerate(outcomes, start=1):
        progress(symbol, done, symbols)
        candles += found.candles
        if found.left:
            left[symbol] = found.left
    return candles, left


def _why(left: Left) -> dict[str, str]:
    """Return for each symbol why days of it were left out: of several the first reason, and how many more."""
    reasons = {}
    for symbol, days in sorted(left.items()):
        first = days[min(days)]
        reasons[symbol] = first if len(days) == 1 else f"{first}; {len(days)} days in all"
    return reasons


@contextmanager
def _saying_what_is_visible(versions: LockedVersions) -> Iterator[None]:
    """Of a version that is still being made nothing is visible, whatever becomes of it."""
    try:
        yield
    except CommitError as error:
        if versions.is_building:
            raise OSError(f"a new version cannot be finished, readers stay with the one before: {error}") from error
        raise


def _remember(store: QlibStore, converted: Manifest) -> None:
    try:
        write_manifest(store.root, converted)
    except OSError as error:
        raise CommitError(
            f"everything is new, but what has been converted cannot be remembered ({error.strerror}); "
            "the next conversion converts it again"
        ) from error


def _swap_in(versions: LockedVersions) -> None:
    """Let readers see the version that has been begun, if one has been."""
    before = versions.head
    try:
        versions.publish()
    except OSError as error:
        if versions.head == before:
            raise
        raise CommitError(f"a new version is visible, but a power cut may take it back ({error.strerror})") from error


def _prune(versions: LockedVersions) -> None:
    """Keep one version of those before the head: readers that began earlier are still there."""
    try:
        versions.prune(1)
    except OSError as error:
        log.warning("older versions of the dataset stay", error=str(error))


# --- What is published beside the bins


def _markets(
    store: QlibStore, members: Members, defined: DefinitionHistory, span: tuple[datetime, datetime]
) -> dict[str, str]:
    """Return the instruments files: all symbols, those margined in USDT, those gone, who was in the universe when."""
    symbols = store.day_spans(FREQUENCIES[0], *span)
    lives = {symbol: lives_of(defined.of.get(symbol, ())) for symbol in symbols}
    in_universe = spans(members.after)
    return {
        "all": all_lines(symbols, lives),
        "usdt": all_lines({symbol: days for symbol, days in symbols.items() if symbol.endswith("_USDT")}, lives),
        "delisted": delisted_lines(symbols, lives, span[1]),
        "top50": market_lines(
            {symbol: found for symbol, found in in_universe.items() if store.names.why_not(symbol) is None}
        ),
    }
