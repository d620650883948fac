"""Stage three: compute the symbols of a run, one after the other here, or shared out among processes. I/O.

A process that computes holds the lock of the dataset as well, by inheritance: should this one be killed, no other
converter can begin to write before the last of them has ended.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import date
from functools import partial
from multiprocessing import reduction
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from services.converter.qlib.store import QlibStore
from services.converter.stages.compute import Converted, convert_symbol
from services.converter.stages.run import Build, Left, Run, SymbolDays

_DAYS_WORTH_A_PROCESS = 500
"""Symbol days that are computed in about the time that a process takes to start."""


_DAYS_OF_A_MINUTE = 2
"""Days of a symbol that a run computes which merely goes on: today, and yesterday where something of it came late."""


class ProcessDiedError(OSError):
    """A process that computed bars was killed."""


Outcome = tuple[str, Converted]
"""Symbol, and what became of its days."""
Convert = Callable[[list[SymbolDays]], Iterator[Outcome]]
Progress = Callable[[str, int, int], None]
"""(symbol, symbols done, symbols in all)."""


class Computed(NamedTuple):
    """What became of a run's work. candles: of one minute, those that were read. left: what could not be converted.

    trusted: symbols whose bins are known to hold what was written.
    """

    candles: int
    left: Left
    trusted: frozenset[str] = frozenset()


def compute(run: Run, work: list[SymbolDays], convert_symbols: Convert, progress: Progress) -> Computed:
    """Compute and write the bins of every symbol, and report each as it is done. Raises as `convert_symbols` does."""
    run.store.begin()
    progress("", 0, len(work))
    candles, left, trusted = 0, {}, set()
    for done, (symbol, found) in enumerate(convert_symbols(work), start=1):
        progress(symbol, done, len(work))
        candles += found.candles
        run.memory.note(symbol, found.written, found.held)
        if found.left:
            left[symbol] = found.left
        if not found.examined:
            trusted.add(symbol)
    return Computed(candles, left, frozenset(trusted))


def processes_for(dirty: Mapping[str, list[date]], most: int) -> int:
    """Return how many processes are worth their start. Pure. dirty: symbol → the days to compute again."""
    return min(most, len(dirty), sum(len(days) for days in dirty.values()) // _DAYS_WORTH_A_PROCESS)


@contextmanager
def symbol_conversion(run: Run, *, most: int, lock: int) -> Iterator[Convert]:
    """Give a function that converts symbols: in order or, with more than one process, as they come.

    The processes, `most` of them at most, start at once, and take a while to: the caller may read what they need
    meanwhile. lock: the descriptor that the lock of the dataset hangs on. The function raises:

        OSError: a bin cannot be written.
        ProcessDiedError: a process died; what the others have written stays invisible, and is written again.

    """
    build, store, processes = run.build, run.store, _processes_of(run, most)
    if processes <= 1:
        yield lambda work: (_outcome(build, store, one) for one in work)
        return
    spawn = multiprocessing.get_context("spawn")  # pyarrow has threads, which a fork would not take along
    pool = ProcessPoolExecutor(processes, spawn, _Worker.start, (build, store.root, _Inherited(lock)))
    try:
        for _ in range(processes):
            pool.submit(_Worker.ready)
        yield partial(_shared_out, pool, store, processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _processes_of(run: Run, most: int) -> int:
    """Return how many processes a run is worth. What is remembered is remembered here: minute by minute it is one."""
    is_minute = run.memory.is_kept and max(map(len, run.dirty.values()), default=0) <= _DAYS_OF_A_MINUTE
    return 1 if is_minute or run.memory.written else processes_for(run.dirty, most)


def _shared_out(
    pool: ProcessPoolExecutor, store: QlibStore, processes: int, work: list[SymbolDays]
) -> Iterator[Outcome]:
    # The longest first, so that none is left over for the end.
    ordered = sorted(work, key=lambda one: -len(one.days))
    try:
        for future in as_completed([pool.submit(_Worker.convert, one, store.distrusts) for one in ordered]):
            yield future.result()
    except BrokenProcessPool as error:
        raise ProcessDiedError(
            f"one of {processes} processes that computed bars was killed, perhaps for want of memory; "
            "with CONVERT_PROCESSES=1 the least is needed"
        ) from error


def _outcome(build: Build, store: QlibStore, work: SymbolDays) -> Outcome:
    return work.symbol, convert_symbol(build, store, work)


# --- The other processes


class _Inherited:
    """A descriptor that is open in a process that this one starts, too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_in_child, (reduction.DupFd(self.descriptor),)


def _open_in_child(duplicate: Any) -> _Inherited:
    return _Inherited(duplicate.detach())


class _Worker:
    """What one of the processes knows."""

    build: Build
    store: QlibStore
    lock: _Inherited

    @classmethod
    def start(cls, build: Build, root: Path, lock: _Inherited) -> None:
        """Take what is the same for all symbols. A parent that is killed ends no child, so this one ends by itself."""
        cls.build, cls.store, cls.lock = build, QlibStore(root), lock
        cls.store.durable.open()
        Thread(target=_end_with_parent, daemon=True).start()

    @classmethod
    def ready(cls) -> None:
        """Do nothing: whoever does it has started."""

    @classmethod
    def convert(cls, work: SymbolDays, distrusts: bool) -> Outcome:
        """Convert a symbol, so that nothing is left to make durable."""
        cls.store.distrusts = distrusts
        symbol, found = _outcome(cls.build, cls.store, work)
        cls.store.make_durable()
        return symbol, found._replace(written=None, held=None)  # this process remembers nothing, nor is it much to send


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
