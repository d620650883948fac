"""`python -m proofs.bench.convert`: what converting costs, from nothing and a day more, on short and long histories.

The raw folder is made up (`proofs.rig.synthetic_year`). Everything but the last days is converted from nothing, then
one day after the other is added: the cost of a day must not depend on how many there are before it.
"""

import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from proofs.rig.synthetic_year import Market, make
from services.converter.convert import convert
from services.converter.report import ConversionReport
from shared.datasets.candle import Candle
from shared.grid import day_start
from shared.runtime.command import run
from shared.storage.layout import days as raw_days

_ADDED = 7
"""Days that are added one after the other; their median counts."""


def timed(raw: Path, qlib: Path, until: datetime) -> tuple[float, ConversionReport]:
    """Convert, and return how many seconds it took."""
    began = time.perf_counter()
    report = convert(raw, qlib, until=until)
    return time.perf_counter() - began, report


def measure(days: int, symbols: int, seed: int) -> tuple[int, float, float]:
    """Return candles converted from nothing, seconds for that, and the median seconds of one more day."""
    with tempfile.TemporaryDirectory() as made:
        raw, qlib = Path(made) / "okx_data", Path(made) / "qlib_data"
        list(make(Market(symbols, days + _ADDED, seed, members=min(20, symbols), gaps=False), raw, workers=1))
        end = day_start(raw_days(raw, Candle.dataset)[-1]) + timedelta(days=1)
        whole, report = timed(raw, qlib, end - timedelta(days=_ADDED))
        one_more = [timed(raw, qlib, end - timedelta(days=ahead))[0] for ahead in reversed(range(_ADDED))]
    return report.bars, whole, statistics.median(one_more)


def main(
    days: Annotated[list[int] | None, typer.Option(help="Lengths of history [default: 30 1095]")] = None,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols")] = 10,
    seed: Annotated[int, typer.Option(help="Another one, another market")] = 1,
) -> None:
    """Measure a conversion from nothing, and of one more day, on histories of several lengths."""
    console = Console()
    table = Table(title=f"{symbols} symbols, seven frequencies; {datetime.now(UTC):%F}", title_justify="left")
    for name in ("days", "candles", "from nothing s", "candles a second", "one more day s"):
        table.add_column(name, justify="right")
    daily = []
    for length in days or [30, 1095]:
        candles, whole, one_more = measure(length, symbols, seed)
        daily.append(one_more)
        table.add_row(str(length), f"{candles:,}", f"{whole:.2f}", f"{candles / whole:,.0f}", f"{one_more:.3f}")
    console.print(table)
    console.print(f"one more day, the last history against the first: {daily[-1] / daily[0]:.2f}")


if __name__ == "__main__":
    run(main)
