"""Stage two: what do the days of a run need beside their candles? Reads rates, rankings and the ledger. I/O."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.converter.features.asof import AsOf, SettledRates
from services.converter.raw.days import (
    EVERY,
    Faults,
    LedgerDays,
    Unreadable,
    read_ledgers,
    read_predictions,
    read_rankings,
    read_settlements,
)
from services.converter.raw.definitions import contract_of
from services.converter.raw.files import NO_FILES, RawFiles
from services.converter.raw.predictions import put_down
from services.converter.stages.changes import RawChanges
from services.converter.stages.dirty import VALID_DAYS, runs_of_days
from services.converter.stages.run import Run, SymbolDays
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.ledger import LedgerRow
from shared.datasets.row import Row
from shared.datasets.universe import Rank
from shared.grid import DAY
from shared.storage.layout import Partition
from shared.storage.segments import RawRows


class Loaded(NamedTuple):
    """The work of each symbol. unreadable: files of all symbols that cannot be read, as `named` gives them."""

    work: list[SymbolDays]
    unreadable: dict[str, str]


def load(run: Run, predictions_at: Path) -> Loaded:
    """Read everything that the dirty days need beside their candles. predictions_at: see `put_down`."""
    rows, days = run.changes.raw.rows, _days_needed(run)
    wanted = _files_for(run.changes, days)
    once = _Once(run)
    settlements, unsettled = once.read("settlements", wanted.settlements, read_settlements)
    predictions, unpredicted = put_down(wanted.predictions, once.read_predictions, predictions_at)
    rankings, unranked = once.read("rankings", wanted.rankings, read_rankings)
    ledgers = _with_changed(read_ledgers(rows, wanted.ledgers), run.changes.ledgers)
    faults = (
        _reaching(FundingRate, unsettled),
        _reaching(PredictedFundingRate, unpredicted),
        {EVERY: _until_next_ranking(run.changes.raw, unranked, days)},
        {EVERY: _with_next_day(ledgers.unreadable) if run.build.recipe.stock_fields else ledgers.unreadable},
    )
    candles, history = run.changes.raw.of(Candle), run.changes.definitions.of
    work = [
        SymbolDays(
            symbol,
            dirty,
            AsOf(
                settlements.get(symbol, SettledRates()),
                rankings=rankings.of(symbol),
                contract=contract_of(history.get(symbol, ())),
            ),
            ledger={day: records[symbol] for day, records in ledgers.of.items() if symbol in records},
            versions={day: files[symbol] for day in days if symbol in (files := candles.get(day, NO_FILES).versions)},
            rows=rows.only(Partition(Candle.dataset, day, symbol) for day in days),
            held=run.held[symbol],
            unknown=_days_with_fault(symbol, faults),
            predictions=predictions.get(symbol),
            before=run.memory.written.get(symbol),
        )
        for symbol, dirty in run.dirty.items()
    ]
    return Loaded(work, named(Rank, unranked) | named(LedgerRow, ledgers.unreadable))


def named(kind: type[Row], unreadable: Unreadable) -> dict[str, str]:
    """Return the days of a dataset as the manifest names them, each with the reason."""
    return {f"{kind.dataset}/{day}": why for day, why in unreadable.items()}


# --- What need not be read again


class _Once:
    """Reads what the last run of this process has not read of the same files, as long as they are few."""

    def __init__(self, run: Run) -> None:
        self._raw, self._memory = run.changes.raw, run.memory
        self._symbols = frozenset(run.dirty)
        self._remembers = len(_days_needed(run)) <= _MOST_REMEMBERED

    def read[R](
        self, name: str, files: list[Partition], read: Callable[[RawRows, list[Partition]], tuple[R, Mapping[Any, Any]]]
    ) -> tuple[R, Any]:
        """Read some files; what could not be read is tried again by the next run."""
        found = self._of(name, self._raw.versions(files), lambda: read(self._raw.rows, files))
        if found[1]:
            self._memory.drop(name)
        return found

    def read_predictions(self, file: Partition) -> tuple[Mapping[str, NDArray[np.void]], Mapping[str, str]]:
        """Read the predictions of a day. Raises `UnreadableError`."""
        key = self._raw.versions([file]), self._symbols
        # The days of two runs, one after the other, are the same two: each has a place of its own.
        name = f"predictions {file.day.toordinal() % _MOST_REMEMBERED}"
        return self._of(name, key, lambda: read_predictions(self._raw.rows, file, self._symbols))

    def _of[R](self, name: str, key: Hashable, make: Callable[[], R]) -> R:
        return self._memory.made(name, key, make) if self._remembers else make()


_MOST_REMEMBERED = 2
"""Days of which what was read is kept: today, and the day before where something looks back on it."""


# --- Which files


def _days_needed(run: Run) -> set[date]:
    """Return the dirty days of all symbols, with those before them where fields look back."""
    days = {day for dirty in run.dirty.values() for day in dirty}
    return days | {day - DAY for day in days} if run.build.recipe.stock_fields else days


class _NeededFiles(NamedTuple):
    settlements: list[Partition]
    predictions: list[Partition]
    rankings: list[Partition]
    ledgers: list[Partition]


def _files_for(changes: RawChanges, days: set[date]) -> _NeededFiles:
    """Return the files that some days need; the ledgers that changed have been read already."""
    raw, changed = changes.raw, changes.ledgers
    return _NeededFiles(
        raw.partitions(FundingRate, _still_in_force(FundingRate, days)),
        raw.partitions(PredictedFundingRate, _still_in_force(PredictedFundingRate, days)),
        raw.partitions(Rank, _ranked_for(list(raw.of(Rank)), days)),
        raw.partitions(LedgerRow, days - changed.of.keys() - changed.unreadable.keys()),
    )


def _still_in_force(kind: type[Row], days: Iterable[date]) -> set[date]:
    """Return some days, and those before them whose rows may be the last ones known."""
    reach = range(VALID_DAYS[kind] + 1)
    return {day - timedelta(days=back) for day in days for back in reach}


def _ranked_for(ranked: list[date], days: set[date]) -> set[date]:
    """Return the days with rankings among some, and for each the last one before it: it is in force at midnight."""
    chosen = days & set(ranked)
    for first, _ in runs_of_days(sorted(days)):
        chosen |= set(ranked[: bisect_left(ranked, first)][-1:])
    return chosen


def _with_changed(fresh: LedgerDays, changed: LedgerDays) -> LedgerDays:
    return LedgerDays(changed.of | fresh.of, changed.unreadable | fresh.unreadable)


# --- Which days lack something


def _days_with_fault(symbol: str, faults: Iterable[Faults]) -> dict[date, str]:
    """Return the days of a symbol of which something cannot be read, or cannot be true, each with the reason."""
    return {day: why for fault in faults for name in (EVERY, symbol) for day, why in fault.get(name, {}).items()}


def _reaching(kind: type[Row], faults: Faults) -> Faults:
    """Return the days of which nothing can be known where a day of a dataset cannot be true."""
    reach = range(VALID_DAYS[kind] + 1)
    return {
        symbol: {day + timedelta(days=ahead): why for day, why in sorted(days.items()) for ahead in reach}
        for symbol, days in faults.items()
    }


def _until_next_ranking(raw: RawFiles, unranked: Unreadable, days: Collection[date]) -> Unreadable:
    """Return the days on which a ranking that cannot be read may be in force: until the first one of another day."""
    ranked, found = list(raw.of(Rank)), Unreadable()
    for first, why in unranked.items():
        last = min((day for day in ranked if day > first), default=max(days))
        found |= {day: why for day in days if first <= day <= last}
    return found


def _with_next_day(unreadable: Unreadable) -> Unreadable:
    """Return days and those after them, whose bars look back on them."""
    return {day + DAY: why for day, why in unreadable.items()} | unreadable
