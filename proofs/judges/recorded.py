"""Is every recorded minute in Qlib at its own time, and nothing else? The bins are read with numpy alone. I/O.

No code is shared with the converter. `proofs.judges.recorded_qlib` puts the same question to the real pyqlib.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from proofs.judges.bins import (
    Times,
    UnreadableDatasetError,
    Values,
    inside,
    read_calendar,
    read_spans,
    read_values,
    symbols_of,
)
from proofs.judges.tally import Evidence, Fault, Size, Tally
from proofs.rig.recording import PRICES_AND_VOLUME, Recorded
from proofs.units import DAY_MS, MINUTE_MS

WEEK_MS = 7 * DAY_MS
UNIVERSE = "top50"
_NEIGHBOURS = 10
_FREQUENCY = "1min"


@dataclass
class RecordedTally(Tally):
    """The comparison of a dataset with a recording."""

    symbols: Size = 0
    minutes: Size = 0
    """Recorded minutes that had to be in Qlib."""
    values: Evidence = 0
    """Values compared, equal in float32."""
    missing: Fault = 0
    """Recorded, wanted, and NaN in Qlib."""
    invented: Fault = 0
    """In Qlib, and not in the recording."""
    wrong: Fault = 0
    """Different from the recording."""
    shifted: Fault = 0
    """Of the wrong ones: equal to the recording of a minute nearby."""
    funding_wrong: Fault = 0
    """Minutes whose funding rate is not the last one settled before their close."""
    off_grid: Fault = 0
    """Calendar labels that are not one minute after the one before."""
    spans_wrong: Fault = 0
    """Symbols whose spans in top50.txt are not those of the rankings."""


def verify(qlib_dir: Path, recording: Mapping[str, Recorded], wanted_until: Mapping[str, int]) -> RecordedTally:
    """Compare every wanted minute of every symbol with the recording.

    wanted_until: symbol → Unix ms; its minutes that open before must be there. What is there beyond must be right, too.
    Raises `UnreadableDatasetError`.
    """
    calendar = _calendar(qlib_dir)
    total = RecordedTally(off_grid=int(np.count_nonzero(np.diff(calendar) != MINUTE_MS)))
    for symbol, until in wanted_until.items():
        total.add(verify_symbol(qlib_dir, calendar, symbol, recording[symbol], until))
    wanted = {symbol.lower() for symbol in wanted_until}
    for symbol in (symbol for symbol in symbols_of(qlib_dir) if symbol.lower() not in wanted):
        total.invented += int(np.count_nonzero(~np.isnan(_read(qlib_dir, symbol, "close", calendar))))
    return total


def _calendar(qlib_dir: Path) -> Times:
    """Return the opens of the minutes. Raises `UnreadableDatasetError`."""
    calendar = read_calendar(qlib_dir, _FREQUENCY)
    if not len(calendar):
        raise UnreadableDatasetError(f"{qlib_dir} has no {_FREQUENCY} bar")
    return calendar


def _read(qlib_dir: Path, symbol: str, field: str, calendar: Times) -> Values:
    return read_values(qlib_dir, symbol, field, _FREQUENCY, len(calendar))


def verify_symbol(qlib_dir: Path, calendar: Times, symbol: str, recorded: Recorded, until: int) -> RecordedTally:
    """Compare one symbol, minute for minute."""
    found = RecordedTally(symbols=1, minutes=int(np.count_nonzero(recorded.opens < until)))
    positions = (recorded.opens - calendar[0]) // MINUTE_MS
    shown = (positions >= 0) & (positions < len(calendar))
    found.missing += int(np.count_nonzero(~shown & (recorded.opens < until))) * len(PRICES_AND_VOLUME)
    for field in PRICES_AND_VOLUME:
        truth = np.full(len(calendar), np.nan, np.float32)
        truth[positions[shown]] = recorded.values[field][shown].astype(np.float32)
        found.add(_compare(truth, _read(qlib_dir, symbol, field, calendar), calendar < until))
    found.funding_wrong += _funding_differences(qlib_dir, calendar, symbol, recorded)
    return found


def _compare(truth: Values, read: Values, wanted: NDArray[np.bool_]) -> RecordedTally:
    recorded, present = ~np.isnan(truth), ~np.isnan(read)
    differs = recorded & present & (truth != read)
    nearby = np.zeros(len(truth), bool)
    for distance in range(1, _NEIGHBOURS + 1):
        nearby[distance:] |= read[distance:] == truth[:-distance]
        nearby[:-distance] |= read[:-distance] == truth[distance:]
    return RecordedTally(
        values=int(np.count_nonzero(recorded & present & ~differs)),
        missing=int(np.count_nonzero(recorded & ~present & wanted)),
        invented=int(np.count_nonzero(present & ~recorded)),
        wrong=int(np.count_nonzero(differs)),
        shifted=int(np.count_nonzero(differs & nearby)),
    )


def _funding_differences(qlib_dir: Path, calendar: Times, symbol: str, recorded: Recorded) -> int:
    """Count the bars whose funding rate is not the last recorded one settled before their close."""
    present = ~np.isnan(_read(qlib_dir, symbol, "close", calendar))
    read = _read(qlib_dir, symbol, "funding_rate", calendar)
    close = calendar + MINUTE_MS
    truth = np.full(len(calendar), np.nan, np.float32)
    for time, rate in zip(recorded.settled_times, recorded.settled_rates, strict=True):
        truth[(close > time) & (close - time <= WEEK_MS)] = rate
    truth[~present] = np.nan
    return int(np.count_nonzero(~((truth == read) | (np.isnan(truth) & np.isnan(read)))))


Spans = dict[str, list[tuple[int, int | None]]]


def membership(data_dir: Path) -> Spans:
    """Return who was a member when, from the stored rankings: symbol → [since, until) in Unix ms, None: still."""
    table = ds.dataset(data_dir / "universe", format="parquet", partitioning=None).to_table(
        columns=["ranked_time", "symbol", "member"]
    )
    by_time: dict[int, set[str]] = {}
    times = table["ranked_time"].cast("int64").to_pylist()
    for time, symbol, member in zip(times, table["symbol"].to_pylist(), table["member"].to_pylist(), strict=True):
        by_time.setdefault(time, set())
        if member:
            by_time[time].add(symbol)
    found: Spans = {}
    for time, members in sorted(by_time.items()):
        for symbol, spans in found.items():
            if spans[-1][1] is None and symbol not in members:
                spans[-1] = (spans[-1][0], time)
        for symbol in members:
            spans = found.setdefault(symbol, [])
            if not spans or spans[-1][1] is not None:
                spans.append((time, None))
    return found


def spans_wrong(qlib_dir: Path, members: Spans) -> int:
    """Count the symbols that have a bar which opens inside a membership and outside top50.txt, or the reverse.

    Raises `UnreadableDatasetError`.
    """
    calendar, listed = _calendar(qlib_dir), read_spans(qlib_dir, UNIVERSE)
    wrong = 0
    for symbol in set(listed) | set(members):
        should = np.zeros(len(calendar), bool)
        for since, until in members.get(symbol, []):
            should |= (calendar >= since) & ((calendar < until) if until is not None else True)
        wrong += bool((should != inside(listed.get(symbol, []), calendar)).any())
    return wrong


def wanted_minutes(members: Spans, recording: Mapping[str, Recorded]) -> dict[str, int]:
    """Return up to when the minutes of each symbol that ever was a member are wanted: its last membership's end.

    The minute that was open when it was dropped had opened with it as a member, so it counts.
    """
    last = int(max(recorded.opens[-1] for recorded in recording.values())) + MINUTE_MS
    return {
        symbol: last if spans[-1][1] is None else -(-spans[-1][1] // MINUTE_MS) * MINUTE_MS
        for symbol, spans in members.items()
    }
