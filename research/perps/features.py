"""Plain fields, read from the bins straight into a frame: what `D.features` returns, without its expression engine."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.config import C
from qlib.data import D
from qlib.data.data import Cal, DatasetProvider
from qlib.data.storage.file_storage import FileFeatureStorage
from qlib.utils import code_to_fname

type Range = tuple[int, int]
"""Bars [first, end), by their places in the calendar."""
type Floats = npt.NDArray[np.float32]

_PLAIN = re.compile(r"\$\w+")
_VALUE = np.dtype("<f4")
"""A bin is a list of these. The first one is the place of the second."""

_FROM_BINS = {
    "feature_provider": "LocalFeatureProvider",
    "expression_provider": "LocalExpressionProvider",
    "dataset_provider": "LocalDatasetProvider",
    "expression_cache": None,
    "dataset_cache": None,
}
"""Settings of Qlib with which the values of a plain field are those of its bins."""


def features(
    instruments: Any, fields: Iterable[Any], start_time: Any = None, end_time: Any = None, freq: str = "day"
) -> pd.DataFrame:
    """Return what `D.features` returns for the same arguments; plain fields, such as `$close`, many times faster.

    The same rows, order, names, types and NaN: float32 by (instrument, datetime), UTC without a zone. Instruments are
    a market (`D.instruments("top50")`, with filters or without), a list of symbols, or a dict of spans.

    Where a field is an expression, such as `$close/Ref($close, 1)`, or Qlib has been set up with other providers or
    with caches on disk, `D.features` is asked for all of them, at its own pace. Ask for plain fields apart where that
    matters.

    Values are read from disk each time. The calendar is that of `D.calendar`: bars that were written since it was read
    are seen after `perps.refresh`, as with Qlib. A value that was corrected is seen at once; Qlib keeps what it has
    read.

    Raises what `D.features` raises, and ValueError with the name of the file where a bin is damaged.
    """
    wanted = list(fields)
    columns = [str(field) for field in wanted]
    plain = bool(columns) and all(_PLAIN.fullmatch(_name(column)) for column in columns)
    found = None
    if plain and all(C[setting] == value for setting, value in _FROM_BINS.items()):
        found = _read(instruments, columns, start_time, end_time, freq)
    # Also where there is nothing: how that looks, or is said, is Qlib's to decide.
    return D.features(instruments, wanted, start_time, end_time, freq) if found is None else found


def _name(column: str) -> str:
    """Return a field without blanks, which mean nothing to Qlib."""
    return column.replace(" ", "")


def _read(instruments: Any, columns: Sequence[str], start_time: Any, end_time: Any, freq: str) -> pd.DataFrame | None:
    """Return the frame of some plain fields; None where no row is in it."""
    symbols = DatasetProvider.get_instruments_d(instruments, freq)
    bars = Cal.calendar(start_time, end_time, freq)
    if not len(bars):
        return None
    _, _, first, _ = Cal.locate_index(bars[0], bars[-1], freq)
    window = Window(_times(bars), first)
    spans = symbols if isinstance(symbols, Mapping) else dict.fromkeys(symbols)
    fields = [_name(column).removeprefix("$") for column in columns]
    bins = {symbol: _paths(symbol, fields, freq) for symbol in sorted(spans)}
    rows = {symbol: window.rows(paths, spans[symbol]) for symbol, paths in bins.items()}
    rows = {symbol: ranges for symbol, ranges in rows.items() if ranges}
    if not rows:
        return None
    values = np.empty((len(fields), sum(map(size, rows.values()))), _VALUE)
    at = 0
    for symbol, ranges in rows.items():
        for path, row in zip(bins[symbol], values, strict=True):
            fill(row[at : at + size(ranges)], path, ranges)
        at += size(ranges)
    return pd.DataFrame(values.T, index=window.index(rows), columns=columns, copy=False)


def _times(bars: Any) -> pd.DatetimeIndex:
    """Return bars of a calendar as an index. After `perps.init` they are one; pandas is slow with Qlib's array."""
    if isinstance(bars, pd.DatetimeIndex):
        return bars
    return pd.DatetimeIndex(np.fromiter((bar.value for bar in bars), np.int64, len(bars)).view("M8[ns]"))


def _paths(symbol: str, fields: Sequence[str], freq: str) -> list[Path]:
    """Return where the bins of a symbol lie. Raises `ValueError` where the dataset has nothing of that frequency."""
    folder = FileFeatureStorage(code_to_fname(symbol), fields[0], freq).uri.parent
    return [folder / f"{field.lower()}.{freq.lower()}.bin" for field in fields]


@dataclass(frozen=True)
class Window:
    """The bars of a query: their times, and the place of the first one in the calendar."""

    times: pd.DatetimeIndex
    first: int

    @property
    def bars(self) -> Range:
        """Return all of them."""
        return self.first, self.first + len(self.times)

    def rows(self, paths: Iterable[Path], spans: Iterable[tuple[Any, Any]] | None) -> list[Range]:
        """Return the bars that a symbol has a row of: one of its bins reaches there, and one of its spans, if any."""
        held = union(held_by(path, self.bars) for path in paths)
        return held if spans is None else overlap(held, union(self.within(begin, end) for begin, end in spans))

    def within(self, begin: Any, end: Any) -> Range:
        """Return the bars that open from one instant to another, both included."""
        # Compared with bars first: no nanoseconds can be made of an end in the year 9999.
        earliest, latest = max(pd.Timestamp(begin), self.times[0]), min(pd.Timestamp(end), self.times[-1])
        if not earliest <= latest:
            return self.first, self.first
        first, end = self.times.searchsorted(earliest), self.times.searchsorted(latest, side="right")
        return self.first + int(first), self.first + int(end)

    def index(self, rows: Mapping[str, Sequence[Range]]) -> pd.MultiIndex:
        """Return the index of the rows of symbols: (instrument, datetime), with no time that no row has."""
        used = union(part for ranges in rows.values() for part in ranges)
        begins = np.array([first for first, _ in used])
        before = np.cumsum([0, *(end - first for first, end in used)])
        codes, at = np.empty(sum(map(size, rows.values())), np.int32), 0
        for first, end in (part for ranges in rows.values() for part in ranges):
            place = int(np.searchsorted(begins, first, side="right")) - 1
            code = before[place] + first - begins[place]
            codes[at : at + end - first] = np.arange(code, code + end - first)
            at += end - first
        times = [self.times[first - self.first : end - self.first] for first, end in used]
        symbols = np.repeat(np.arange(len(rows), dtype=np.int32), [size(ranges) for ranges in rows.values()])
        return pd.MultiIndex(
            levels=[pd.Index(list(rows), dtype=object), times[0].append(times[1:])],
            codes=[symbols, codes],
            names=["instrument", "datetime"],
            verify_integrity=False,
        )


def size(ranges: Iterable[Range]) -> int:
    """Return how many bars are in ranges."""
    return sum(end - first for first, end in ranges)


def union(ranges: Iterable[Range]) -> list[Range]:
    """Return what is in any of some ranges: sorted, none of them empty, none touching the next."""
    merged: list[Range] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif first < end:
            merged.append((first, end))
    return merged


def overlap(one: Iterable[Range], other: Sequence[Range]) -> list[Range]:
    """Return what is in both of two lists of ranges, each as `union` returns them."""
    both = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return [(first, end) for first, end in both if first < end]


def held_by(path: Path, bars: Range) -> Range:
    """Return which of some bars a bin holds; none where there is no bin. Raises `ValueError` where it is damaged."""
    with _opened(path) as file:
        if file is None:
            return bars[0], bars[0]
        begin = _begin(file)
        values, rest = divmod(file.seek(0, 2), _VALUE.itemsize)
    first, end = max(begin, bars[0]), begin + values - 1
    if rest and first <= end < bars[1]:
        raise ValueError(f"{path}: damaged, it ends in the middle of a value")
    return first, max(first, min(end, bars[1]))


def fill(row: Floats, path: Path, ranges: Iterable[Range]) -> None:
    """Put the values of a bin into a row, those of all ranges behind each other; NaN where the bin has none."""
    at = 0
    with _opened(path) as file:
        begin = _begin(file) if file else 0
        for first, end in ranges:
            part = row[at : at + end - first]
            late = min(len(part), max(0, begin - first))
            read = 0
            if file and late < len(part):
                file.seek(_VALUE.itemsize * (1 + first + late - begin))
                read = (file.readinto(part[late:].data.cast("B")) or 0) // _VALUE.itemsize
            part[:late] = part[late + read :] = np.nan
            at += len(part)


def _opened(path: Path) -> AbstractContextManager[FileIO | None]:
    """Open a bin, nothing where there is none."""
    with suppress(FileNotFoundError):
        return FileIO(path)
    return nullcontext()


def _begin(file: FileIO) -> int:
    """Return the place of the first value of a bin."""
    header = file.read(_VALUE.itemsize)
    place = np.frombuffer(header, _VALUE)[0] if len(header) == _VALUE.itemsize else np.nan
    if not np.isfinite(place):
        raise ValueError(f"{file.name}: damaged, it does not begin with a place in the calendar")
    return int(place)
