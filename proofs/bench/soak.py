"""`python -m proofs.bench.soak --days 7 --symbols 100`: a simulated week in some minutes, to see what grows.

Once a simulated hour it is noted what Redis holds, what each process takes, and what lies on disk beside the data.
After the first day, in which everything is filled for the first time, nothing of it may grow.
"""

import csv
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.stack import SERVICES, Stack, StackError, clear, end_on_signals
from proofs.bench.figure import Figure, NotMeasuredError
from proofs.bench.load import resident_bytes, service_pid, wait_until_subscribed
from proofs.units import DAY_MS
from shared.runtime.command import run

FOLDER = Path(".run/soak")
START = datetime(2026, 3, 1, tzinfo=UTC)
PROGRAMS = ("valkey", *SERVICES)
_POLL_SECONDS = 0.2
_MOST_SHARE = 0.02
"""A quantity is flat when it grows by less than this share of itself a day ..."""
_MOST = {
    "redis MB": 1.0,
    "stream": 500.0,
    "RSS MB": 1.5,
    "files": 1.0,
    "threads": 0.5,
    "logs MB": 1.0,
    "temporary MB": 0.5,
}
"""... or by less than this."""
_BOUNDS = {"AOF MB": 200.0}
"""What goes up and down, too seldom for a slope: Redis rewrites its AOF when it has doubled, from 64 MB on."""

Sample = dict[str, float]
"""Name of a quantity, such as "RSS MB writer" → how much."""

console = Console()


def take_sample(stack: Stack, client: Any) -> Sample:
    """Measure everything that must stay bounded. A program that is just being restarted is left out."""
    found: Sample = {"redis MB": int(client.info("memory")["used_memory"]) / 1e6}
    for key in client.scan_iter("*", _type="STREAM"):
        found[f"stream {key}"] = float(client.xlen(key))
    for program in PROGRAMS:
        with suppress(StackError, OSError):
            pid = stack.pid(program)
            pid = pid if program == "valkey" else service_pid(pid)  # Valkey's children rewrite its AOF
            found[f"RSS MB {program}"] = resident_bytes(pid) / 1e6
            found[f"files {program}"] = float(len(list(Path(f"/proc/{pid}/fd").iterdir())))
            found[f"threads {program}"] = float(len(list(Path(f"/proc/{pid}/task").iterdir())))
    found["logs MB"] = _size(stack.folder / "logs", "*") / 1e6
    found["AOF MB"] = _size(stack.folder / "valkey", "*") / 1e6
    found["temporary MB"] = sum(_size(root, ".*.tmp") for root in (stack.data_dir, stack.qlib_dir)) / 1e6
    return found


def _size(folder: Path, pattern: str) -> int:
    total = 0
    for path in folder.rglob(pattern):
        with suppress(FileNotFoundError):  # renamed or removed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def growth_per_day(samples: Sequence[tuple[float, float]]) -> float:
    """Return by how much a quantity grows a day: the median of the slopes between all samples (day, amount). Pure.

    A median, since some quantities go up and down, and a few samples fall into a conversion.
    """
    slopes = [(after - before) / (later - sooner) for (sooner, before), (later, after) in combinations(samples, 2)]
    return statistics.median(slopes) if slopes else 0.0


def is_flat(name: str, samples: Sequence[tuple[float, float]]) -> bool:
    """Return whether a quantity grows by no more than it may. Pure."""
    if name in _BOUNDS:
        return max(amount for _, amount in samples) <= _BOUNDS[name]
    allowed = next(most for kind, most in _MOST.items() if name.startswith(kind))
    typical = statistics.median(amount for _, amount in samples)
    return growth_per_day(samples) <= max(allowed, _MOST_SHARE * typical)


def after_first_day(taken: Sequence[tuple[float, Sample]]) -> dict[str, list[tuple[float, float]]]:
    """Return each quantity's samples after the first day. Pure."""
    found: dict[str, list[tuple[float, float]]] = {}
    for day, sample in taken:
        if day >= 1.0:
            for name, amount in sample.items():
                found.setdefault(name, []).append((day, amount))
    return {name: samples for name, samples in sorted(found.items()) if len(samples) > 1}


def soak(stack: Stack, client: Any, days: float) -> list[tuple[float, Sample]]:
    """Take a sample every simulated hour. Returns (simulated days since the beginning, sample)."""
    taken: list[tuple[float, Sample]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("soak", total=days)
        while (day := _day(stack)) < days:
            if day >= len(taken) / 24:
                taken.append((day, take_sample(stack, client)))
            bars.update(task, completed=day, description=f"day {1 + int(day)}")
            time.sleep(_POLL_SECONDS)
    return taken


def _day(stack: Stack) -> float:
    clock = stack.ask_simulator("/sim/clock")
    return float(clock["now_ms"] - clock["start_ms"]) / DAY_MS


def show(taken: Sequence[tuple[float, Sample]], flat: Mapping[str, bool]) -> None:
    """Print the most of each quantity in each day, and whether it is flat."""
    last = int(taken[-1][0]) if taken else 0
    table = Table(title="most in each simulated day", title_justify="left")
    table.add_column("quantity")
    for day in range(last + 1):
        table.add_column(str(day + 1), justify="right")
    table.add_column("a day", justify="right")
    table.add_column("flat")
    later = after_first_day(taken)
    for name in sorted({name for _, sample in taken for name in sample}):
        most = [
            max((sample[name] for at, sample in taken if int(at) == day and name in sample), default=0.0)
            for day in range(last + 1)
        ]
        growth = f"{growth_per_day(later[name]):+.2f}" if name in later else ""
        verdict = {True: "yes", False: "[red]NO[/red]"}.get(flat.get(name, True)) if name in flat else "?"
        table.add_row(name, *(f"{amount:,.1f}" for amount in most), growth, verdict)
    console.print(table)


def write_csv(path: Path, taken: Sequence[tuple[float, Sample]]) -> None:
    """Write one line per sample."""
    names = sorted({name for _, sample in taken for name in sample})
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["day", *names])
        writer.writerows([f"{day:.4f}", *(sample.get(name, "") for name in names)] for day, sample in taken)


def unwell(client: Any) -> list[str]:
    """Return which services complain at the end: a system that does not keep up proves nothing by being small."""
    found = []
    for service in SERVICES:
        beat = json.loads(client.get(f"heartbeat:{service}") or "{}")
        if beat.get("state") != "ok":
            found.append(f"{service}: {beat.get('reason', 'says nothing')}")
    return found


def measure(
    days: float, symbols: int, *, speed: float, backfill_days: int, seed: int, folder: Path
) -> tuple[list[tuple[float, Sample]], list[str]]:
    """Run some simulated days; return the samples, and which services complain at the end.

    Raises `StackError`, `OSError` and `redis.RedisError`.
    """
    market = ["--symbols", str(symbols), "--seed", str(seed), "--start", START.isoformat(), "--speed", f"{speed:g}"]
    settings = {"TOP_N": str(symbols), "BACKFILL_DAYS": str(backfill_days), "RETENTION_DAYS": str(backfill_days + 1)}
    settings["FLUSH_SECONDS"] = "2"
    settings["COMPACT_EVERY"] = f"{60 / speed:g}"  # every simulated hour
    clear(folder)
    with Stack(folder, settings, simulator=market) as stack:
        client: Any = redis.Redis.from_url(stack.redis_url, decode_responses=True)
        wait_until_subscribed(stack, symbols)
        taken = soak(stack, client, days)
        complaints = unwell(client)
        client.close()
    return taken, complaints


def figures(days: float, symbols: int, speed: float = 300.0, backfill_days: int = 1, seed: int = 1) -> list[Figure]:
    """Measure by how much each process grows. Raises `NotMeasuredError` where a service is not well."""
    end_on_signals()
    try:
        taken, complaints = measure(days, symbols, speed=speed, backfill_days=backfill_days, seed=seed, folder=FOLDER)
    except (StackError, OSError, redis.RedisError) as error:
        raise NotMeasuredError(str(error)) from error
    later = after_first_day(taken)
    grown = [name for name, samples in later.items() if not is_flat(name, samples)]
    if complaints or grown or not later:
        raise NotMeasuredError("; ".join([*complaints, *(f"grows: {name}" for name in grown)]) or "too few samples")
    name = f"{days:g} simulated days of {symbols} symbols"
    return [
        Figure(f"{name}: {quantity}, at most", max(amount for _, amount in samples), "MB")
        for quantity, samples in later.items()
        if quantity.startswith(("RSS MB", "redis MB"))
    ]


def main(
    *,
    days: Annotated[float, typer.Option(min=1.2, help="Simulated days; the first is not judged")] = 7.0,
    symbols: Annotated[int, typer.Option(min=2, help="Size of the generated market, all of it in the universe")] = 100,
    speed: Annotated[float, typer.Option(min=1, help="Simulated seconds per second")] = 300.0,
    backfill_days: Annotated[int, typer.Option(min=1, help="Days of history to fetch")] = 1,
    seed: Annotated[int, typer.Option(help="Decides the market")] = 1,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Where the samples go [default: in the folder]")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Run some simulated days; show what Redis, processes and disk take, and whether it stays the same."""
    end_on_signals()
    try:
        taken, complaints = measure(days, symbols, speed=speed, backfill_days=backfill_days, seed=seed, folder=folder)
    except (StackError, OSError, redis.RedisError) as error:
        console.print(f"[red]soak failed:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    flat = {name: is_flat(name, samples) for name, samples in after_first_day(taken).items()}
    show(taken, flat)
    samples_file = csv_file or folder / "soak.csv"
    write_csv(samples_file, taken)
    console.print(f"{len(taken)} samples: {samples_file}", soft_wrap=True)
    for complaint in complaints:
        console.print(f"not well at the end: {complaint}", markup=False, soft_wrap=True)
    grown = [name for name, stays in flat.items() if not stays]
    console.print("[green]nothing grows[/green]" if not grown else f"[red]GROWS[/red]: {', '.join(grown)}")
    raise SystemExit(0 if flat and not grown and not complaints else 1)


if __name__ == "__main__":
    run(main)
