"""Is every recorded minute in Qlib at its own time, and nothing else? An independent reader of the bins says.

The format is read here from its definition (calendar text, float32 bins whose first value is their position), with
numpy alone; no code is shared with the converter. `proofs.judges.recorded_qlib` asks the same of the real pyqlib.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from proofs.rig.recording import MINUTE_MS, PRICES_AND_VOLUME, Recorded

WEEK_MS = 7 * 86_400_000
_NEIGHBOURS = 10


@dataclass
class Counts:
    """What the comparison found. Everything after `values` must be 0."""

    symbols: int = 0
    minutes: int = 0
    """Recorded minutes that had to be in Qlib."""
    values: int = 0
    """Values compared, equal in float32."""
    missing: int = 0
    """Recorded, wanted, and NaN in Qlib."""
    invented: int = 0
    """In Qlib, and not in the recording."""
    wrong: int = 0
    """Different from the recording."""
    shifted: int = 0
    """Of the wrong ones: equal to the recording of a minute nearby."""
    funding_wrong: int = 0
    """Minutes whose funding rate is not the last one settled before their close."""
    off_grid: int = 0
    """Calendar labels that are not one minute after the one before."""
    spans_wrong: int = 0
    """Symbols whose spans in top50.txt are not those of the rankings."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def clean(self) -> bool:
        """Return whether there is something to compare and no difference."""
        return self.values > 0 and not any(value for name, value in asdict(self).items() if name not in _SIZES)


_SIZES = ("symbols", "minutes", "values")


def calendar_ms(qlib_dir: Path) -> NDArray[np.int64]:
    """Return the opens of the 1-minute calendar, Unix ms."""
    labels = (qlib_dir / "calendars" / "1min.txt").read_text().split("\n")[:-1]
    return np.array([label.replace(" ", "T") for label in labels], dtype="datetime64[s]").astype(np.int64) * 1000


def read_bin(qlib_dir: Path, symbol: str, field: str, bars: int) -> NDArray[np.float32]:
    """Return a field of a symbol over the whole calendar, NaN where its bin has nothing."""
    values = np.full(bars, np.nan, np.float32)
    path = qlib_dir / "features" / symbol.lower() / f"{field}.1min.bin"
    if path.exists():
        content = np.fromfile(path, "<f4")
        first = int(content[0])
        shown = content[1 : 1 + max(0, bars - first)]
        values[first : first + len(shown)] = shown
    return values


def verify(qlib_dir: Path, recording: Mapping[str, Recorded], wanted_until: Mapping[str, int]) -> Counts:
    """Compare every wanted minute of every symbol with the recording.

    wanted_until: symbol → Unix ms; its minutes that open before must be there. What is there beyond must be right, too.
    """
    calendar = calendar_ms(qlib_dir)
    total = Counts(off_grid=int(np.count_nonzero(np.diff(calendar) != MINUTE_MS)))
    for symbol, until in wanted_until.items():
        total += verify_symbol(qlib_dir, calendar, symbol, recording[symbol], until)
    strangers = {entry.name for entry in (qlib_dir / "features").iterdir()} - {one.lower() for one in wanted_until}
    for symbol in strangers:
        total.invented += int(np.count_nonzero(~np.isnan(read_bin(qlib_dir, symbol, "close", len(calendar)))))
    return total


def verify_symbol(qlib_dir: Path, calendar: NDArray[np.int64], symbol: str, recorded: Recorded, until: int) -> Counts:
    """Compare one symbol, minute for minute."""
    counts = Counts(symbols=1, minutes=int(np.count_nonzero(recorded.opens < until)))
    positions = (recorded.opens - calendar[0]) // MINUTE_MS
    shown = (positions >= 0) & (positions < len(calendar))
    counts.missing += int(np.count_nonzero(~shown & (recorded.opens < until))) * len(PRICES_AND_VOLUME)
    for field in PRICES_AND_VOLUME:
        truth = np.full(len(calendar), np.nan, np.float32)
        truth[positions[shown]] = recorded.values[field][shown].astype(np.float32)
        counts += _compare(truth, read_bin(qlib_dir, symbol, field, len(calendar)), calendar < until)
    counts.funding_wrong += _funding_differences(qlib_dir, calendar, symbol, recorded)
    return counts


def _compare(truth: NDArray[np.float32], read: NDArray[np.float32], wanted: NDArray[np.bool_]) -> Counts:
    recorded, present = ~np.isnan(truth), ~np.isnan(read)
    differs = recorded & present & (truth != read)
    nearby = np.zeros(len(truth), bool)
    for distance in range(1, _NEIGHBOURS + 1):
        nearby[distance:] |= read[distance:] == truth[:-distance]
        nearby[:-distance] |= read[:-distance] == truth[distance:]
    return Counts(
        values=int(np.count_nonzero(recorded & present & ~differs)),
        missing=int(np.count_nonzero(recorded & ~present & wanted)),
        invented=int(np.count_nonzero(present & ~recorded)),
        wrong=int(np.count_nonzero(differs)),
        shifted=int(np.count_nonzero(differs & nearby)),
    )


def _funding_differences(qlib_dir: Path, calendar: NDArray[np.int64], symbol: str, recorded: Recorded) -> int:
    """Count the bars whose funding rate is not the last recorded one settled before their close."""
    present = ~np.isnan(read_bin(qlib_dir, symbol, "close", len(calendar)))
    read = read_bin(qlib_dir, symbol, "funding_rate", len(calendar))
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
    """Count the symbols that have a bar which opens inside a membership and outside top50.txt, or the reverse."""
    calendar = calendar_ms(qlib_dir)
    listed: dict[str, list[tuple[int, int]]] = {}
    for line in (qlib_dir / "instruments" / "top50.txt").read_text().splitlines():
        symbol, first, last = line.split("\t")
        begin, end = (int(np.datetime64(text.replace(" ", "T"), "ms").astype(np.int64)) for text in (first, last))
        listed.setdefault(symbol, []).append((begin, end))
    wrong = 0
    for symbol in set(listed) | set(members):
        should = np.zeros(len(calendar), bool)
        for since, until in members.get(symbol, []):
            should |= (calendar >= since) & ((calendar < until) if until is not None else True)
        does = np.zeros(len(calendar), bool)
        for begin, end in listed.get(symbol, []):
            does |= (calendar >= begin) & (calendar <= end)
        wrong += bool((should != does).any())
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
