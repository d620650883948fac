"""`python -m proofs.bench.heal`: measure how long a lost hour of the whole universe takes to heal.

The real stack follows a generated market at 60 times the speed, within the exchange's real limits. For a minute of our
time, an hour of theirs, the exchange refuses every connection and every request; then it is back. Measured is the time
from the reconnect until every minute of that hour is on disk.
"""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli.stack import Stack, StackError, clear, end_on_signals
from proofs.bench.figure import Figure, NotMeasuredError
from proofs.rig.systems import subscribed
from shared.datasets.ledger import CANDLES
from shared.grid import MINUTE, days_between, floor_minute, from_ms
from shared.ledger.day import DayLedger, from_bus
from shared.ledger.minutes import day_mask
from shared.runtime.command import run

FOLDER = Path(".run/heal")
SPEED = 60
OUTAGE_SECONDS = 60.0
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
_DEADLINE_SECONDS = 120.0
_LOOK_SECONDS = 0.05

console = Console()


class Watch:
    """What a running stack shows to the outside."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._redis: Any = redis.Redis.from_url(stack.redis_url, decode_responses=True)

    def now(self) -> datetime:
        """Return the exchange's time."""
        return from_ms(self.stack.ask_simulator("/sim/clock")["now_ms"])

    def connected(self) -> bool:
        """Return whether candles are subscribed."""
        return bool(self.stack.ask_simulator("/sim/stats")["connections_now"]["business"])

    def stored(self, begin: datetime, end: datetime) -> int:
        """Return how many minutes of [begin, end) the writer's ledger has, over all symbols."""
        return sum(
            (known.stored & day_mask(day, begin, end)).bit_count()
            for day in days_between(begin, end)
            for known in self._of_candles(day)
        )

    def healed(self, begin: datetime, end: datetime) -> int:
        """Return how many of them came over REST."""
        return sum(
            (known.healed & day_mask(day, begin, end)).bit_count()
            for day in days_between(begin, end)
            for known in self._of_candles(day)
        )

    def _of_candles(self, day: date) -> Iterable[DayLedger]:
        return from_bus(self._redis.hgetall(f"ledger:{day}")).get(CANDLES, {}).values()


def wait_until(what: str, holds: Callable[[], bool], seconds: float = _DEADLINE_SECONDS) -> float:
    """Wait for something; return how long it took. Raises `StackError` where it does not come."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise StackError(f"did not happen within {seconds:.0f} s: {what}")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


def strike(watch: Watch, seconds: float) -> tuple[datetime, datetime]:
    """Let the exchange be gone for some seconds of ours; return the minutes in which nothing could be received."""
    gone = {"duration": seconds, "clock": "wall"}
    begin = floor_minute(watch.now()) + MINUTE
    watch.stack.tell_simulator("/sim/faults", [{"kind": "http_error", **gone}, {"kind": "drop", **gone}])
    with Progress(TextColumn("outage"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("outage", total=seconds)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            bar.update(task, completed=passed)
            time.sleep(_LOOK_SECONDS)
    return begin, floor_minute(watch.now()) - MINUTE


def measure(stack: Stack, symbols: int, seconds: float) -> tuple[int, int, float, float]:
    """Return how many minutes were lost, how many came over REST, seconds to the reconnect and from there to healed."""
    watch = Watch(stack)
    wait_until("everything is subscribed", lambda: subscribed(stack) >= symbols)
    begin = floor_minute(watch.now())
    wait_until("candles are stored", lambda: watch.stored(begin, begin + 5 * MINUTE) >= 5 * symbols)
    begin, end = strike(watch, seconds)
    lost = symbols * ((end - begin) // MINUTE)
    to_reconnect = wait_until("the collector is connected again", watch.connected)
    to_healed = wait_until("the hour is healed", lambda: watch.stored(begin, end) >= lost)
    return lost, watch.healed(begin, end), to_reconnect, to_healed


def in_a_stack(symbols: int, seconds: float, folder: Path) -> tuple[int, int, float, float]:
    """Start the system, measure, and stop it. Raises `StackError`."""
    end_on_signals()
    clear(folder)
    settings = {"TOP_N": "all", "BACKFILL_DAYS": "0"}
    market = ["--symbols", str(symbols), "--start", START.isoformat(), "--speed", str(SPEED)]
    with Stack(folder, settings, simulator=market) as stack:
        return measure(stack, symbols, seconds)


def figures(symbols: int, outage_seconds: float) -> list[Figure]:
    """Measure an outage. Raises `NotMeasuredError`."""
    try:
        lost, _, _, to_healed = in_a_stack(symbols, outage_seconds, FOLDER)
    except StackError as error:
        raise NotMeasuredError(str(error)) from error
    outage = timedelta(seconds=outage_seconds * SPEED)
    work = f"from the reconnect until {lost:,} minutes of {symbols} symbols, lost in an outage of {outage}, are on disk"
    return [Figure(work, to_healed, "s")]


def main(
    symbols: Annotated[int, typer.Option(min=1, help="Instruments in the universe")] = 50,
    outage_seconds: Annotated[
        float, typer.Option(min=5, help=f"How long the exchange is gone; each is {SPEED} of its own")
    ] = OUTAGE_SECONDS,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Lose an hour of the whole universe, and measure how long it takes to heal."""
    try:
        lost, over_rest, to_reconnect, to_healed = in_a_stack(symbols, outage_seconds, folder)
    except StackError as error:
        console.print(f"not measured: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    outage = timedelta(seconds=outage_seconds * SPEED)
    console.print(
        f"{symbols} symbols, outage of {outage}: {lost:,} minutes lost, {over_rest:,} of them fetched over REST; "
        f"connected again after {to_reconnect:.1f} s, everything on disk {to_healed:.1f} s later"
    )


if __name__ == "__main__":
    run(main)
