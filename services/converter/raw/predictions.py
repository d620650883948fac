"""The predicted funding rates of a run, on disk between reading and computing. I/O.

A file of a day holds all symbols, a symbol is computed over all its days, and together they do not fit into memory:
so each file is read once, and what counts of it is put down, symbol by symbol, in one temporary file. Whoever computes
a symbol, in this process or another, reads its days from there.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.converter.features.asof import PredictedRates
from services.converter.raw.days import EVERY, PREDICTED, Faults, UnreadableError
from shared.grid import MINUTE_MS
from shared.storage.files import temporary_of
from shared.storage.layout import Partition


class _Piece(NamedTuple):
    """Where the predictions of a symbol's day lie."""

    day: date
    offset: int
    rows: int


@dataclass(frozen=True)
class Predictions:
    """Where the predictions of one symbol lie: `pieces` of a file, in order of time."""

    path: Path
    pieces: tuple[_Piece, ...] = ()

    def between(self, first: date, last: date) -> PredictedRates:
        """Read those of some days, both inclusive. Raises `OSError`."""
        pieces = [piece for piece in self.pieces if first <= piece.day <= last]
        if not pieces:
            return PredictedRates()
        with self.path.open("rb", buffering=0) as source:
            rows = np.concatenate([_read(source.fileno(), piece, self.path) for piece in pieces])
        return PredictedRates(
            rows["minute"].astype(np.int64) * MINUTE_MS,
            rows["due"].astype(np.int64),
            rows["rate"].astype(np.float64),
            rows["hours"].astype(np.float64),
        )


def _read(descriptor: int, piece: _Piece, path: Path) -> np.ndarray:
    """Read a piece where it lies; only this run writes to `path`, so what is short was taken away."""
    content = os.pread(descriptor, piece.rows * PREDICTED.itemsize, piece.offset)
    if len(content) != piece.rows * PREDICTED.itemsize:
        raise OSError(errno.EIO, "shorter than it was written", str(path))
    return np.frombuffer(content, PREDICTED)


class StoredPredictions(NamedTuple):
    """Symbol → its predictions, and what could not be read of them."""

    of: Mapping[str, Predictions]
    faults: Faults


@contextmanager
def prediction_file(folder: Path) -> Iterator[Path]:
    """Give the name of a file in a folder for as long as a run lasts. One that stays is removed by the next run."""
    path = temporary_of(folder / "predictions")
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


Read = Callable[[Partition], tuple[Mapping[str, NDArray[np.void]], Mapping[str, str]]]
"""What reads a file, as `read_predictions` does."""


def put_down(files: Iterable[Partition], read_file: Read, path: Path) -> StoredPredictions:
    """Read what was predicted, file by file, and write it to `path`.

    files: in order of time. Raises `OSError` where it cannot be written.
    """
    pieces: dict[str, list[_Piece]] = defaultdict(list)
    faults = Faults()
    with path.open("wb") as target:
        for file in files:
            read, found = _read_or_named(file, read_file)
            for symbol, rows in read.items():
                pieces[symbol].append(_Piece(file.day, target.tell(), len(rows)))
                target.write(rows.tobytes())
            for name, reason in found.items():
                faults.setdefault(name, {})[file.day] = reason
    return StoredPredictions({symbol: Predictions(path, tuple(parts)) for symbol, parts in pieces.items()}, faults)


def _read_or_named(file: Partition, read: Read) -> tuple[Mapping[str, NDArray[np.void]], Mapping[str, str]]:
    try:
        return read(file)
    except UnreadableError as error:
        return {}, {EVERY: str(error)}
