"""The text of docs/performance.md: figures and where they were measured. Pure."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proofs.bench.figure import Beside, Figure

type Options = Mapping[str, str | int | float | Sequence[int]]
"""Sizes of a benchmark, by the names of its arguments; those of several values are given once for each."""

KEPT = "<!-- What is below this line is written by hand: `make bench` leaves it as it is. -->"

_HEAD = """\
# Performance

What work costs, beside a peer that does the same and beside the floor: the same input and output, nothing in between.
Ours, peer and floor are measured in one run, in turns where they are short, and have to come to the same result.
A ratio is one of costs, also where the figure is a rate: below 1 ours costs less.
CPU is processor time of all threads. A figure without it is time on a clock, which other work on the machine lengthens.

`make bench` measures all of it in some minutes and writes this page; `make bench FULL=1` takes the sizes of real use.
`make bench ONLY="frames drain"` prints the figures of some, and writes nothing.
Tests guard the same costs as counts, which no load changes: [`tests/unit/test_costs.py`](../tests/unit/test_costs.py).
"""


@dataclass(frozen=True)
class Machine:
    """Where it was measured, and with what."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    file_system: str
    """Of the folder that was written to."""
    versions: Mapping[str, str]
    """Program or package → version."""
    commit: str


@dataclass(frozen=True)
class Moment:
    """When, and how busy the machine was."""

    time: str
    load: tuple[float, float, float]
    """Runnable processes, on average over 1, 5 and 15 minutes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark."""

    name: str
    command: str
    seconds: float
    figures: Sequence[Figure] = ()
    failure: str | None = None


def command_of(name: str, options: Options) -> str:
    """Return the command line that measures the same again."""
    words = ["python", "-m", f"proofs.bench.{name}"]
    for option, given in options.items():
        for value in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)


def amount(value: float) -> str:
    """Return a number with three digits that count, and no more."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):,.{max(0, digits)}f}"


def lines_of(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return the cells of a benchmark: work, ours, peer, floor, ratio to the peer, ratio to the floor."""
    if outcome.failure is not None:
        return [(outcome.name, f"not measured: {outcome.failure}", "", "", "", "")]
    return [
        (
            one.work,
            f"{amount(one.ours)} {one.unit}",
            _beside(one.peer),
            _beside(one.floor),
            _ratio(one.times(one.peer)),
            _ratio(one.times(one.floor)),
        )
        for one in outcome.figures
    ]


def sentences_of(outcome: Outcome) -> list[tuple[str, str]]:
    """Return each work and what was measured of it, as a terminal shows them."""
    found = []
    for work, ours, peer, floor, to_peer, to_floor in lines_of(outcome):
        beside = [("peer", peer, to_peer), ("floor", floor, to_floor)]
        found.append((work, "; ".join([ours, *(f"{name} {one}, x {ratio}" for name, one, ratio in beside if one)])))
    return found


COLUMNS = ("work", "ours", "peer", "floor", "ours / peer", "ours / floor")


def _beside(other: Beside | None) -> str:
    return f"{amount(other.amount)}, {other.by}" if other else ""


def _ratio(times: float | None) -> str:
    return "" if times is None else amount(times)


def document(outcomes: Sequence[Outcome], machine: Machine, begin: Moment, end: Moment, *, full: bool) -> str:
    """Return the page, up to what is written by hand."""
    rows: list[tuple[str, ...]] = [(*COLUMNS, "command"), ("---", "---", "---", "---", "--:", "--:", "---")]
    for outcome in outcomes:
        rows += [(*(_cell(text) for text in cells), f"`{outcome.command}`") for cells in lines_of(outcome)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_HEAD}\n## Measured\n\n{table}\n\n{_where(machine, begin, end, full=full)}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _where(machine: Machine, begin: Moment, end: Moment, *, full: bool) -> str:
    sizes = "full (`make bench FULL=1`)" if full else "small (`make bench`)"
    facts = {
        "sizes": sizes,
        "from, to": f"{begin.time}, {end.time}",
        "load average at the begin and at the end": f"{_load(begin)}; {_load(end)}",
        "processor": f"{machine.cpu}, {machine.cores} cores",
        "memory": f"{amount(machine.memory_gib)} GiB",
        "kernel": machine.kernel,
        "file system": machine.file_system,
        "commit": machine.commit,
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    }
    busy = max(begin.load[0], end.load[0]) > machine.cores
    note = "\n**The machine had other work to do: times on a clock are upper bounds here.**\n" if busy else ""
    rows = "\n".join(f"| {_cell(what)} | {_cell(value)} |" for what, value in facts.items())
    return f"## Where\n{note}\n| what | value |\n|---|---|\n{rows}\n"


def _load(moment: Moment) -> str:
    return " ".join(f"{load:.2f}" for load in moment.load)


def with_kept(page: str, before: str) -> str:
    """Return a page with what was written by hand below the one before it."""
    _, mark, kept = before.partition(KEPT)
    return f"{page}\n{mark}{kept}" if mark else page
