"""`python -m cli.research.dataframe`: what Qlib itself reads in a folder, in its own environment."""

import logging
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.runtime.command import run

FIELDS = ["$open", "$high", "$low", "$close", "$volume", "$funding_rate"]


def main(
    qlib_dir: Annotated[Path, typer.Option(help="Qlib's provider folder")] = Path("qlib_data"),
    rows: Annotated[int, typer.Option(min=1, help="How many rows of each DataFrame")] = 8,
) -> None:
    """Read a folder with the real pyqlib and print its newest rows."""
    data = _open(qlib_dir)
    for freq in ("1min", "day"):
        calendar = data.calendar(freq=freq)
        bars = data.features(data.instruments("all"), FIELDS, freq=freq)
        typer.echo(f"\n{freq}: {len(calendar):,} bars, {calendar[0]} to {calendar[-1]}; {len(bars):,} rows")
        if freq == "1min":  # a day bar opens before most rankings of its day
            members = data.list_instruments(data.instruments("top50"), freq=freq)
            typer.echo(f"in the top 50 at some time: {', '.join(sorted(members))}")
        typer.echo()
        typer.echo(bars.sort_index(level="datetime", sort_remaining=True).tail(rows).to_string())


def _open(qlib_dir: Path) -> Any:
    """Initialise Qlib and return its data interface. Qlib warns about much that is no fault of the data."""
    warnings.filterwarnings("ignore")
    import qlib  # noqa: PLC0415 - slow, and its warnings are filtered first
    from qlib.constant import REG_CN  # noqa: PLC0415 - the same
    from qlib.data import D  # noqa: PLC0415 - the same

    qlib.init(provider_uri=str(qlib_dir), region=REG_CN, kernels=1, logging_level=logging.ERROR)
    return D


if __name__ == "__main__":
    run(main)
