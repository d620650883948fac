"""Judge: does the dataset up to T change when everything that happened or became known after T is taken away? I/O.

The raw folder is cut at T, converted from nothing, and compared bit for bit with the whole dataset. A cut keeps what a
bar that closes at T or before may know: candles that were over at T, settlements and predictions before T, rankings up
to T, and the ledger's verdicts on minutes that opened before T (a verdict may be found out later than its minute).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proofs.judges.bins import (
    FREQUENCIES,
    NO_BIN,
    Times,
    fields_of,
    inside,
    read_bin,
    read_calendar,
    read_spans,
    symbols_of,
)
from proofs.judges.recompute import Raw
from proofs.judges.tally import Judgement, Place, ValueTally, compare, compare_bits
from proofs.judges.values import UNIVERSE, label
from proofs.units import DAY_MS, MINUTE_MS

_SETS = ("wanted", "received", "healed", "absent", "halted", "refused", "due", "settled")

Keep = Callable[[pa.Table, int], pa.Table]


class CutError(Exception):
    """There is nothing to cut; the text says what."""


# --- The cut


def cut_raw(source: Path, target: Path, instant: int) -> None:
    """Make a raw folder of what `source` held at `instant`, Unix ms.

    Whole days before are links to the folders of `source`; the day itself is written again.
    """
    for dataset, keep in _KEEPS.items():
        (target / dataset).mkdir(parents=True)
        for day in sorted((source / dataset).glob("date=*")):
            midnight = _midnight(day)
            if midnight + DAY_MS <= instant:
                (target / dataset / day.name).symlink_to(day.resolve(), target_is_directory=True)
            elif midnight <= instant:
                _cut_day(day, target / dataset / day.name, keep, instant)


def _midnight(folder: Path) -> int:
    return int(np.datetime64(folder.name.removeprefix("date="), "ms").astype(np.int64))


def _cut_day(source: Path, target: Path, keep: Keep, instant: int) -> None:
    for path in sorted(source.glob("*.parquet")):
        if path.name.startswith("."):
            continue
        left = keep(pq.read_table(path, partitioning=None), instant)
        if left.num_rows:
            target.mkdir(parents=True, exist_ok=True)
            pq.write_table(left, target / path.name, compression="snappy")


def _last_close(root: Path) -> int:
    for day in sorted((root / "kline_1m").glob("date=*"), reverse=True):
        files = sorted(day.glob("*.parquet"))
        if files:
            return MINUTE_MS + max(int(pc.max(_times(_opens_in(path), "open_time")).as_py()) for path in files)
    raise CutError("no candle is left")


def _opens_in(path: Path) -> pa.Table:
    return pq.read_table(path, columns=["open_time"], partitioning=None)


def _times(table: pa.Table, column: str) -> pa.ChunkedArray:
    return table[column].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())


def _candles_over(table: pa.Table, instant: int) -> pa.Table:
    return table.filter(pc.less_equal(_times(table, "open_time"), instant - MINUTE_MS))


def _before(column: str) -> Keep:
    return lambda table, instant: table.filter(pc.less(_times(table, column), instant))


def _ranked(table: pa.Table, instant: int) -> pa.Table:
    return table.filter(pc.less_equal(_times(table, "ranked_time"), instant))


def _defined(table: pa.Table, instant: int) -> pa.Table:
    """Keep what was said before the instant, and what lets know later which instrument had begun by then.

    Which instrument a minute is of is no forecast: its candles cannot be collected before it is listed.
    """
    listed = pc.fill_null(pc.less(_times(table, "list_time"), instant), fill_value=False)
    return table.filter(pc.or_(pc.less(_times(table, "known_time"), instant), listed))


def _ledger_before(table: pa.Table, instant: int) -> pa.Table:
    """Cut every set of minutes to those that open before the instant."""
    midnights = _times(table, "day").to_pylist()
    for name in _SETS:
        texts = [
            _runs_before(text or "", -((midnight - instant) // MINUTE_MS))
            for midnight, text in zip(midnights, table[name].to_pylist(), strict=True)
        ]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(texts, table.schema.field(name).type))
    return table


def _runs_before(text: str, minute: int) -> str:
    """Return the runs of minutes before a minute of the day."""
    runs = [(int(first), int(last)) for first, _, last in (run.partition("-") for run in text.split(",") if run)]
    return ",".join(f"{first}-{min(last, minute - 1)}" for first, last in runs if first < minute)


_KEEPS: Mapping[str, Keep] = {
    "kline_1m": _candles_over,
    "funding": _before("funding_time"),
    "funding_predicted": _before("known_time"),
    "universe": _ranked,
    "ledger": _ledger_before,
    "instruments": _defined,
}


# --- Where to cut


def instants(raw: Raw, until: int, count: int, seed: int) -> Iterator[tuple[int, str]]:
    """Yield instants to cut at, Unix ms, and of which kind each is: on and off bars, at and just after what happened.

    They lie between the end of the first hour and `until`. Pure, but for what `raw` reads.
    """
    random = np.random.default_rng(seed)
    begin = raw.first_day + _first_minute(raw) + 60 * MINUTE_MS
    events = {
        "settlement": [frame["funding_time"].to_numpy(np.int64) for frame in raw.funding.values()],
        "prediction": [frame["known_time"].to_numpy(np.int64) for frame in raw.predictions.values()],
        "ranking": [raw.ranked_times],
    }
    happened = {
        kind: times[(times >= begin) & (times < until)]
        for kind, parts in events.items()
        if parts and len(times := np.unique(np.concatenate(parts)))
    }
    kinds = ["off the bars", "1min bar", *(f"{name} bar" for name in list(FREQUENCIES)[1:])]
    kinds += [kind for kind, times in happened.items() if len(times)]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        instant = int(random.integers(begin, until))
        if kind in happened:
            instant = int(random.choice(happened[kind])) + number // len(kinds) % 2
            kind = f"{kind}, {'just after' if number // len(kinds) % 2 else 'at'}"
        elif kind.endswith(" bar"):
            step = FREQUENCIES[kind.removesuffix(" bar")] * MINUTE_MS
            instant = max(begin, (instant - raw.first_day) // step * step + raw.first_day)
        yield instant, kind


def _first_minute(raw: Raw) -> int:
    """Return how long after the first midnight the first candle opens, in ms."""
    first = min(int(pc.min(_times(_opens_in(files[0]), "open_time")).as_py()) for files in raw.candle_files.values())
    return first - raw.first_day


# --- The comparison


@dataclass(frozen=True)
class _Pair:
    """The whole dataset and the one that was made of a cut: the calendar of the whole, and how much of it is cut."""

    whole: Path
    cut: Path
    frequency: str
    opens: Times
    bars: int
    """Bars of the cut."""
    over: int
    """Bars of the whole that close at T or before."""


def judge_cut(whole: Path, cut: Path, cut_data: Path, instant: int) -> Judgement:
    """Compare every bin of a dataset made of a cut with the whole dataset, bit for bit.

    Beyond the end of the cut's bins the whole has nothing up to T. Raises `UnreadableDatasetError` and `CutError`.
    """
    found, last_close = Judgement(), _last_close(cut_data)
    for frequency, minutes in FREQUENCIES.items():
        step = minutes * MINUTE_MS
        opens, short = (read_calendar(folder, frequency) for folder in (whole, cut))
        over = int(np.count_nonzero(opens + step <= instant))
        should = int(np.count_nonzero(opens + step <= last_close))
        if not np.array_equal(opens[:should], short):
            found.problem(f"calendar {frequency}: {len(short)} bars up to {label(last_close)} instead of {should}")
            continue
        pair = _Pair(whole, cut, frequency, opens, len(short), over)
        for symbol in sorted(set(symbols_of(whole)) | set(symbols_of(cut))):
            _judge_symbol(found, pair, symbol)
        _judge_universe(found, pair)
    return found


def _judge_symbol(found: Judgement, pair: _Pair, symbol: str) -> None:
    names = fields_of(pair.whole, symbol, pair.frequency)
    if strangers := fields_of(pair.cut, symbol, pair.frequency) - names:
        found.problem(f"{symbol} {pair.frequency}: only the cut has {', '.join(sorted(strangers))}")
    for name in sorted(names):
        full, part = (read_bin(folder, symbol, name, pair.frequency) or NO_BIN for folder in (pair.whole, pair.cut))
        if len(part.values) and part.first != full.first:
            found.problem(f"{symbol} {name} {pair.frequency} begins at {part.first}, with the future at {full.first}")
        name_it = _namer(pair, symbol, name, np.arange(part.first, part.end))
        found.count(pair.frequency, name, compare_bits(full.part(part.first, part.end), part.values, name_it))
        rest = full.part(part.end, pair.over)
        name_it = _namer(pair, symbol, name, np.arange(part.end, pair.over))
        found.count(pair.frequency, name, compare(rest, np.full(len(rest), np.nan, np.float32), name_it))


def _namer(pair: _Pair, symbol: str, name: str, places: NDArray[np.intp]) -> Place:
    return lambda index: f"{symbol} {name} {label(int(pair.opens[places[index]]))}"


def _judge_universe(found: Judgement, pair: _Pair) -> None:
    """Compare who is a member in every bar of the cut."""
    spans = [_spans(folder) for folder in (pair.whole, pair.cut)]
    opens = pair.opens[: pair.bars]
    for symbol in sorted(set(spans[0]) | set(spans[1])):
        full, part = (inside(each.get(symbol, []), opens) for each in spans)
        wrong = np.flatnonzero(full != part)
        members = int(np.count_nonzero(full & part))
        found.count(pair.frequency, UNIVERSE, ValueTally(compared=members, empty=pair.bars - members - len(wrong)))
        if len(wrong):
            at = label(int(opens[wrong[0]]))
            found.problem(f"{UNIVERSE}.txt {pair.frequency}: {symbol} differs in {len(wrong)} bars, first at {at}")


def _spans(folder: Path) -> dict[str, list[tuple[int, int]]]:
    if not (folder / "instruments" / f"{UNIVERSE}.txt").exists():
        return {}
    return read_spans(folder, UNIVERSE)
