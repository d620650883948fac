"""Turns a recording into a raw folder: what the writer would have stored, had the exchange been OKX. I/O.

A recording has no amount and no contracts: amount = volume x typical price, contracts = volume. It has no predictions.
Rankings are made of the recorded rates: every symbol by its last settled rate, a while after every settlement.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.rig.raw_folder import EXCHANGE, day_of, ledger_rows, write_candles, write_ledger, write_rows
from proofs.rig.recording import PRICES_AND_VOLUME, Recorded, read_recording
from proofs.units import DAY_MS, HOUR_MS, MINUTE_MS, MINUTES_PER_DAY
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.universe import Rank

RANKED_AFTER_MS = 30_000
INTERVAL_HOURS = 8


def write_recording(recording_dir: Path, root: Path, *, top_n: int = 3) -> int:
    """Write every symbol of a recording below `root`; return the number of candles.

    Raises `UnusableRecordingError`.
    """
    recording = read_recording(recording_dir)
    begin = int(min(recorded.opens[0] for recorded in recording.values())) // DAY_MS * DAY_MS
    end = int(max(recorded.opens[-1] for recorded in recording.values())) // DAY_MS * DAY_MS + DAY_MS
    ledger: list[dict[str, Any]] = []
    for symbol, recorded in recording.items():
        _write_symbol(root, symbol, recorded)
        stored, settled = (_minutes(times, begin, end) for times in (recorded.opens, recorded.settled_times))
        for about, there in ((Candle.dataset, stored), (FundingRate.dataset, settled)):
            ledger.extend(ledger_rows(symbol, day_of(begin), {"wanted": there, "healed": there}, about=about))
    write_ledger(root, ledger)
    _write_funding(root, recording)
    _write_rankings(root, recording, top_n)
    return sum(len(recorded.opens) for recorded in recording.values())


def _minutes(times: NDArray[np.int64], begin: int, end: int) -> NDArray[np.bool_]:
    found = np.zeros((end - begin) // DAY_MS * MINUTES_PER_DAY, bool)
    found[(times[(times >= begin) & (times < end)] - begin) // MINUTE_MS] = True
    return found


def _write_symbol(root: Path, symbol: str, recorded: Recorded) -> None:
    columns = {name: recorded.values[name] for name in PRICES_AND_VOLUME}
    typical = (columns["high"] + columns["low"] + columns["close"]) / 3
    made = {
        "amount": columns["volume"] * typical,
        "contracts": columns["volume"],
        "source": "rest",
        "receive_time": recorded.opens + 2 * MINUTE_MS,
    }
    write_candles(root, symbol, recorded.opens, columns | made)


def _write_funding(root: Path, recording: dict[str, Recorded]) -> None:
    times = np.concatenate([recorded.settled_times for recorded in recording.values()])
    columns = {
        "exchange": EXCHANGE,
        "symbol": np.repeat([*recording], [len(recorded.settled_times) for recorded in recording.values()]),
        "funding_time": times,
        "funding_rate": np.concatenate([recorded.settled_rates for recorded in recording.values()]),
        "interval_hours": INTERVAL_HOURS,
        "known_time": times + 5_000,
        "source": "rest",
        "receive_time": times + 6_000,
    }
    write_rows(root, FundingRate, len(times), columns)


def _write_rankings(root: Path, recording: dict[str, Recorded], top_n: int) -> None:
    instants = np.unique(np.concatenate([recorded.settled_times for recorded in recording.values()])) + RANKED_AFTER_MS
    rows = [row for instant in instants for row in _ranking(recording, int(instant), top_n)]
    write_rows(root, Rank, len(rows), {name: [row[name] for row in rows] for name in rows[0]} if rows else {})


def _ranking(recording: dict[str, Recorded], instant: int, top_n: int) -> list[dict[str, object]]:
    rates = {}
    for symbol, recorded in recording.items():
        settled = int(np.searchsorted(recorded.settled_times, instant))
        if settled:
            rates[symbol] = float(recorded.settled_rates[settled - 1])
    ranked = sorted(rates, key=lambda symbol: (-abs(rates[symbol]), symbol))
    return [
        {
            "exchange": EXCHANGE,
            "symbol": symbol,
            "ranked_time": instant,
            "rank": place,
            "funding_rate": rates[symbol],
            "score": abs(rates[symbol]),
            "interval_hours": INTERVAL_HOURS,
            "funding_time": (instant // (INTERVAL_HOURS * HOUR_MS) + 1) * INTERVAL_HOURS * HOUR_MS,
            "member": place <= top_n,
            "rank_by": "raw",
            "known_time": instant,
        }
        for place, symbol in enumerate(ranked, start=1)
    ]
