"""`python -m proofs.readers --kills 50`: a reader must never see half, though the converter dies all the time.

Candles come in minute after minute, some of them hours late; a converter that never rests is killed with -9 again and
again; meanwhile the real pyqlib reads the newest hours in a loop, in a process of its own
(`proofs.readers.qlib_reader`).
"""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli.stack import ROOT, clear, end_on_signals
from proofs.readers.qlib_reader import BEGIN, READY, SYMBOLS, ReaderTally, candles, is_late
from proofs.rig.conversion import RESEARCH_PYTHON
from services.converter.convert import convert
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.row import Row
from shared.runtime.command import run
from shared.storage.files import BusyError, replace_text
from shared.storage.segments import segments_of
from shared.symbol import parse_symbol

FOLDER = Path(".run/readers")
_HISTORY_MINUTES = 1500
_LATE_MINUTES = 120
_SEGMENTS_AT_ONCE = 5
_LIFE_SECONDS = (0.05, 1.5)
"""How long a converter lives once it has started: some part of a conversion, or some of them."""
_LOADED_LATE = ("pandas", "pyarrow.dataset")
"""What pyarrow loads at the first conversion: a life is for converting, and begins behind that."""
_MINUTE_SECONDS = 0.05
_READER_SECONDS = 60.0

console = Console()


def rows_of(symbol: str, minutes: range, *, late: bool) -> list[Candle]:
    """Return the candles of some minutes: those that are in time, or those that are late."""
    numbers = np.array(minutes, np.int64)
    numbers = numbers[is_late(symbol, numbers) == late]
    columns = candles(symbol, numbers)
    return [
        Candle(
            exchange="okx",
            symbol=parse_symbol(symbol),
            interval="1m",
            open_time=BEGIN + timedelta(minutes=int(number)),
            **{name: float(values[at]) for name, values in columns.items()},
            amount=float(columns["volume"][at] * columns["close"][at]),
            contracts=1.0,
            source="ws",
            receive_time=BEGIN + timedelta(minutes=int(number) + 1),
        )
        for at, number in enumerate(numbers)
    ]


def add(data_dir: Path, minutes: range) -> None:
    """Store what arrives with some minutes: their candles, and late ones of hours ago. Now and then it is merged."""
    behind = range(max(0, minutes.start - _LATE_MINUTES), max(0, minutes.stop - _LATE_MINUTES))
    rows: list[Row] = []
    for symbol in SYMBOLS:
        rows += rows_of(symbol, minutes, late=False) + rows_of(symbol, behind, late=True)
    store = RawStore(data_dir)
    store.append({Candle: rows})
    if len(segments_of(data_dir)) >= _SEGMENTS_AT_ONCE:
        store.recover()
    replace_text(_watermark(data_dir), str(minutes.stop))


def _watermark(data_dir: Path) -> Path:
    """Return where it is said up to which minute everything is stored: elsewhere the writer says so on the bus."""
    return data_dir.parent / "written_until"


def written_until(data_dir: Path) -> datetime:
    """Return the instant up to which everything is stored."""
    return BEGIN + timedelta(minutes=int(_watermark(data_dir).read_text()))


def rest_never(data_dir: Path, qlib_dir: Path) -> None:
    """Convert for ever; this is the process that is killed."""
    for module in _LOADED_LATE:
        import_module(module)
    _started(data_dir).touch()
    while True:
        with suppress(BusyError):
            convert(data_dir, qlib_dir, until=written_until(data_dir))


def _started(data_dir: Path) -> Path:
    return data_dir.parent / "started"


def rage(data_dir: Path, qlib_dir: Path, kills: int, seed: int) -> int:
    """Let minutes arrive while converters live and die; return how many minutes there are in the end."""
    dice, minutes = random.Random(seed), _HISTORY_MINUTES
    command = [sys.executable, "-m", "proofs.readers", "--rest-never", "--folder", str(data_dir.parent)]
    columns = (TextColumn("kills"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        for _ in bar.track(range(kills)):
            _started(data_dir).unlink(missing_ok=True)
            converter = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - ourselves
            lives, dies = dice.uniform(*_LIFE_SECONDS), None
            while dies is None or time.monotonic() < dies:
                if converter.poll() is not None:
                    raise RuntimeError("the converter ended by itself")
                if dies is None and _started(data_dir).exists():
                    dies = time.monotonic() + lives
                add(data_dir, range(minutes, minutes + 1))
                minutes += 1
                time.sleep(_MINUTE_SECONDS)
            converter.kill()
            converter.wait()
    convert(data_dir, qlib_dir, until=written_until(data_dir))
    return minutes


def watch(folder: Path, kills: int, seed: int) -> tuple[ReaderTally, int]:
    """Let a reader read while all this happens; return what it found, and of how many minutes.

    Raises `RuntimeError` where the reader itself dies.
    """
    data_dir, qlib_dir, stop = folder / "okx_data", folder / "qlib_data", folder / "stop"
    add(data_dir, range(_HISTORY_MINUTES))
    convert(data_dir, qlib_dir, until=written_until(data_dir))
    command = [str(RESEARCH_PYTHON), "-m", "proofs.readers.qlib_reader", str(qlib_dir), str(stop)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as reader:  # noqa: S603
        try:
            _wait_for_reader(folder / READY, reader)
            minutes = rage(data_dir, qlib_dir, kills, seed)
        finally:
            stop.touch()
            output, _ = reader.communicate(timeout=_READER_SECONDS)
    if not output.strip():
        raise RuntimeError(f"the reader ended with {reader.returncode} and said nothing")
    return ReaderTally(**json.loads(output.strip().splitlines()[-1])), minutes


def _wait_for_reader(ready: Path, reader: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _READER_SECONDS
    while not ready.exists():
        if reader.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the reader does not read")
        time.sleep(_MINUTE_SECONDS)


def main(
    *,
    kills: Annotated[int, typer.Option(min=1, help="How often the converter dies")] = 50,
    seed: Annotated[int, typer.Option(help="Decides when")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data")] = FOLDER,
    rest_never_: Annotated[bool, typer.Option("--rest-never", hidden=True)] = False,
) -> None:
    """Read Qlib in a loop while the converter runs and is killed; no value may be wrong, half or shifted."""
    folder = folder.resolve()
    if rest_never_:
        rest_never(folder / "okx_data", folder / "qlib_data")
    end_on_signals()
    clear(folder)
    folder.mkdir(parents=True)
    found, minutes = watch(folder, kills, seed)
    console.print(
        f"{kills} kills, {minutes:,} minutes of {len(SYMBOLS)} symbols; the reader looked {found.reads:,} times, "
        f"the calendar had grown {found.calendars:,} times: {found.values:,} values right, {found.wrong} wrong, "
        f"{found.missing} missing, {found.failed} reads failed {found.first}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    raise SystemExit(0 if found.clean else 1)


if __name__ == "__main__":
    run(main)
