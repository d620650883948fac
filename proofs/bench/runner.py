"""Run benchmarks one after the other, each in a process of its own, and collect their figures. I/O."""

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module

from cli.die_with_parent import tie_to_parent
from cli.stack import end_on_signals
from proofs.bench.document import Options, Outcome, command_of
from proofs.bench.figure import Figure


@dataclass(frozen=True)
class Benchmark:
    """A module of this package with a function `figures`, and what it is called with."""

    small: Options
    full: Options
    long: bool = False
    """Whether it takes minutes at any size: a small run leaves it out, unless it is named."""


BENCHMARKS: Mapping[str, Benchmark] = {
    "frames": Benchmark({"symbols": 200, "minutes": 10}, {"symbols": 500, "minutes": 30}),
    "sweep": Benchmark(
        {"symbols": [500], "days": [1, 90], "minutes": 1}, {"symbols": [500, 1500], "days": [1, 30, 90], "minutes": 2}
    ),
    "drain": Benchmark({"candles": 50_000, "symbols": 500}, {"candles": 1_000_000, "symbols": 500}),
    "writes": Benchmark({"symbols": 20}, {"symbols": 500}, long=True),
    "convert": Benchmark({"days": [7, 60], "symbols": 5, "rounds": 1}, {"days": [30, 1095], "symbols": 20}),
    "reading": Benchmark(
        {"days": 60, "symbols": 5, "fields": 6, "rounds": 1}, {"days": 365, "symbols": 10, "fields": 6, "rounds": 3}
    ),
    "ledger": Benchmark({"days": 60, "symbols": 200}, {"days": 365, "symbols": 500}),
    "api": Benchmark({"symbols": 50, "days": 30, "seconds": 2}, {"symbols": 500, "days": 360, "seconds": 10}),
    "heal": Benchmark({"symbols": 20, "outage_seconds": 15}, {"symbols": 50, "outage_seconds": 60}),
    "freshness": Benchmark({"symbols": 20, "minutes": 1}, {"symbols": 500, "minutes": 5}),
    "load": Benchmark({"symbols": 50, "minutes": 3}, {"symbols": 500, "minutes": 10}, long=True),
    "soak": Benchmark({"symbols": 20, "days": 2.5}, {"symbols": 100, "days": 7}, long=True),
}
"""In the order of the page: what is quick, then what runs the whole system."""


def chosen(only: list[str], *, full: bool) -> dict[str, Options]:
    """Return name → sizes of what is to be run: what is named, or what a run of this size has time for."""
    names = only or [name for name, one in BENCHMARKS.items() if full or not one.long]
    return {name: BENCHMARKS[name].full if full else BENCHMARKS[name].small for name in names}


def outcome_of(name: str, options: Options) -> Outcome:
    """Run a benchmark to its end, whatever becomes of it."""
    began, command = time.monotonic(), command_of(name, options)
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin) as pool:
            figures = pool.submit(figures_of, name, options).result()
    except Exception as error:  # noqa: BLE001 - the line says what it was, and the others go on
        return Outcome(name, command, time.monotonic() - began, failure=f"{type(error).__name__}: {error}")
    return Outcome(name, command, time.monotonic() - began, figures)


def _begin() -> None:
    tie_to_parent()
    end_on_signals()


def figures_of(name: str, options: Options) -> list[Figure]:
    """Measure, in this process."""
    return list(import_module(f"proofs.bench.{name}").figures(**options))
