"""The verdicts of the ledger against what is stored and what is true. I/O.

The ledger is read here from its files with pyarrow alone: no code is shared with what keeps it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.judges.stored import KEPT_DIFFERENCES, Difference, Stored, StoredTally, Windows, inside
from proofs.rig.recording import Recorded
from proofs.units import MINUTE_MS

_ACCOUNTED = ("received", "healed", "absent", "halted", "refused")
_NONE = np.zeros(0, np.int64)


def read_ledger(data_dir: Path) -> dict[str, dict[str, NDArray[np.int64]]] | None:
    """Return what the ledger on disk says of candles: symbol → set → minutes, Unix ms; None without a ledger."""
    files = sorted((data_dir / "ledger").glob("date=*/[!.]*.parquet"))
    pieces: dict[str, dict[str, list[NDArray[np.int64]]]] = {}
    for path in files:
        midnight = int(np.datetime64(path.parent.name.removeprefix("date="), "ms").astype(np.int64))
        for row in pq.ParquetFile(path).read().to_pylist():
            if row.get("about", "kline_1m") != "kline_1m":  # an older ledger is about candles alone
                continue
            for name in (*_ACCOUNTED, "wanted"):
                pieces.setdefault(row["symbol"], {}).setdefault(name, []).append(
                    _minutes(midnight, row.get(name) or "")  # a set that an older ledger lacks is empty
                )
    found = {symbol: {name: np.concatenate(parts) for name, parts in sets.items()} for symbol, sets in pieces.items()}
    return found if files else None


def open_minutes(ledger: Mapping[str, NDArray[np.int64]], end_ms: int) -> int:
    """Count the minutes of a symbol that its ledger says to be wanted, before `end_ms`, without a verdict. Pure."""
    wanted = ledger["wanted"]
    known = np.concatenate([ledger.get(name, np.zeros(0, np.int64)) for name in _ACCOUNTED])
    return len(np.setdiff1d(wanted[wanted < end_ms], known))


def unwanted_minutes(ledger: Mapping[str, NDArray[np.int64]], windows: Windows) -> int:
    """Count the minutes of some windows that the ledger of a symbol does not say to be wanted, so far. Pure."""
    known = np.unique(ledger.get("wanted", _NONE))
    return sum(
        (end - begin) // MINUTE_MS - int(np.count_nonzero(inside(known, [(begin, end)]))) for begin, end in windows
    )


def _minutes(midnight: int, runs: str) -> NDArray[np.int64]:
    """Read "0-99,101-1439" as the opens of these minutes of a day."""
    ends = [run.split("-") for run in runs.split(",") if run]
    spans = [np.arange(int(run[0]), int(run[-1]) + 1, dtype=np.int64) for run in ends]
    return midnight + MINUTE_MS * np.concatenate([np.zeros(0, np.int64), *spans])


def judge_ledger(
    symbol: str,
    ledger: Mapping[str, NDArray[np.int64]],
    stored: Stored,
    truth: Recorded,
    windows: Windows,
    *,
    end_ms: int,
    refused: NDArray[np.int64] = _NONE,
) -> StoredTally:
    """Compare the verdicts of a symbol with what is stored and what is true. Pure.

    Every minute has one that is wanted and opens before `end_ms`, also one that the exchange does not have. Wanted is
    what lies in the windows, and what the ledger itself says to be. `refused` are the minutes of which the exchange
    shows nothing, for good, that can be believed: the ledger says so of these, and of no others.
    """
    tally = StoredTally()
    spans = [np.arange(begin, end, MINUTE_MS, dtype=np.int64) for begin, end in windows]
    wanted = np.concatenate([np.zeros(0, np.int64), *spans])
    sets = {name: ledger.get(name, np.zeros(0, np.int64)) for name in (*_ACCOUNTED, "wanted")}
    listed = sets["wanted"]
    every = np.union1d(wanted, listed[listed < end_ms])
    tally.verdicts = len(every)

    def say(problem: str, times: NDArray[np.int64], verdict: str, true: str) -> None:
        kept = [Difference(time, symbol, problem, verdict, true) for time in times[:KEPT_DIFFERENCES].tolist()]
        tally.blame(problem, kept, len(times))

    on_disk = np.unique(stored.opens)
    for name, live in (("received", True), ("healed", False)):
        really = np.unique(stored.opens[stored.live == live])
        say("ledger wrong", np.setdiff1d(sets[name], really), name, "not stored so")
        say("ledger wrong", np.setdiff1d(really, sets[name]), f"not {name}", "stored so")
    for name in ("absent", "halted"):
        denied = np.setdiff1d(sets[name], on_disk)  # a row that came after all overrules
        say("ledger wrong", np.intersect1d(denied, truth.opens), name, "the exchange has it")
    kept_out = np.intersect1d(refused, every)
    say("ledger wrong", np.setdiff1d(kept_out, sets["refused"]), "not refused", "the exchange shows it impossible")
    believable = np.setdiff1d(np.setdiff1d(sets["refused"], on_disk), refused)
    say("ledger wrong", believable[believable < end_ms], "refused", "the exchange shows it as it was")
    known = np.concatenate([sets[name] for name in _ACCOUNTED])
    say("unexplained", np.setdiff1d(every, known), "missing", "wanted, and over")
    say("unexplained", np.setdiff1d(wanted, sets["wanted"]), "not wanted", "wanted")
    return tally
