"""`python -m proofs.bench.freshness`: how long after its close a minute is in Qlib, at real speed.

The real services follow a generated market at the pace of the real one, and convert every few seconds. What counts is
what a reader sees: the last label of the 1-minute calendar, which appears once every bin holds the minute.
"""

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli.stack import Stack, StackError, clear, end_on_signals
from proofs.bench.figure import Figure, NotMeasuredError
from proofs.bench.heal import Watch, wait_until
from proofs.rig.systems import subscribed
from shared.grid import MINUTE
from shared.runtime.command import run

FOLDER = Path(".run/freshness")
START = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
_LABEL_BYTES = len("2025-04-05 00:00:00\n")
_LOOK_SECONDS = 0.1
_FIRST_SECONDS = 300.0

console = Console()


def last_minute(qlib_dir: Path) -> datetime | None:
    """Return the open of the last minute that a reader sees; None before the first conversion."""
    try:
        with (qlib_dir / "calendars" / "1min.txt").open("rb") as handle:
            handle.seek(-_LABEL_BYTES, 2)
            return datetime.fromisoformat(handle.read().decode().strip()).replace(tzinfo=UTC)
    except OSError:  # none yet, or none that long
        return None


def measure(stack: Stack, symbols: int, minutes: int) -> list[float]:
    """Return, for some minutes one after the other, the seconds from a minute's close until Qlib shows it."""
    watch, found = Watch(stack), list[float]()
    wait_until("everything is subscribed", lambda: subscribed(stack) >= symbols)
    wait_until("the first conversion", lambda: last_minute(stack.qlib_dir) is not None, _FIRST_SECONDS)
    wait_until("Qlib has caught up", lambda: _lag(stack, watch) < 2 * MINUTE, _FIRST_SECONDS)
    seen = last_minute(stack.qlib_dir)
    with Progress(TextColumn("minutes"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("minutes", total=minutes)
        while len(found) < minutes:
            newest = last_minute(stack.qlib_dir)
            if newest is not None and newest != seen:
                found.append((watch.now() - (newest + MINUTE)).total_seconds())
                seen = newest
                bar.update(task, completed=len(found))
            time.sleep(_LOOK_SECONDS)
    return found


def _lag(stack: Stack, watch: Watch) -> timedelta:
    newest = last_minute(stack.qlib_dir)
    return timedelta.max if newest is None else watch.now() - newest


def in_a_stack(symbols: int, minutes: int, convert_every: int, folder: Path) -> list[float]:
    """Start the system, measure, and stop it. Raises `StackError`."""
    end_on_signals()
    clear(folder)
    settings = {"TOP_N": "all", "BACKFILL_DAYS": "1", "CONVERT_EVERY": str(convert_every)}
    market = ["--symbols", str(symbols), "--start", START.isoformat(), "--speed", "1"]
    with Stack(folder, settings, simulator=market) as stack:
        return measure(stack, symbols, minutes)


def figures(symbols: int, minutes: int, convert_every: int = 5) -> list[Figure]:
    """Measure some minutes. Raises `NotMeasuredError`."""
    try:
        found = in_a_stack(symbols, minutes, convert_every, FOLDER)
    except StackError as error:
        raise NotMeasuredError(str(error)) from error
    name = f"from a minute's close until Qlib has it, {symbols} symbols, `CONVERT_EVERY={convert_every}`"
    return [
        Figure(f"{name}: median of {minutes}", statistics.median(found), "s"),
        Figure(f"{name}: at most", max(found), "s"),
    ]


def main(
    symbols: Annotated[int, typer.Option(min=1, help="Instruments in the universe")] = 50,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes to measure")] = 5,
    convert_every: Annotated[int, typer.Option(min=1, help="CONVERT_EVERY")] = 5,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Measure how long after its close a minute of the whole universe is in Qlib."""
    try:
        found = in_a_stack(symbols, minutes, convert_every, folder)
    except StackError as error:
        console.print(f"not measured: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    console.print(
        f"{symbols} symbols, CONVERT_EVERY={convert_every}: {minutes} minutes in Qlib "
        f"{statistics.median(found):.1f} s after their close, {max(found):.1f} s at most"
    )


if __name__ == "__main__":
    run(main)
