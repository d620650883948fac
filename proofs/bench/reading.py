"""`python -m proofs.bench.reading`: what reading plain fields in Qlib costs, beside the kit and the least there can be.

A dataset of minutes is made with numpy. Then four readers take turns, each in a process of its own: Qlib alone, Qlib
after `perps.init`, `perps.features`, and numpy on the bins, which is the floor: it makes no index. Each one answers a
first short query, for which it needs the calendar, then reads everything, twice. All have to read the same.
"""

import hashlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from proofs.bench.figure import Beside, Figure, NotMeasuredError
from proofs.rig.conversion import RESEARCH_PYTHON, ROOT
from proofs.units import MINUTES_PER_DAY
from shared.runtime.command import run

FIRST = np.datetime64("2025-01-01", "s")
FREQ = "1min"
READERS = ("D.features, Qlib alone", "D.features, perps.init", "perps.features", "numpy")
_FLOOR = READERS[-1]
_PAGE = os.sysconf("SC_PAGE_SIZE")

Reader = Callable[[list[str], list[str], str | None], Any]
"""Symbols, fields and the first bar, None for that of the calendar → a frame, or the floor's array."""

console = Console()


class Found(msgspec.Struct):
    """What a reader took, in seconds of CPU and bytes, and digests of what it read."""

    first_seconds: float
    first_bytes: int
    all_seconds: float
    again_seconds: float
    peak_bytes: int
    values: str
    index: str


def make(folder: Path, days: int, symbols: int, fields: int) -> int:
    """Write a dataset of minutes; return how many values are in it."""
    for name in ("calendars", "instruments"):
        (folder / name).mkdir(parents=True)
    opens = FIRST + np.arange(days * MINUTES_PER_DAY) * np.timedelta64(60, "s")
    labels = np.char.replace(np.datetime_as_string(opens, unit="s"), "T", " ")
    (folder / "calendars" / f"{FREQ}.txt").write_text("".join(f"{label}\n" for label in labels))
    names = [f"S{number:03d}_USDT" for number in range(symbols)]
    rows = "".join(f"{name}\t{labels[0]}\t2099-12-31 23:59:59\n" for name in names)
    (folder / "instruments" / "all.txt").write_text(rows)
    random = np.random.default_rng(1)
    for name in names:
        place = folder / "features" / name.lower()
        place.mkdir(parents=True)
        for field in range(fields):
            values = random.random(len(opens) + 1, dtype="<f4")
            values[0] = 0
            values.tofile(place / f"f{field}.{FREQ}.bin")
    return symbols * fields * len(opens)


def reader_of(name: str, folder: Path) -> Reader:
    """Set a reader up."""
    if name == _FLOOR:
        return lambda symbols, fields, begin: _from_bins(folder, symbols, fields, begin)
    qlib, data = import_module("qlib"), import_module("qlib.data")
    if name == READERS[0]:
        qlib.init(provider_uri=str(folder), region="cn", kernels=1, logging_level=logging.ERROR)
    else:
        import_module("perps").init(folder, experiments=folder / "experiments")
    ask = import_module("perps").features if name == READERS[2] else data.D.features
    return lambda symbols, fields, begin: ask(symbols, [f"${field}" for field in fields], begin, None, FREQ)


def _from_bins(folder: Path, symbols: list[str], fields: list[str], begin: str | None) -> Any:
    skipped = 0 if begin is None else int((np.datetime64(begin, "s") - FIRST) // np.timedelta64(60, "s"))
    size = (folder / "features" / symbols[0].lower() / f"{fields[0]}.{FREQ}.bin").stat().st_size
    bars = size // 4 - 1 - skipped
    found = np.empty((len(fields), len(symbols) * bars), "<f4")
    for row, field in zip(found, fields, strict=True):
        for number, symbol in enumerate(symbols):
            with (folder / "features" / symbol.lower() / f"{field}.{FREQ}.bin").open("rb", buffering=0) as file:
                file.seek(4 * (1 + skipped))
                file.readinto(row[number * bars : (number + 1) * bars].data.cast("B"))
    return found.T


def resident_bytes() -> int:
    """Return this process's memory, from the kernel."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def peak_bytes() -> int:
    """Return the most memory that this process has had, from the kernel."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def measure(name: str, folder: Path) -> Found:
    """Let one reader read, in this process."""
    symbols = [path.name.upper() for path in sorted((folder / "features").iterdir())]
    fields = sorted(path.name.split(".")[0] for path in (folder / "features" / symbols[0].lower()).iterdir())
    with (folder / "calendars" / f"{FREQ}.txt").open("rb") as file:
        file.seek(-1200, 2)
        an_hour_before_the_end = file.readline().decode().strip()
    read, before = reader_of(name, folder), resident_bytes()
    times = [time.process_time()]
    read(symbols[:1], fields[:1], an_hour_before_the_end)
    times.append(time.process_time())
    after_first = resident_bytes()
    frame = read(symbols, fields, None)
    times.append(time.process_time())
    peak = peak_bytes()
    found = Found(
        first_seconds=times[1] - times[0],
        first_bytes=after_first - before,
        all_seconds=times[2] - times[1],
        again_seconds=0,
        peak_bytes=peak - before,
        values=hashlib.sha256(np.ascontiguousarray(np.asarray(frame).T).data).hexdigest(),
        index="" if name == _FLOOR else _digest_of_index(frame),
    )
    del frame
    began = time.process_time()
    read(symbols, fields, None)
    found.again_seconds = time.process_time() - began
    return found


def _digest_of_index(frame: Any) -> str:
    """Return what decides the rows and columns of a frame: the labels, how they are used, types and names."""
    symbols, times = frame.index.levels
    digest = hashlib.sha256(
        repr((list(symbols), frame.index.names, list(frame.columns), frame.dtypes.tolist())).encode()
    )
    for part in (times.to_numpy(), *(np.asarray(codes, dtype=np.int32) for codes in frame.index.codes)):
        digest.update(str(part.dtype).encode() + part.tobytes())
    return digest.hexdigest()


def measured(name: str, folder: Path) -> Found:
    """Let one reader read, in a process of its own."""
    command = [str(RESEARCH_PYTHON), "-m", "proofs.bench.reading", "--one", name, str(folder)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "research")])
    answer = subprocess.run(  # noqa: S603 - our own program
        command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}
    )
    return msgspec.json.decode(answer.stdout, type=Found)


def in_turns(days: int, symbols: int, fields: int, rounds: int) -> tuple[dict[str, list[Found]], int, str | None]:
    """Let all readers read, in turns; return what each found, how many values there are, and what is wrong."""
    with tempfile.TemporaryDirectory() as made:
        values = make(Path(made) / "qlib_data", days, symbols, fields)
        found: dict[str, list[Found]] = {name: [] for name in READERS}
        for _ in range(rounds):
            for name, runs in found.items():
                runs.append(measured(name, Path(made) / "qlib_data"))
    every = [one for runs in found.values() for one in runs]
    same = len({one.values for one in every}) == 1 and len({one.index for one in every if one.index}) == 1
    return found, values, None if same else f"they have not read the same: {found}"


def figures(days: int, symbols: int, fields: int, rounds: int) -> list[Figure]:
    """Measure the readers. Raises `NotMeasuredError` where two have not read the same."""
    found, values, wrong = in_turns(days, symbols, fields, rounds)
    if wrong:
        raise NotMeasuredError(wrong)

    def beside(name: str, what: str, scale: float) -> Beside:
        return Beside(statistics.median(getattr(one, what) for one in found[name]) * scale, name)

    def figure(work: str, ours: str, what: str, unit: str, scale: float = 1.0) -> Figure:
        amount, peer, floor = (beside(name, what, scale) for name in (ours, READERS[0], _FLOOR))
        return Figure(work, amount.amount, unit, peer, floor)

    name = f"{values:,} values at {FREQ} in Qlib"
    return [
        figure(f"{name}: `perps.features`", READERS[2], "all_seconds", "s of CPU"),
        figure(f"{name}: its memory at most", READERS[2], "peak_bytes", "MB", 1e-6),
        figure(f"{name}: `D.features` after `perps.init`", READERS[1], "all_seconds", "s of CPU"),
        figure(f"{name}: the first query, which needs the calendar", READERS[1], "first_seconds", "s of CPU"),
    ]


def show(found: dict[str, list[Found]], values: int) -> None:
    """Print the medians."""
    table = Table(
        title=f"{values:,} values; seconds of CPU, memory beyond that of an idle process", title_justify="left"
    )
    table.add_column("reader")
    for name in ("first query s", "and keeps MB", "everything s", "again s", "at most MB"):
        table.add_column(name, justify="right")
    for name, runs in found.items():
        first, all_, again = (
            statistics.median(getattr(one, what) for one in runs)
            for what in ("first_seconds", "all_seconds", "again_seconds")
        )
        kept, peak = (statistics.median(getattr(one, what) for one in runs) for what in ("first_bytes", "peak_bytes"))
        table.add_row(name, f"{first:.3f}", f"{kept / 1e6:.0f}", f"{all_:.2f}", f"{again:.2f}", f"{peak / 1e6:.0f}")
    console.print(table)


def main(
    days: Annotated[int, typer.Option(min=1, help="How many days of minutes")] = 365,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols")] = 10,
    fields: Annotated[int, typer.Option(min=1, help="How many fields")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="How often each reader has its turn; the median counts")] = 3,
    one: Annotated[
        tuple[str, Path] | None, typer.Option(hidden=True, help="Be this reader, and say it as JSON")
    ] = None,
) -> None:
    """Measure what reading costs; exits with 1 where two readers have not read the same."""
    if one is not None:
        sys.stdout.write(msgspec.json.encode(measure(*one)).decode())
        return
    found, values, wrong = in_turns(days, symbols, fields, rounds)
    show(found, values)
    if wrong:
        console.print(f"[red]{wrong}")
        sys.exit(1)


if __name__ == "__main__":
    run(main)
