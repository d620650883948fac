"""A reader that never pauses: `python -m proofs.readers.qlib_reader QLIB_DIR STOP_FILE`, Python 3.12, the real pyqlib.

It reads the newest hours again and again during conversions, and compares every value with what it must be: a
function of symbol and minute. Prints its counts as one JSON line once STOP_FILE is there.
"""

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.judges.tally import Evidence, Fault, Size, Tally

BEGIN = datetime(2025, 4, 5, tzinfo=UTC)
SYMBOLS = ("AAA_USDT", "BBB_USDT", "LATE_USDT", "DDD_USDT")
LATE = "LATE_USDT"
READY = "ready"
"""The file beside STOP_FILE that says that the reader has read once."""
_LATE_EVERY = 50
_SHOWN = {"1min": 300, "60min": 30}
"""Bars that are read each time."""
_MINUTES = {"1min": 1, "60min": 60}
FIELDS = ("open", "high", "low", "close", "volume", "coverage")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def is_late(symbol: str, minutes: Ints) -> NDArray[np.bool_]:
    """Return which minutes, counted from `BEGIN`, are stored hours after their close."""
    late: NDArray[np.bool_] = (minutes % _LATE_EVERY == 0) & (symbol == LATE)
    return late


def candles(symbol: str, minutes: Ints) -> dict[str, Floats]:
    """Return the candles of some minutes: another value each minute, exact in float32."""
    close: Floats = (1000 * (1 + SYMBOLS.index(symbol)) + minutes % 1000).astype(np.float64)
    return {
        "open": close - 0.5,
        "high": close + 1.0,
        "low": close - 1.0,
        "close": close,
        "volume": (minutes % 100 + 1).astype(np.float64),
    }


def bars(symbol: str, opens: Ints, length: int) -> dict[str, Floats]:
    """Return the bars of `length` minutes that open at some minutes, once every minute is there."""
    rows = candles(symbol, (opens[:, None] + np.arange(length)).reshape(-1))
    shaped = {name: values.reshape(-1, length) for name, values in rows.items()}
    return {
        "open": shaped["open"][:, 0],
        "high": shaped["high"].max(axis=1),
        "low": shaped["low"].min(axis=1),
        "close": shaped["close"][:, -1],
        "volume": shaped["volume"].sum(axis=1),
        "coverage": np.ones(len(opens)),
    }


@dataclass
class ReaderTally(Tally):
    """What a reader found in all its reads."""

    reads: Size = 0
    values: Evidence = 0
    """Right ones."""
    calendars: Size = 0
    """How often the calendar had grown."""
    wrong: Fault = 0
    missing: Fault = 0
    """Bars that the calendar shows, and that are NaN or not there although nothing of them is late."""
    failed: Fault = 0
    """Reads that pyqlib ended with an error."""


def judge(found: ReaderTally, symbol: str, frequency: str, opens: Ints, read: dict[str, Floats]) -> None:
    """Hold the bars that were read of one symbol against what they must be. opens: minutes from `BEGIN` on. Pure."""
    length = _MINUTES[frequency]
    may_lack = np.array([is_late(symbol, np.arange(opened, opened + length)).any() for opened in opens], bool)
    for name, truth in bars(symbol, opens, length).items():
        values, there = read[name], ~np.isnan(read[name])
        differs = there & (values != truth)
        if name == "coverage":
            differs &= ~may_lack
        lacks = ~there & ~may_lack
        found.values += int((there & ~differs).sum())
        found.wrong += int(differs.sum())
        found.missing += int(lacks.sum())
        for which in np.flatnonzero(differs | lacks)[:1]:
            found.note(f"{symbol} {frequency} {name} of minute {opens[which]}: {values[which]}, not {truth[which]}")


def _read(data: Any, found: ReaderTally, frequency: str) -> int:
    """Read the newest bars of one frequency; return how many bars its calendar has."""
    calendar = data.calendar(freq=frequency)
    shown = calendar[-_SHOWN[frequency] :]
    names = [f"${name}" for name in FIELDS]
    frame = data.features(list(SYMBOLS), names, freq=frequency, start_time=shown[0], end_time=shown[-1])
    wanted = (np.array(shown, "datetime64[m]") - np.datetime64(BEGIN.replace(tzinfo=None), "m")).astype(np.int64)
    for symbol in SYMBOLS:
        rows = frame.loc[symbol].reindex(shown)
        judge(found, symbol, frequency, wanted, {name: rows[f"${name}"].to_numpy(np.float64) for name in FIELDS})
    return len(calendar)


def main(qlib_dir: str, stop_file: str) -> int:
    """Read until there is a stop file, print the counts, and return the exit code."""
    warnings.simplefilter("ignore")
    import qlib  # noqa: PLC0415 - takes seconds, and only this environment has it
    from qlib.config import REG_CN  # noqa: PLC0415
    from qlib.data import D  # noqa: PLC0415
    from qlib.data.cache import H  # noqa: PLC0415

    qlib.init(provider_uri=qlib_dir, region=REG_CN, kernels=1, logging_level=40)
    found, known = ReaderTally(), 0
    while not Path(stop_file).exists():
        H.clear()
        try:
            bars_shown = {frequency: _read(D, found, frequency) for frequency in _SHOWN}["1min"]
        except Exception as error:  # noqa: BLE001 - whatever Qlib raises at half a file is the finding
            found.failed += 1
            found.note(f"{type(error).__name__}: {error}")
            continue
        found.reads += 1
        found.calendars += bars_shown != known
        known = bars_shown
        Path(stop_file).with_name(READY).touch()
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0 if found.clean else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
