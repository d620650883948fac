"""`python -m proofs.bench.load --symbols 500 --minutes 10`: what a large universe costs, and whether anything is lost.

The system follows a synthetic market at real speed. Processor time and memory of each service are read from the
kernel; in the end every closed minute of the live part is compared with the simulator's truth.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow.dataset as ds
import redis
import typer
from rich.console import Console
from rich.table import Table

from cli.stack import SERVICES, Stack, StackError, clear
from proofs.bench.figure import Figure, NotMeasuredError
from proofs.rig.systems import subscribed
from shared.bus.bus import Bus
from shared.bus.compaction import have_rows_merged
from shared.runtime.command import run

FOLDER = Path(".run/load")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOSE_DEADLINE_SECONDS = 90.0
_SUBSCRIBE_DEADLINE_SECONDS = 120.0

console = Console()


@dataclass
class Use:
    """What a process used: processor seconds since the measuring began, and its largest resident memory in bytes."""

    seconds: float = 0.0
    memory: int = 0


def processor_seconds(pid: int) -> float:
    """Return user and system time of a process, from the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, from the kernel."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def watch(stack: Stack, minutes: float) -> dict[str, Use]:
    """Measure every program for some minutes."""
    programs = ("valkey", "simulator", *SERVICES)
    pids = {name: service_pid(stack.pid(name)) for name in programs}
    began = {name: processor_seconds(pid) for name, pid in pids.items()}
    uses = {name: Use() for name in pids}
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        time.sleep(1.0)
        for name, pid in pids.items():
            uses[name].seconds = processor_seconds(pid) - began[name]
            uses[name].memory = max(uses[name].memory, resident_bytes(pid))
    return uses


def wait_until_subscribed(stack: Stack, members: int) -> None:
    """Wait until every member's candles and funding are subscribed to. Raises `StackError`."""
    deadline = time.monotonic() + _SUBSCRIBE_DEADLINE_SECONDS
    while (there := subscribed(stack)) < members:
        if time.monotonic() > deadline:
            raise StackError(f"only {there} of {members} members are subscribed to")
        time.sleep(0.2)


def service_pid(pid: int) -> int:
    """Return the service's process, where supervisord's child only watches over it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def lost_minutes(stack: Stack, begin: datetime, end: datetime) -> tuple[int, int, int]:
    """Compare the stored closes of [begin, end) with the truth; return how many there are, lack and differ.

    The writer merges first what waits in segments. Raises `StackError` where it does not.
    """
    asyncio.run(_merge(stack.redis_url))
    begin_ms, end_ms = (int(instant.timestamp() * 1000) for instant in (begin, end))
    table = ds.dataset(stack.data_dir / "kline_1m", format="parquet", partitioning=None).to_table(
        columns=["symbol", "open_time", "close", "volume"],
        filter=(ds.field("open_time") >= begin) & (ds.field("open_time") < end),
    )
    stored = {
        (symbol, int(opened.timestamp() * 1000)): (close, volume)
        for symbol, opened, close, volume in zip(*(column.to_pylist() for column in table.columns), strict=True)
    }
    members = redis.Redis.from_url(stack.redis_url, decode_responses=True).get("universe:current")
    expected, lacking, different = 0, 0, 0
    for symbol in _members(str(members)):
        base, _, quote = symbol.partition("_")
        path = f"/sim/truth/candles?instId={base}-{quote}-SWAP&begin={begin_ms}&end={end_ms}"
        for row in _rows(stack.ask_simulator(path)):
            expected += 1
            found = stored.get((symbol, int(row[0])))
            lacking += found is None
            different += found is not None and found != (float(row[4]), float(row[6]))
    return expected, lacking, different


async def _merge(redis_url: str) -> None:
    bus = Bus(redis_url)
    try:
        if not await have_rows_merged(bus, _CLOSE_DEADLINE_SECONDS):
            raise StackError("the writer does not merge what it holds into day files")
    finally:
        await bus.close()


def _members(text: str) -> list[str]:
    import msgspec  # noqa: PLC0415 - only here

    return list(msgspec.json.decode(text)["members"])


def _rows(answer: Any) -> list[list[str]]:
    return list(answer["data"] if isinstance(answer, dict) else answer)


def show(uses: dict[str, Use], minutes: float) -> None:
    """Print what each process used."""
    table = Table(title=f"use over {minutes:g} minutes", title_justify="left")
    for name in ("process", "cores", "memory, MB"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for name, use in uses.items():
        table.add_row(name, f"{use.seconds / (60 * minutes):.3f}", f"{use.memory / 1e6:.0f}")
    console.print(table)


@dataclass
class Loaded:
    """What a run took, and what became of the live minutes."""

    uses: dict[str, Use]
    expected: int
    lacking: int
    different: int
    sources: dict[str, int]

    @property
    def wrong(self) -> str | None:
        """Return what is wrong with the live minutes, or None."""
        if self.expected and not self.lacking and not self.different:
            return None
        return f"of {self.expected:,} live minutes {self.lacking} are lost, {self.different} different"


def measure(symbols: int, minutes: float, backfill_days: int) -> Loaded:
    """Run a large universe at real speed, then compare every live minute with the truth. Raises `StackError`."""
    clear(FOLDER)
    settings = {"TOP_N": str(symbols), "BACKFILL_DAYS": str(backfill_days)}
    with Stack(FOLDER, settings, simulator=["--symbols", str(symbols), "--seed", "1"]) as stack:
        wait_until_subscribed(stack, symbols)
        begin = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        uses = watch(stack, minutes)
        end = datetime.now(UTC).replace(second=0, microsecond=0)
        deadline = time.monotonic() + _CLOSE_DEADLINE_SECONDS
        expected, lacking, different = lost_minutes(stack, begin, end)
        while lacking and time.monotonic() < deadline:
            time.sleep(2)
            expected, lacking, different = lost_minutes(stack, begin, end)
        return Loaded(uses, expected, lacking, different, _sources(stack, begin, end))


def figures(symbols: int, minutes: float, backfill_days: int = 1) -> list[Figure]:
    """Measure what each service takes. Raises `NotMeasuredError` where a minute is lost."""
    try:
        found = measure(symbols, minutes, backfill_days)
    except StackError as error:
        raise NotMeasuredError(str(error)) from error
    if found.wrong:
        raise NotMeasuredError(found.wrong)
    name = f"{symbols} symbols at real speed"
    return [
        figure
        for service in SERVICES
        for figure in (
            Figure(f"{name}: {service}", found.uses[service].seconds / (60 * minutes), "of a core"),
            Figure(f"{name}: {service}, memory at most", found.uses[service].memory / 1e6, "MB"),
        )
    ]


def main(
    symbols: Annotated[int, typer.Option(min=1, help="Size of the synthetic market, all of it in the universe")] = 500,
    minutes: Annotated[float, typer.Option(min=2, help="How long to watch, at real speed")] = 10.0,
    backfill_days: Annotated[int, typer.Option(min=0, help="History that is fetched meanwhile")] = 1,
) -> None:
    """Run a large universe at real speed; show what it costs, and compare every live minute with the truth."""
    found = measure(symbols, minutes, backfill_days)
    show(found.uses, minutes)
    console.print(
        f"{found.expected:,} live minutes: {found.lacking} lost, {found.different} different; by source {found.sources}"
    )
    raise SystemExit(1 if found.wrong else 0)


def _sources(stack: Stack, begin: datetime, end: datetime) -> dict[str, int]:
    table = ds.dataset(stack.data_dir / "kline_1m", format="parquet", partitioning=None).to_table(
        columns=["source"], filter=(ds.field("open_time") >= begin) & (ds.field("open_time") < end)
    )
    return {row["values"]: row["counts"] for row in table["source"].value_counts().to_pylist()}


if __name__ == "__main__":
    run(main)
