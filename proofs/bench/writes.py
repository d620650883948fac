"""`python -m proofs.bench.writes`: how many bytes the writer writes in a day, beside the size of that day's files.

The writer's store gets the rows of some days as they come: each minute the candles of all symbols and some predictions,
at each settlement the rates. It appends them, and merges them as often as the setting says. No bus, no clock: only what
goes to the disk, which the kernel counts for this process.
"""

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cli.stack import ROOT, end_on_signals
from proofs.bench.figure import Beside, Figure
from proofs.rig.made_up import a_candle
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.ledger import Verdict
from shared.datasets.row import Row
from shared.grid import MINUTE, MINUTES_PER_DAY
from shared.runtime.command import run
from shared.symbol import Symbol, parse_symbol

FOLDER = ROOT / ".run" / "writes"
START = datetime(2026, 3, 1, tzinfo=UTC)
_SETTLED_EVERY = 480
"""Minutes."""

console = Console()


@dataclass
class Day:
    """What a day cost."""

    written: int
    """Bytes, as the kernel counts them for this process: pages that were made dirty."""
    final: int
    """Bytes of the day's files at its end."""
    processor_seconds: float

    @property
    def times(self) -> float:
        """How often each byte was written."""
        return self.written / self.final


def rows_of(minute: int, symbols: Sequence[Symbol], dice: random.Random) -> dict[type[Row], list[Row]]:
    """Return what comes with a minute. A symbol is predicted about once a minute."""
    opened = START + minute * MINUTE
    found: dict[type[Row], list[Row]] = {
        Candle: [a_candle(symbol, opened, dice) for symbol in symbols],
        PredictedFundingRate: [_prediction(symbol, opened, dice) for symbol in symbols],
    }
    if minute % _SETTLED_EVERY == 0:
        found[FundingRate] = [_settled(symbol, opened, dice) for symbol in symbols]
    return found


def _prediction(symbol: Symbol, opened: datetime, dice: random.Random) -> PredictedFundingRate:
    known = opened + timedelta(milliseconds=dice.randrange(60_000))
    return PredictedFundingRate(
        exchange="okx",
        symbol=symbol,
        known_time=known,
        funding_time=START + (opened - START + timedelta(hours=8)) // timedelta(hours=8) * timedelta(hours=8),
        funding_rate=dice.gauss(0, 1e-4),
        interval_hours=8,
        source="ws",
        receive_time=known,
    )


def _settled(symbol: Symbol, at: datetime, dice: random.Random) -> FundingRate:
    return FundingRate(
        exchange="okx",
        symbol=symbol,
        funding_time=at,
        funding_rate=dice.gauss(0, 1e-4),
        interval_hours=8,
        known_time=at + MINUTE,
        source="rest",
        receive_time=at + MINUTE,
    )


def measure(folder: Path, days: int, symbols: int, compact_minutes: int) -> Iterator[Day]:
    """Store some days, and say of each what it cost."""
    names, dice, store = (
        [parse_symbol(f"S{number}_USDT") for number in range(symbols)],
        random.Random(1),
        RawStore(folder),
    )
    for day in range(days):
        before, processor, made = written_bytes(), 0.0, range(day * MINUTES_PER_DAY, (day + 1) * MINUTES_PER_DAY)
        for minute in track(made, f"day {day + 1} of {days}", console=console, transient=True):
            rows = rows_of(minute, names, dice)
            verdicts = [_wanted(names, minute)] if minute % MINUTES_PER_DAY == 0 else []
            began = time.process_time()
            store.append(rows, verdicts)
            if (minute + 1) % compact_minutes == 0:
                chosen = store.begin_compaction()
                store.merge(chosen)
                store.end_compaction(chosen)
            processor += time.process_time() - began
        name = (START + timedelta(days=day)).date().isoformat()
        final = sum(path.stat().st_size for path in folder.glob(f"*/date={name}/*.parquet"))
        yield Day(written_bytes() - before, final, processor)


def _wanted(symbols: Sequence[Symbol], minute: int) -> Verdict:
    begin = START + minute * MINUTE
    return Verdict(
        exchange="okx",
        verdict="wanted",
        symbols=tuple(symbols),
        begin=begin,
        end=begin + timedelta(days=1),
        known_time=begin,
    )


def written_bytes() -> int:
    """Return how many bytes this process has had written to disks since it began."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def figures(symbols: int, compact: int = 60) -> list[Figure]:
    """Measure the first day."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (day,) = measure(FOLDER / "okx_data", 1, symbols, compact)
    shutil.rmtree(FOLDER, ignore_errors=True)
    name = f"a day of {symbols} symbols, merged every {compact} minutes"
    final = Beside(day.final / 1e6, "the day's files at its end")
    return [
        Figure(f"{name}: written to the disk", day.written / 1e6, "MB", floor=final),
        Figure(f"{name}: appended and merged", day.processor_seconds, "s of CPU"),
    ]


def main(
    days: Annotated[int, typer.Option(min=1)] = 1,
    symbols: Annotated[int, typer.Option(min=1)] = 500,
    compact: Annotated[int, typer.Option(min=1, max=1440, help="COMPACT_EVERY, in minutes")] = 60,
) -> None:
    """Measure what the writer writes in a day, beside the size of the day's files."""
    end_on_signals()
    shutil.rmtree(FOLDER, ignore_errors=True)
    table = Table(
        "day",
        "written, MB",
        "final files, MB",
        "times",
        "s of CPU",
        title=f"{symbols} symbols, merged every {compact} min",
    )
    for number, day in enumerate(measure(FOLDER / "okx_data", days, symbols, compact), start=1):
        cells = (
            f"{day.written / 1e6:,.0f}",
            f"{day.final / 1e6:,.1f}",
            f"{day.times:.1f}",
            f"{day.processor_seconds:.0f}",
        )
        table.add_row(str(number), *cells)
    console.print(table)
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    run(main)
