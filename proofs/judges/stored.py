"""What was stored against what the simulator knows to be true: every minute, settlement and ranking. I/O.

The raw data is read here from its files with pyarrow alone. Which minutes are wanted follows from the rankings on disk;
the services are not asked.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.judges.recorded import Spans
from proofs.judges.tally import Evidence, Fault, Role, Size, Tally
from proofs.judges.waiting import newest, waiting, waiting_of
from proofs.rig.recording import PRICES_AND_VOLUME, Recorded
from proofs.units import DAY_MS, MINUTE_MS

FIELDS = (*PRICES_AND_VOLUME, "amount", "contracts")
_READ = ["open_time", "receive_time", "source", *FIELDS]
_COLUMN = {"open": 1, "high": 2, "low": 3, "close": 4, "contracts": 5, "volume": 6, "amount": 7}
"""Where the exchange's row has each of our fields."""
_DAYS_A_PAGE = 5
_NEIGHBOURS = 10
KEPT_DIFFERENCES = 50
_RATE_TOLERANCE = 1e-12

Ask = Callable[[str], Any]
"""Asks the simulator: path → what it answers."""
Windows = list[tuple[int, int]]
"""[begin, end) in Unix ms."""


class Difference(NamedTuple):
    """One thing that is not as it was."""

    at_ms: int
    symbol: str
    problem: str
    stored: str
    true: str


@dataclass
class StoredTally(Tally):
    """The comparison of a raw folder with the truth, and the earliest differences."""

    candles: Evidence = 0
    """Minutes that had to be stored."""
    stored: Size = 0
    """Candle rows on disk."""
    settlements: Size = 0
    verdicts: Size = 0
    rankings: Size = 0
    unreadable_files: Fault = 0
    lost: Fault = 0
    doubled: Fault = 0
    invented: Fault = 0
    wrong: Fault = 0
    shifted: Fault = 0
    """Of the wrong ones: equal to the truth of a minute nearby."""
    misplaced: Fault = 0
    """In the file of another day."""
    funding_lost: Fault = 0
    funding_doubled: Fault = 0
    funding_wrong: Fault = 0
    ledger_wrong: Fault = 0
    unexplained: Fault = 0
    """Minutes without a verdict in the ledger."""
    ranking_wrong: Fault = 0
    ranking_lost: Fault = 0
    differences: list[Difference] = field(default_factory=list)

    def blame(self, problem: str, found: Iterable[Difference], count: int | None = None) -> None:
        """Count differences, and keep the earliest. problem: a fault, spelled with blanks."""
        kept = list(found)
        name = problem.replace(" ", "_")
        setattr(self, name, self.counts(Role.FAULT)[name] + (len(kept) if count is None else count))
        self._keep(kept)

    def add(self, other: Self) -> None:
        """Add what another comparison found."""
        super().add(other)
        self._keep(other.differences)

    def _keep(self, differences: list[Difference]) -> None:
        self.differences = sorted([*self.differences, *differences])[:KEPT_DIFFERENCES]

    def spelled(self, *roles: Role) -> dict[str, int]:
        """Return the counts of these roles, named as a report spells them."""
        return {name.replace("_", " "): count for name, count in self.counts(*roles).items()}


@dataclass(frozen=True)
class Stored:
    """The candle rows of one symbol as they lie on disk: neither sorted nor made unique."""

    opens: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    live: NDArray[np.bool_]
    """Whether a row says that it came over the socket."""
    misplaced: int = 0
    """Rows in the file of another day."""


# --- What is wanted


def wanted_windows(members: Spans, *, backfill_days: int, pickup_ms: int, end_ms: int) -> dict[str, Windows]:
    """Return when each symbol that ever was a member is wanted, until `end_ms`. Pure.

    From `backfill_days` before the day on which it became a member, up to the minute that was open when it was dropped.
    A collector that was away takes a ranking over up to `pickup_ms` later, maybe on the next day: that day's history
    is not asked for.
    """
    found: dict[str, Windows] = {}
    for symbol, spans in members.items():
        windows: Windows = []
        for since, until in spans:
            picked = (since + pickup_ms) // DAY_MS * DAY_MS
            begin = min(picked - backfill_days * DAY_MS, since // MINUTE_MS * MINUTE_MS)
            end = end_ms if until is None else min(end_ms, -(-until // MINUTE_MS) * MINUTE_MS)
            if windows and begin <= windows[-1][1]:
                windows[-1] = (windows[-1][0], max(windows[-1][1], end))
            elif begin < end:
                windows.append((begin, end))
        if windows:
            found[symbol] = windows
    return found


def inside(times: NDArray[np.int64], windows: Windows) -> NDArray[np.bool_]:
    """Return which instants lie in one of the windows. Pure."""
    found = np.zeros(len(times), bool)
    for begin, end in windows:
        found |= (times >= begin) & (times < end)
    return found


# --- What is true


def read_truth(ask: Ask, symbol: str, begin_ms: int, end_ms: int) -> Recorded:
    """Ask for every minute that opens, and every settlement, in [begin, end)."""
    swap = _query_of(symbol)
    rows: list[list[str]] = []
    for page in range(begin_ms, end_ms, _DAYS_A_PAGE * DAY_MS):
        last = min(end_ms, page + _DAYS_A_PAGE * DAY_MS)
        rows += ask(f"/sim/truth/candles?{swap}&begin={page}&end={last}")
    settled = ask(f"/sim/truth/funding?{swap}&begin={begin_ms}&end={end_ms}")
    return Recorded(
        np.array([int(row[0]) for row in rows], np.int64),
        {name: np.array([float(row[column]) for row in rows], np.float64) for name, column in _COLUMN.items()},
        np.array([int(row["fundingTime"]) for row in settled], np.int64),
        np.array([float(row["fundingRate"]) for row in settled], np.float64),
    )


def read_refused(ask: Ask, symbol: str, begin_ms: int, end_ms: int) -> NDArray[np.int64]:
    """Ask for the minutes in [begin, end) of which the exchange never shows anything that can be believed.

    They are not part of `read_truth`: nothing may be stored for them, and Qlib has NaN there.
    """
    refused = ask(f"/sim/truth/refused?{_query_of(symbol)}&begin={begin_ms}&end={end_ms}")
    return np.array(refused, np.int64)


def _query_of(symbol: str) -> str:
    base, _, settled_in = symbol.partition("_")
    return f"instId={quote(base)}-{quote(settled_in)}-SWAP"


def due_in(windows: Windows) -> Windows:
    """Return when settlements are wanted: from a day earlier on, so that the first bars have a rate, too."""
    return [(begin - DAY_MS, end) for begin, end in windows]


def only(truth: Recorded, minutes: NDArray[np.bool_], settlements: NDArray[np.bool_]) -> Recorded:
    """Return the truth of some of its minutes and settlements."""
    values = {name: column[minutes] for name, column in truth.values.items()}
    return Recorded(truth.opens[minutes], values, truth.settled_times[settlements], truth.settled_rates[settlements])


# --- What is stored


def stored_symbols(data_dir: Path) -> set[str]:
    """Return the symbols of which candles are stored."""
    fresh = {symbol for table in waiting(data_dir, "kline_1m") for symbol in table["symbol"].unique().to_pylist()}
    return fresh | {path.name.rsplit("_", 1)[0] for path in (data_dir / "kline_1m").glob("date=*/[!.]*.parquet")}


def read_stored(data_dir: Path, symbol: str) -> tuple[Stored, list[Path]]:
    """Return the candle rows of a symbol, and which of its files cannot be read."""
    fresh = waiting_of(data_dir, "kline_1m", symbol)
    tables, unreadable, misplaced = [], [], 0
    for path in sorted((data_dir / "kline_1m").glob(f"date=*/{symbol}_????????.parquet")):
        try:
            table = pq.ParquetFile(path).read(columns=_READ)
        except (OSError, pa.ArrowInvalid):
            unreadable.append(path)
            continue
        midnight = int(np.datetime64(path.parent.name.removeprefix("date="), "ms").astype(np.int64))
        opens = table["open_time"].cast("int64").to_numpy()
        misplaced += int(np.count_nonzero((opens < midnight) | (opens >= midnight + DAY_MS)))
        tables.append(table)
    if fresh is not None:
        stored = pa.concat_tables(tables) if tables else fresh.slice(0, 0).select(_READ)
        tables = [newest(stored, fresh, "open_time", "receive_time")]
    if not tables:
        empty = {name: np.zeros(0) for name in FIELDS}
        return Stored(np.zeros(0, np.int64), empty, np.zeros(0, bool)), unreadable
    table = pa.concat_tables(tables)
    values = {name: table[name].to_numpy().astype(np.float64) for name in FIELDS}
    live = pc.equal(table["source"].cast(pa.string()), "ws").to_numpy().astype(bool)
    return Stored(table["open_time"].cast("int64").to_numpy(), values, live, misplaced), unreadable


class StoredMinutes:
    """The minutes on disk, read again only where a file has changed: to look again and again while it fills."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "kline_1m"
        self._read: dict[Path, tuple[tuple[int, int, int], pa.Table]] = {}

    def unlike(self, symbol: str, true: Recorded, wanted: NDArray[np.bool_]) -> int:
        """Count the wanted minutes of a symbol that are not there, or not as they were. What is unreadable is not."""
        fresh = waiting_of(self._data_dir, "kline_1m", symbol)
        paths = sorted(self._folder.glob(f"date=*/{symbol}_????????.parquet"))
        tables = [table for path in paths if (table := self._of_file(path)) is not None]
        if fresh is not None:
            stored = pa.concat_tables(tables) if tables else fresh.slice(0, 0).select(_READ)
            tables = [newest(stored, fresh, "open_time", "receive_time")]
        if not tables:
            return int(np.count_nonzero(wanted))
        table = pa.concat_tables(tables)
        opens = table["open_time"].cast("int64").to_numpy()
        _, here, there = np.intersect1d(opens, true.opens, return_indices=True)
        alike = np.zeros(len(true.opens), bool)
        alike[there] = True
        for name in FIELDS:
            alike[there] &= table[name].to_numpy()[here] == true.values[name][there]
        return int(np.count_nonzero(wanted & ~alike))

    def _of_file(self, path: Path) -> pa.Table | None:
        try:
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._read.get(path)
            if known is None or known[0] != version:
                known = self._read[path] = (version, pq.ParquetFile(path).read(columns=_READ))
        except (OSError, pa.ArrowInvalid):  # damaged, or put aside a moment ago
            return None
        return known[1]


def read_settlements(data_dir: Path) -> dict[str, dict[int, list[float]]]:
    """Return the settled rates on disk: symbol → Unix ms → the rates stored for it, one if all is well."""
    found: dict[str, dict[int, list[float]]] = {}
    fresh = waiting(data_dir, "funding")
    for path in sorted((data_dir / "funding").glob("date=*/[!.]*.parquet")):
        table = pq.ParquetFile(path).read(columns=["symbol", "funding_time", "funding_rate"])
        times = table["funding_time"].cast("int64").to_pylist()
        for symbol, time, rate in zip(
            table["symbol"].to_pylist(), times, table["funding_rate"].to_pylist(), strict=True
        ):
            found.setdefault(symbol, {}).setdefault(time, []).append(rate)
    for row in (row for table in fresh for row in table.sort_by("known_time").to_pylist()):
        found.setdefault(row["symbol"], {})[int(row["funding_time"].timestamp() * 1000)] = [row["funding_rate"]]
    return found


def read_rankings(data_dir: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the rankings on disk: Unix ms → their rows."""
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted((data_dir / "universe").glob("date=*/[!.]*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            found.setdefault(int(row["ranked_time"].timestamp() * 1000), []).append(row)
    return found


# --- The comparison


def judge_candles(symbol: str, stored: Stored, truth: Recorded, wanted: NDArray[np.bool_]) -> StoredTally:
    """Compare the stored rows of a symbol with its true minutes; `wanted` marks those that must be there. Pure."""
    tally = StoredTally()
    opens, first, copies = np.unique(stored.opens, return_index=True, return_counts=True)
    _, here, there = np.intersect1d(opens, truth.opens, return_indices=True)
    tally.candles = int(np.count_nonzero(wanted))
    tally.stored = len(stored.opens)

    def say(problem: str, times: NDArray[np.int64], sides: Callable[[int], tuple[str, str]]) -> None:
        said = [Difference(time, symbol, problem, *sides(time)) for time in times[:KEPT_DIFFERENCES].tolist()]
        tally.blame(problem, said, len(times))

    def of_stored(time: int) -> str:
        return str([_figures(stored.values, int(row)) for row in np.flatnonzero(stored.opens == time)])

    def of_truth(time: int) -> str:
        rows = np.flatnonzero(truth.opens == time)
        return str(_figures(truth.values, int(rows[0]))) if len(rows) else "no such minute"

    lacking = np.setdiff1d(truth.opens[wanted], opens)
    say("lost", lacking, lambda time: ("nothing", of_truth(time)))
    say("doubled", opens[copies > 1], lambda time: (of_stored(time), of_truth(time)))
    say("invented", np.setdiff1d(opens, truth.opens), lambda time: (of_stored(time), of_truth(time)))
    differs = np.zeros(len(here), bool)
    for name in FIELDS:
        differs |= stored.values[name][first[here]] != truth.values[name][there]
    say("wrong", opens[here][differs], lambda time: (of_stored(time), of_truth(time)))
    tally.shifted += _shifted(stored, first[here][differs], truth, there[differs])
    tally.misplaced += stored.misplaced
    return tally


def _figures(values: Mapping[str, NDArray[np.float64]], row: int) -> list[float]:
    return [float(values[name][row]) for name in FIELDS]


def _shifted(stored: Stored, rows: NDArray[np.intp], truth: Recorded, places: NDArray[np.intp]) -> int:
    """Count the wrong rows that are the truth of a minute nearby."""
    count = 0
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        nearby = range(max(0, place - _NEIGHBOURS), min(len(truth.opens), place + _NEIGHBOURS + 1))
        count += any(_figures(stored.values, row) == _figures(truth.values, other) for other in nearby)
    return count


def judge_settlements(
    symbol: str, stored: Mapping[int, list[float]], truth: Recorded, wanted: NDArray[np.bool_]
) -> StoredTally:
    """Compare the settled rates of a symbol; `wanted` marks those of the true ones that must be there. Pure."""
    tally = StoredTally()
    true = dict(zip(truth.settled_times.tolist(), truth.settled_rates.tolist(), strict=True))
    tally.settlements = int(np.count_nonzero(wanted))

    def say(problem: str, times: Iterable[int]) -> None:
        found = [Difference(time, symbol, problem, str(stored.get(time)), str(true.get(time))) for time in times]
        tally.blame(problem, found)

    say("funding lost", [time for time in truth.settled_times[wanted].tolist() if time not in stored])
    say("funding doubled", [time for time, rates in stored.items() if len(rates) > 1])
    say("funding wrong", [time for time, rates in stored.items() if {true.get(time)} != set(rates)])
    return tally


def judge_rankings(ask: Ask, rankings: Mapping[int, list[dict[str, Any]]], *, top_n: int) -> StoredTally:
    """Rank again what the exchange published: the same rates, the same order, the same members."""
    tally = StoredTally()
    tally.rankings = len(rankings)
    published = cache(lambda at: ask(f"/sim/truth/predicted?at={at}"))
    for time, rows in rankings.items():
        ordered = sorted(rows, key=lambda row: (-abs(row["funding_rate"]), row["symbol"]))
        members = {row["symbol"] for row in rows if row["member"]}
        first = {row["symbol"] for row in ordered[:top_n]}
        untrue = [row["symbol"] for row in rows if not _is_published(published, row)]
        if members != first or untrue or len({row["symbol"] for row in rows}) != len(rows):
            text = f"members not first: {sorted(members ^ first)}, other rates than published: {untrue}"
            tally.blame("ranking wrong", [Difference(time, "*", "ranking wrong", text, "")])
    return tally


def _is_published(published: Callable[[int], Any], row: Mapping[str, Any]) -> bool:
    base, _, quote = row["symbol"].partition("_")
    rate = published(int(row["known_time"].timestamp() * 1000)).get(f"{base}-{quote}-SWAP")
    return rate is not None and abs(float(rate) - float(row["funding_rate"])) < _RATE_TOLERANCE


def judge_published_rankings(published: Iterable[int], rankings: Mapping[int, object]) -> StoredTally:
    """Find the rankings that were published and are not stored. Pure."""
    tally = StoredTally()
    # Stored to the millisecond; logged to the microsecond.
    lost = [time for time in published if not {time - 1, time, time + 1} & set(rankings)]
    tally.blame("ranking lost", [Difference(time, "*", "ranking lost", "nothing", "published") for time in lost])
    return tally


def write_recording(folder: Path, recording: Mapping[str, Recorded]) -> None:
    """Write the truth as a recording, for a judge in another environment."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = [symbol for symbol, true in recording.items() for _ in range(len(true.opens))]
    candles = {name: np.concatenate([true.values[name] for true in recording.values()]) for name in PRICES_AND_VOLUME}
    opens = np.concatenate([true.opens for true in recording.values()])
    pq.write_table(pa.table({"symbol": symbols, "timestamp": opens} | candles), folder / "candles_1m.parquet")
    funding = {
        "symbol": [symbol for symbol, true in recording.items() for _ in range(len(true.settled_times))],
        "timestamp": np.concatenate([true.settled_times for true in recording.values()]),
        "funding_rate": np.concatenate([true.settled_rates for true in recording.values()]),
    }
    pq.write_table(pa.table(funding), folder / "funding.parquet")
