"""`python -m proofs.bench.ledger`: what a year of ledger costs on disk, in time and in memory.

Writes ledger files as the writer does into a temporary folder: most days are whole, outages make holes that all symbols
share, some symbols have holes of their own, join or leave. Then another process, whose memory nothing else has
touched, reads them as the api does and sums them up.
"""

import random
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from proofs.bench.figure import Beside, Figure, NotMeasuredError
from services.api.completeness.days import by_symbol, per_cent, sum_of
from services.api.completeness.reader import LedgerReader
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import CANDLES, LedgerRow
from shared.grid import DAY, MINUTES_PER_DAY, day_start
from shared.ledger.day import Account, DayLedger, to_row, total
from shared.ledger.minutes import FULL_DAY, mask_from_minutes, span_mask
from shared.runtime.command import run
from shared.storage.layout import Partition
from shared.storage.parquet import table_of, write_table
from shared.symbol import parse_symbol

FIRST = date(2025, 1, 1)
_PAGE = 4096
_LARGEST_SIGNATURE = 10**19

console = Console()


class Found(msgspec.Struct):
    """What reading took."""

    rows: int
    load_seconds: float
    sum_seconds: float
    again_seconds: float
    floor_seconds: float
    """For reading the same files into columns, and nothing else."""
    bytes: int
    total: dict[str, int]
    complete: str | None


def holes(chance: random.Random, most: int, longest: int) -> int:
    """Return some runs of minutes of a day."""
    mask = 0
    for _ in range(chance.randint(1, most)):
        first = chance.randrange(MINUTES_PER_DAY)
        mask |= span_mask(first, min(MINUTES_PER_DAY - 1, first + chance.randrange(longest)))
    return mask


def sometimes(chance: random.Random, share: float, most: int, longest: int) -> int:
    """Return holes on that share of the days."""
    return holes(chance, most, longest) if chance.random() < share else 0


def a_ledger(chance: random.Random, outage: int) -> tuple[DayLedger, DayLedger]:
    """Return a symbol's day, candles and funding: `outage` was healed for all, one in ten has gaps of its own."""
    healed = outage | sometimes(chance, 0.1, 3, 8)
    absent, missing = sometimes(chance, 0.01, 2, 60), sometimes(chance, 0.002, 2, 10)
    wanted = FULL_DAY & ~sometimes(chance, 0.02, 1, MINUTES_PER_DAY)  # it joins or leaves
    settled = mask_from_minutes(range(0, MINUTES_PER_DAY, MINUTES_PER_DAY // 3))
    healed &= ~absent & ~missing
    candles = DayLedger(
        wanted=wanted,
        received=wanted & ~healed & ~absent & ~missing,
        healed=wanted & healed,
        absent=wanted & absent,
    )
    return candles, DayLedger(wanted=settled & wanted, received=settled & wanted)


def make(root: Path, days: int, symbols: int, seed: int, first: date = FIRST) -> Account:
    """Write the files of some days from the first one on; return what they hold."""
    chance, truth = random.Random(seed), []
    for number in range(days):
        day = first + timedelta(days=number)
        outage = sometimes(chance, 0.3, 2, 30)
        ledgers = {f"S{symbol}_USDT": a_ledger(chance, outage) for symbol in range(symbols)}
        rows = [
            to_row(
                "okx",
                parse_symbol(name),
                day,
                ledger,
                f"{chance.randrange(10**5)}-{chance.randrange(_LARGEST_SIGNATURE)}-{symbol}"
                if about == CANDLES
                else "",
                about=about,
            )
            for symbol, (name, both) in enumerate(ledgers.items())
            for about, ledger in zip((CANDLES, FundingRate.dataset), both, strict=True)
        ]
        write_table(Partition(LedgerRow.dataset, day).path(root), table_of(LedgerRow, rows), sync_folder=False)
        truth += [
            Account(
                wanted=ledger.wanted.bit_count(),
                received=ledger.received.bit_count(),
                healed=ledger.healed.bit_count(),
                absent=ledger.absent.bit_count(),
                missing=(ledger.wanted & ~ledger.stored & ~ledger.absent).bit_count(),
            )
            for ledger, _ in ledgers.values()
        ]
    return total(truth)


def resident_bytes() -> int:
    """Return this process's memory, from the kernel."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def read(root: Path, days: int) -> Found:
    """Read and sum up everything, as the api does, twice; then let PyArrow read the same files."""
    reader, before = LedgerReader(root), resident_bytes()
    asked = [FIRST + timedelta(days=number) for number in range(days)]
    begin, end = day_start(asked[0]), day_start(asked[-1]) + DAY
    times = [time.perf_counter()]
    loaded = reader.stored(asked)
    times.append(time.perf_counter())
    everything = sum_of(one for found in by_symbol(loaded.values(), begin, end).values() for one in found)
    times.append(time.perf_counter())
    by_symbol(reader.stored(asked).values(), begin, end)
    times.append(time.perf_counter())
    used = resident_bytes() - before
    began = time.perf_counter()
    for day in asked:
        pq.read_table(Partition(LedgerRow.dataset, day).path(root), partitioning=None)
    floor_seconds = time.perf_counter() - began
    return Found(
        rows=sum(len(day.minutes.ledgers) for day in loaded.values()),
        load_seconds=times[1] - times[0],
        sum_seconds=times[2] - times[1],
        again_seconds=times[3] - times[2],
        floor_seconds=floor_seconds,
        bytes=used,
        total=everything.minutes._asdict(),
        complete=per_cent(everything),
    )


def measure(days: int, symbols: int, seed: int) -> tuple[Found, int, str | None]:
    """Write a ledger, and let another process read it; return what it found, bytes on disk, and what is wrong."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        truth = make(root, days, symbols, seed)._asdict()
        on_disk = sum(file.stat().st_size for file in root.rglob("*.parquet"))
        command = [sys.executable, "-m", "proofs.bench.ledger", "--folder", made, "--days", str(days)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
        found = msgspec.json.decode(answer.stdout, type=Found)
    return found, on_disk, None if found.total == truth else f"written {truth}, read {found.total}"


def figures(days: int, symbols: int, seed: int = 1) -> list[Figure]:
    """Measure a ledger. Raises `NotMeasuredError` where the sums differ from what was written."""
    found, on_disk, wrong = measure(days, symbols, seed)
    if wrong:
        raise NotMeasuredError(wrong)
    name, floor = f"{days} days of ledger of {symbols} symbols", Beside(found.floor_seconds, "PyArrow, columns only")
    return [
        Figure(f"{name}: read and summed up", found.load_seconds + found.sum_seconds, "s", floor=floor),
        Figure(f"{name}: asked for again", found.again_seconds, "s"),
        Figure(f"{name}: in memory", found.bytes / 1e6, "MB"),
        Figure(f"{name}: on disk", on_disk / 1e6, "MB"),
    ]


def show(found: Found, on_disk: int) -> None:
    """Print what it costs."""
    console.print(f"a ledger of {found.rows:,} symbol-days, {found.complete} complete")
    table = Table()
    table.add_column("what")
    table.add_column("cost", justify="right")
    for what, cost in (
        ("on disk", f"{on_disk / 1e6:.1f} MB"),
        ("read", f"{found.load_seconds:.2f} s"),
        ("summed up", f"{found.sum_seconds:.2f} s"),
        ("asked again", f"{found.again_seconds:.2f} s"),
        ("read by PyArrow into columns", f"{found.floor_seconds:.2f} s"),
        ("memory", f"{found.bytes / 1e6:.0f} MB"),
    ):
        table.add_row(what, cost)
    console.print(table)


def main(
    days: Annotated[int, typer.Option(min=1, help="How many days")] = 365,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols")] = 500,
    seed: Annotated[int, typer.Option(help="What decides the holes")] = 1,
    folder: Annotated[Path | None, typer.Option(hidden=True, help="Read this one, and say it as JSON")] = None,
) -> None:
    """Measure what a year of ledger costs; exits with 1 where the sums differ from what was written."""
    if folder is not None:
        sys.stdout.write(msgspec.json.encode(read(folder, days)).decode())
        return
    found, on_disk, wrong = measure(days, symbols, seed)
    show(found, on_disk)
    if wrong:
        console.print(f"[red]{wrong}")
        sys.exit(1)


if __name__ == "__main__":
    run(main)
