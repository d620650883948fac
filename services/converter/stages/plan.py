"""Stage one: which days of which symbols are computed, from which files, into which folder? I/O."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from services.converter.features.fields import fields_named
from services.converter.manifest import Manifest, read_manifest
from services.converter.memory import Memory
from services.converter.qlib.damage import HeldBins, Published, held_by, what_helps
from services.converter.qlib.store import QlibStore
from services.converter.raw.files import RawFiles, scan, until_latest
from services.converter.stages.calendar import target_of
from services.converter.stages.changes import changes_since
from services.converter.stages.dirty import Dirty
from services.converter.stages.run import Build, Goal, Left, Run
from services.converter.versions.changing import LockedVersions
from shared.datasets.candle import Candle
from shared.grid import day_start
from shared.storage.qlib_layout import LISTS, calendars_of, features_of

log = structlog.get_logger()


def plan(data_dir: Path, versions: LockedVersions, goal: Goal, memory: Memory) -> Run:
    """Decide a conversion. No bar is written, but a new version of the dataset is begun where one is needed.

    memory: of the last conversion, as far as it can be trusted. Raises what `target_of` raises.
    """
    known = memory.manifest or read_manifest(versions.head)
    store = _head(versions.head, known)
    shown, unfinished = store.span(), store.unfinished
    manifest = Manifest() if goal.rebuild or known.recipe != goal.recipe.name() else known
    raw, later = until_latest(
        scan(data_dir, manifest.days, every_file=goal.every_file, pending=memory.pending_in(data_dir)), goal.latest
    )
    store, origin, end, why_left_out = target_of(store, raw, goal, versions)
    published = Published(
        origin, min(shown[1], end) if shown else origin, _common_fields(goal, known.recipe), unfinished
    )
    build = Build(data_dir, goal.recipe, origin, end, published)
    changes = changes_since(manifest, raw, end, goal.recipe, root=store.root, memory=memory)
    left_out = _days_before(origin, changes.dirty, store)
    dirty, held, left = _work(store, raw, build, changes.dirty, memory)
    return Run(
        goal,
        store,
        build,
        manifest,
        changes,
        dirty=dirty,
        held=held,
        left=left,
        left_out=left_out,
        why_left_out=why_left_out,
        later=later,
        memory=memory,
    )


def _head(root: Path, manifest: Manifest) -> QlibStore:
    store = QlibStore(root, converted=manifest.symbols())
    if not any(calendars_of(root).glob(LISTS)):
        # A first run that died: without an origin the positions in its bins mean nothing.
        shutil.rmtree(features_of(root), ignore_errors=True)
    return store


def _common_fields(goal: Goal, recipe: str) -> frozenset[str]:
    """Return the fields that every symbol has. Where the last recipe is not known, they are those of this one."""
    names = frozenset(field.name for field in goal.recipe.fields)
    return names & fields_named(recipe) or names


def _days_before(origin: datetime, dirty: Dirty, store: QlibStore) -> int:
    return sum(day_start(day) < origin for symbol in store.names.possible(dirty) for day in dirty[symbol])


class _Work(NamedTuple):
    dirty: Dirty
    held: Mapping[str, HeldBins]
    left: Left


def _work(store: QlibStore, raw: RawFiles, build: Build, changed: Dirty, memory: Memory) -> _Work:
    """Return the days to compute: those that changed, and all of symbols whose bins are damaged.

    Symbols that cannot be in the dataset, and damaged ones of which no raw day is left, are not computed.
    """
    dirty = {
        name: kept
        for name, days in changed.items()
        if (kept := [day for day in days if day_start(day) >= build.origin])
    }
    held = _held(store, build, dirty, memory)
    damaged = {symbol: bins.damage for symbol, bins in held.items() if bins.damage}
    dirty |= _raw_days(raw, damaged, build.span)
    # Of two that Qlib takes for the same the one that was there first stays, in a rebuild, too.
    refused = store.names.admit(sorted(dirty, key=lambda symbol: (dirty[symbol][0], symbol)))
    left = {symbol: dict.fromkeys(dirty.pop(symbol), reason) for symbol, reason in refused.items()}
    left |= {
        symbol: {build.origin.date(): f"{damage}; there is no raw day of it: {what_helps(store, symbol)}"}
        for symbol, damage in damaged.items()
        if symbol not in dirty and symbol not in refused
    }
    return _Work(dirty, held, left)


def _held(store: QlibStore, build: Build, dirty: Iterable[str], memory: Memory) -> dict[str, HeldBins]:
    """Return what the bins of each symbol hold: of all, since damage is found wherever it is."""
    names = [field.name for field in build.recipe.fields]
    symbols = sorted({*store.symbols(), *dirty})
    found = {symbol: memory.held.get(symbol) or held_by(store, symbol, names, build.published) for symbol in symbols}
    for symbol, held in found.items():
        if held.damage:
            log.warning("damaged bins, computing all raw days of the symbol", symbol=symbol, damage=held.damage)
    return found


def _raw_days(raw: RawFiles, symbols: Collection[str], span: tuple[datetime, datetime]) -> Dirty:
    """Return all days of some symbols of which there is a candle file."""
    found: Dirty = {symbol: [] for symbol in symbols}
    for day, files in raw.of(Candle).items():
        if span[0] <= day_start(day) < span[1]:
            for symbol in found.keys() & files.versions.keys():
                found[symbol].append(day)
    return {symbol: days for symbol, days in found.items() if days}
