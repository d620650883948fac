"""`python -m proofs.bench.convert`: what converting costs: from nothing, a day more, a row that is late, a minute more.

The raw folder is made up (`proofs.rig.synthetic_year`). For each length of history everything but the last days is
converted from nothing, each time after the floor: the same candles read with polars, and as many bytes written with
numpy and synced. Then one day after the other is added, and single files are written again: neither must cost more
after years than after weeks. At last the first minutes of a day are added one by one, by a process that remembers, and
every bin has to be that of a conversion from nothing. The peer is Qlib's own `dump_bin.py`, where there is a checkout
of microsoft/qlib; its bins have to be the same (`proofs.judges.dump_bin`).

What counts is the time of the processor: that of the wall depends on the disk, and on what else runs. Each measurement
is made in a process of its own, so that its peak of memory is its own.
"""

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from proofs.bench.figure import Beside, Figure, NotMeasuredError
from proofs.judges.dump_bin import judge_against_dump_bin
from proofs.judges.recompute import Options
from proofs.rig import conversion
from proofs.rig.synthetic_year import Market, make, symbol_of
from services.converter.convert import convert
from services.converter.features.fields import COLUMNS, FIELDS
from services.converter.memory import Memory
from shared.datasets.candle import Candle
from shared.grid import DAY, MINUTE, day_start
from shared.runtime.command import run
from shared.storage.files import fsync_path
from shared.storage.layout import Partition
from shared.storage.layout import days as raw_days
from shared.storage.parquet import read_rows, write_table

_MINUTES = (1, 5, 15, 30, 60, 240, 1440)
"""Minutes of a bar, of every frequency that is written."""
_ADDED = 5
"""Days, late rows and minutes that are added one after the other; their median counts."""

console = Console()


class Cost(NamedTuple):
    """What something cost. cpu, wall: seconds. peak: megabytes of the whole process."""

    cpu: float
    wall: float
    peak: float


def costs_of(work: list[Callable[[], object]]) -> list[Cost]:
    """Do some work, one after the other, and return what each cost."""
    found = []
    for one in work:
        cpu, wall = time.process_time(), time.perf_counter()
        one()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append(Cost(time.process_time() - cpu, time.perf_counter() - wall, peak))
    return found


def floor(raw: Path, target: Path, symbols: int, until: datetime) -> list[Cost]:
    """Read every candle before `until`, write as many values as a conversion does, and make them durable."""

    def every() -> None:
        for number in range(symbols):
            _floor_of(_files(raw, symbol_of(number), until), target / symbol_of(number))

    return costs_of([every])


def _files(raw: Path, symbol: str, until: datetime) -> list[Path]:
    files = (raw / Candle.dataset).glob(f"date=*/{symbol}_*.parquet")
    return sorted(path for path in files if path.parent.name < f"date={until:%F}")


def _floor_of(files: list[Path], folder: Path) -> None:
    frame = pl.scan_parquet(files, hive_partitioning=False).select(COLUMNS).collect()
    columns = [frame[name].cast(pl.Float32).to_numpy() for name in COLUMNS]
    folder.mkdir(parents=True)
    for step in _MINUTES:
        for number in range(len(FIELDS)):
            path = folder / f"{number}.{step}.bin"
            columns[number % len(columns)][::step].tofile(path)
            fsync_path(path)


def whole(raw: Path, qlib: Path, until: datetime) -> list[Cost]:
    """Convert from nothing."""
    return costs_of([lambda: convert(raw, qlib, until=until)])


def days_more(raw: Path, qlib: Path, until: datetime) -> list[Cost]:
    """Convert one more day, again and again, from `until` on."""
    convert(raw, qlib, until=until)
    ends = [until + ahead * DAY for ahead in range(1, 1 + _ADDED)]
    return costs_of([lambda end=end: convert(raw, qlib, until=end) for end in ends])  # type: ignore[misc]


def late_rows(raw: Path, qlib: Path, until: datetime) -> list[Cost]:
    """Convert after one row of an old day has become another, again and again."""
    path = Partition(Candle.dataset, (until - 3 * DAY).date(), symbol_of(0)).path(raw)

    def rewrite() -> None:
        table = read_rows(Candle, path)
        amounts = [value + 1 for value in table["volume"].to_pylist()]
        index = table.schema.get_field_index("volume")
        write_table(path, table.set_column(index, table.schema.field("volume"), [amounts]))

    work: list[Callable[[], object]] = [rewrite, lambda: convert(raw, qlib, until=until)] * _ADDED
    return costs_of(work)[1::2]


def minutes_more(raw: Path, qlib: Path, until: datetime) -> list[Cost]:
    """Convert one more minute, again and again, as a process does that remembers the last time.

    The day is whole on disk already, so what is measured is but for reading files that have changed.
    """
    memory = Memory()
    ends = [until + ahead * MINUTE for ahead in range(2 + _ADDED)]
    return costs_of([lambda end=end: convert(raw, qlib, until=end, memory=memory) for end in ends])[2:]  # type: ignore[misc]


def alone[**P](measure: Callable[P, list[Cost]], *arguments: P.args, **named: P.kwargs) -> list[Cost]:
    """Measure in another process, so that nothing is warm and the peak of memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments, **named).result()


class History(NamedTuple):
    """What was measured on one length of history: of the floor and from nothing each time, of the rest the medians."""

    candles: int
    floors: list[Cost]
    wholes: list[Cost]
    day: Cost
    late: Cost
    minute: Cost
    beside: tuple[conversion.Cost, conversion.Cost] | None
    """The converter and dump_bin, each as a process of its own, start and input included."""


def measure(days: int, symbols: int, seed: int, rounds: int, checkout: Path | None = None) -> History:
    """Measure everything on one length of history. Raises `NotMeasuredError` where a result is not the right one."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as made:
        raw = Path(made) / "okx_data"
        market = Market(symbols, days + _ADDED + 1, seed, members=min(20, symbols), gaps=False)
        names = [one.symbol for one in make(market, raw, workers=1)]
        end = day_start(raw_days(raw, Candle.dataset)[-1]) - _ADDED * DAY
        files = [path for name in names for path in _files(raw, name, end)]
        candles = int(pl.scan_parquet(files, hive_partitioning=False).select(pl.len()).collect().item())
        floors, wholes = [], []
        for number in range(rounds):  # alternately: what else runs on the machine changes meanwhile
            floors += alone(floor, raw, Path(made) / f"floor{number}", symbols, end)
            wholes += alone(whole, raw, Path(made) / f"qlib{number}", end)
        qlib = Path(made) / "qlib0"
        day = _median(alone(days_more, raw, qlib, end))
        end += _ADDED * DAY
        late = _median(alone(late_rows, raw, qlib, end))
        end += timedelta(hours=11, minutes=1)
        minute = _median(alone(minutes_more, raw, qlib, end))
        _check(raw, qlib, Path(made) / "rebuilt", end + (1 + _ADDED) * MINUTE)
        beside = None if checkout is None else _beside_dump_bin(raw, checkout, Path(made) / "peer")
    return History(candles, floors, wholes, day, late, minute, beside)


def _check(raw: Path, qlib: Path, rebuilt: Path, until: datetime) -> None:
    """Compare every bin with that of a conversion from nothing."""
    convert(raw, rebuilt, until=until)
    found, wanted = (
        {path.relative_to(root): path.read_bytes() for path in root.glob("features/*/*.bin")}
        for root in (qlib, rebuilt)
    )
    if wrong := [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]:
        raise NotMeasuredError(f"{len(wrong)} of {len(wanted)} bins are not those of a conversion from nothing")


def _beside_dump_bin(raw: Path, checkout: Path, work: Path) -> tuple[conversion.Cost, conversion.Cost]:
    found = judge_against_dump_bin(
        raw, checkout, work, options=Options(), settings={}, on_progress=lambda what, *_: console.print(what)
    )
    if not found.clean:
        raise NotMeasuredError(f"{found.different_files} bins are not those of dump_bin; {found.judgement}")
    return found.converter, found.inputs + found.dump_bin


def cpu(costs: list[Cost]) -> float:
    """Return the median of the processor seconds."""
    return statistics.median(cost.cpu for cost in costs)


def figures(days: Sequence[int], symbols: int, seed: int = 1, rounds: int = 2, qlib_checkout: str = "") -> list[Figure]:
    """Measure the longest history beside the shortest. Raises `NotMeasuredError`."""
    checkout = Path(qlib_checkout) if qlib_checkout else None
    first, last = (measure(length, symbols, seed, rounds, checkout) for length in (min(days), max(days)))
    found = []
    for length, one in ((min(days), first), (max(days), last)):
        name = f"{one.candles:,} candles of {symbols} symbols and {length} days into {len(_MINUTES)} frequencies"
        least = Beside(cpu(one.floors), "polars reads, numpy writes as many bytes and syncs them")
        found.append(Figure(f"{name}, from nothing", cpu(one.wholes), "s of CPU", floor=least))
        if one.beside:
            ours, peer = (cost.cpu_seconds for cost in one.beside)
            by = "`dump_bin.py dump_all`, making its input included"
            found.append(Figure(f"{name}, from nothing, as a process", ours, "s of CPU", Beside(peer, by)))
    found.append(Figure(f"{name}, memory at most", max(cost.peak for cost in last.wholes), "MB"))
    works = {"one more day": "day", "a row that is late": "late", "one more minute": "minute"}
    for work, what in works.items():
        ours, floor = getattr(last, what).cpu, Beside(getattr(first, what).cpu, f"after {min(days)} days")
        found.append(Figure(f"{work} of {symbols} symbols, after {max(days)} days", ours, "s of CPU", floor=floor))
    return found


def _median(costs: list[Cost]) -> Cost:
    return sorted(costs)[len(costs) // 2]


def main(
    days: Annotated[list[int] | None, typer.Option(help="Lengths of history [default: 30 365]")] = None,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols")] = 5,
    seed: Annotated[int, typer.Option(help="Another one, another market")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often floor and conversion from nothing are measured")] = 2,
    qlib_checkout: Annotated[
        Path | None, typer.Option(help="A checkout of microsoft/qlib: its dump_bin.py is the peer")
    ] = None,
) -> None:
    """Measure a conversion from nothing, of one more day, a late row and one more minute, on several histories."""
    title = f"{symbols} symbols, {len(_MINUTES)} frequencies, {len(FIELDS)} fields; {datetime.now(UTC):%F}"
    table = Table(title=f"{title}; seconds of CPU", title_justify="left")
    names = ("days", "candles", "floor", "from nothing", "times", "peak MB", "day more", "late row", "minute more")
    for name in (*names, "process", "dump_bin"):
        table.add_column(name, justify="right")
    found = []
    for length in days or [30, 365]:
        one = measure(length, symbols, seed, rounds, qlib_checkout)
        found.append(one)
        least, took = cpu(one.floors), cpu(one.wholes)
        peak = max(cost.peak for cost in one.wholes)
        table.add_row(
            *(str(length), f"{one.candles:,}", f"{least:.2f}", f"{took:.2f}", f"{took / least:.2f}", f"{peak:.0f}"),
            *(f"{cost.cpu:.3f}" for cost in (one.day, one.late, one.minute)),
            *(f"{cost.cpu_seconds:.2f}" for cost in one.beside or ()),
        )
    console.print(table)
    console.print(f"one more day, the last history against the first: {found[-1].day.cpu / found[0].day.cpu:.2f}")


if __name__ == "__main__":
    run(main)
