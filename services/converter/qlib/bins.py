"""What does one bin hold, and is it a bin at all? Little-endian float32: the position of the first value, then values.

Source of the format: Qlib's `FileFeatureStorage`.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class DamagedBinError(ValueError):
    """A bin that cannot be what was written; the text names it."""


Values = NDArray[np.float32]

Extent = tuple[int, int]
"""The positions [first, end) of the calendar that a bin holds."""


@dataclass(frozen=True)
class Slice:
    """Values of consecutive bars, from a position of the calendar on."""

    position: int
    values: Values

    @property
    def end(self) -> int:
        """Return the position after the last value."""
        return self.position + len(self.values)


class Bins(NamedTuple):
    """What the bins of a symbol hold at a frequency: field → extent, and of the damaged ones field → the reason."""

    extents: Mapping[str, Extent]
    damaged: Mapping[str, str]

    @property
    def common(self) -> Extent | None:
        """The extent that most of them have."""
        counted = Counter(self.extents.values()).most_common(1)
        return counted[0][0] if counted else None

    def of(self, names: Container[str]) -> "Bins":
        """Return the same of some fields only."""
        extents = {name: extent for name, extent in self.extents.items() if name in names}
        return Bins(extents, {name: reason for name, reason in self.damaged.items() if name in names})


WIDTH = 4

LAST_POSITION = 2**24
"""The last one up to which every position is a float32 of its own: 31 years of minutes."""


def read_bin(path: Path) -> Slice | None:
    """Return all that a bin holds, or None where there is no bin. Raises `DamagedBinError`."""
    extent = read_extent(path)
    return None if extent is None else Slice(extent[0], np.fromfile(path, "<f4", offset=WIDTH))


def read_extent(path: str | Path) -> Extent | None:
    """Return the positions [first, end) that a bin holds, or None where there is no bin.

    Raises:
        DamagedBinError: it is no regular file, cannot be read, or its size or its first position cannot be.

    """
    handle = open_bin(path, os.O_RDONLY)
    if handle is None:
        return None
    try:
        return extent_of(path, handle)
    finally:
        os.close(handle)


def open_bin(path: str | Path, mode: int) -> int | None:
    """Open a bin, and return its descriptor; None where there is none. Raises `DamagedBinError`."""
    try:
        return os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would be waited for
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        raise DamagedBinError(f"{path}: {error.strerror}") from error


_OF_THE_FILE = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}
"""Errors of opening something that is no file; any other is not about the bin."""


def extent_of(path: str | Path, handle: int) -> Extent:
    """Return the positions that an open bin holds. Raises `DamagedBinError`."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedBinError(f"{path}: is no regular file")
    if status.st_size < 2 * WIDTH:  # behind whole values there may be a part of one: killed while it was appended
        raise DamagedBinError(f"{path}: {status.st_size} bytes are no position and values")
    head = float(np.frombuffer(os.pread(handle, WIDTH, 0), "<f4")[0])
    if not head.is_integer() or not 0 <= head <= LAST_POSITION:  # infinity and NaN are no integers
        raise DamagedBinError(f"{path}: begins at position {head:g}, which cannot be")
    return int(head), int(head) + status.st_size // WIDTH - 1


def write_new(path: str | Path, content: memoryview) -> None:
    """Write a file that is not there yet, nor perhaps its folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(path, flags, 0o666)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags, 0o666)
    try:
        write_whole(handle, content, 0)
    finally:
        os.close(handle)


def write_whole(handle: int, content: memoryview, at: int) -> None:
    """Write at an offset. A disk that gets full takes a part first, and fails only at the next attempt."""
    while content:
        written = os.pwrite(handle, content, at)
        content, at = content[written:], at + written
