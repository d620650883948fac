"""Stage four: how does what was computed become visible, whole? Checks, calendars, instruments, manifest, swap. I/O."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from services.converter.lives import lives_of
from services.converter.manifest import Manifest, after, digests, write_manifest
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.qlib.instruments import all_lines, delisted_lines, market_lines, spans
from services.converter.qlib.store import CommitError
from services.converter.raw.membership import Members, members_after_rankings
from services.converter.report import ConversionReport
from services.converter.stages.checks import check_stored
from services.converter.stages.load import Loaded, named
from services.converter.stages.pool import Computed
from services.converter.stages.run import Left, Run
from services.converter.versions.changing import LockedVersions
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.universe import Rank
from shared.storage.qlib_layout import calendars_of
from shared.symbol import suffix_of

log = structlog.get_logger()


def publish(run: Run, loaded: Loaded, computed: Computed, versions: LockedVersions) -> ConversionReport:
    """Check the bins, then let readers see them. versions: the same that the run was planned for.

    Raises:
        ValidationError: what would be published is not what it must be; no new bar is visible.
        CommitError: a part of it is visible; the text says which.
        OSError: something cannot be read or written; no new bar is visible.

    """
    left = {**run.left, **computed.left}
    written = {symbol: [day for day in days if day not in left.get(symbol, {})] for symbol, days in run.dirty.items()}
    raw, definitions = run.changes.raw, run.changes.definitions
    whole = {symbol: days for symbol, days in written.items() if days}
    check_stored(run.build, run.store, raw.rows, whole, trusted=computed.trusted)
    members = _members(run)
    unreadable = loaded.unreadable | named(Rank, members.unreadable)
    unreadable |= named(InstrumentDefinition, definitions.unreadable)
    converted = after(
        raw,
        run.manifest,
        run.changes.holes,
        span=run.build.span,
        recipe=run.build.recipe.name(),
        contracts=run.changes.contracts,
        left=left,
        unreadable=unreadable,
    )
    _commit(run, members, converted, versions)
    for symbol in run.held.keys() - run.dirty.keys():
        run.memory.note(symbol, None, run.held[symbol])
    run.memory.keep(converted)
    return ConversionReport(
        origin=run.build.origin,
        until=run.build.end,
        symbols=len(run.dirty),
        days=sum(map(len, run.dirty.values())),
        bars=computed.candles,
        left_out=run.left_out,
        why_left_out=run.why_left_out,
        left=_reasons(left),
        unreadable_files=(*(unreadable[name] for name in sorted(unreadable)), *raw.unreadable),
        later=_later(run, versions.head),
        digests=digests(converted),
    )


# --- Making it visible


def _members(run: Run) -> Members:
    """Return who was a member after each ranking; what could not be read is tried again by the next run."""
    root, raw, memory = run.store.root, run.changes.raw, run.memory
    members = memory.made("members", raw.version_of(Rank), lambda: members_after_rankings(root, raw))
    if members.unreadable:
        memory.drop("members")
    return members


def _commit(run: Run, members: Members, converted: Manifest, versions: LockedVersions) -> None:
    """Make bins, calendars, instruments and manifest durable, then swap in the version, if it is a new one."""
    is_new = versions.is_building
    with _visibility_named(versions):
        run.store.commit(*run.build.span, _markets(run, members))
        _remember(run, converted)
    _swap_in(versions)
    if is_new and not run.goal.rebuild:
        _prune(versions)


def _markets(run: Run, members: Members) -> dict[str, str]:
    """Return the instruments files: all symbols, those margined in USDT, those gone, who was in a universe when."""
    minutely = FREQUENCIES[0]
    known = {symbol: held.bins[minutely].extents for symbol, held in run.memory.held.items() if not held.damage}
    symbols = run.store.day_spans(minutely, *run.build.span, known)
    lives = {symbol: lives_of(run.changes.definitions.of.get(symbol, ())) for symbol in symbols}
    universes = {
        _universe_of(exchange): market_lines(
            {symbol: found for symbol, found in spans(after).items() if run.store.names.why_not(symbol) is None}
        )
        for exchange, after in members.after.items()
    }
    return {
        "all": all_lines(symbols, lives),
        "usdt": all_lines({symbol: days for symbol, days in symbols.items() if symbol.endswith("_USDT")}, lives),
        "delisted": delisted_lines(symbols, lives, run.build.end),
        **universes,
    }


def _universe_of(exchange: str) -> str:
    """Return the name of the market that holds the universe of an exchange: `top50` for OKX, `binance_top50`."""
    return "_".join(filter(None, [suffix_of(exchange).removeprefix(".").lower(), "top50"]))


@contextmanager
def _visibility_named(versions: LockedVersions) -> Iterator[None]:
    """Turn the error of a partial commit into a plain one where the version is still being made: no reader sees it."""
    try:
        yield
    except CommitError as error:
        if versions.is_building:
            raise OSError(f"a new version cannot be finished, readers stay with the one before: {error}") from error
        raise


def _remember(run: Run, converted: Manifest) -> None:
    if converted == run.memory.manifest:
        return
    try:
        write_manifest(run.store.root, converted)
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


# --- What is reported


def _reasons(left: Left) -> Mapping[str, str]:
    """Return for each symbol why days of it were left out: of several the first reason, and how many more."""
    reasons = {}
    for symbol, days in sorted(left.items()):
        first = days[min(days)]
        reasons[symbol] = first if len(days) == 1 else f"{first}; {len(days)} days in all"
    return reasons


def _later(run: Run, head: Path) -> tuple[str, ...]:
    """Return what is later than the clock allows, in sentences. head: the folder that readers see now."""
    root, end, latest = run.build.data_dir, run.build.end, run.goal.latest
    sentences = [f"{file.path(root)}: of a day that has not begun, left out; move it away" for file in run.later]
    if latest is not None and end > latest:
        sentences.append(
            f"{calendars_of(head)}: the calendars go on until {end:%Y-%m-%d %H:%M}, which is not over "
            "yet; --rebuild makes them end with the data"
        )
    return tuple(sentences)
