"""How do thousands of small files become durable? With one call for the whole file system, where there is one. I/O.

`syncfs` returns once every page of the file system that was dirty when it was called is on the disk, and with it the
metadata that leads there: sizes, and names of new files. So it does for all files at once what `fsync` does for each;
only it does not report of which file a page could not be written. Since Linux 5.8 it reports that there was one, from
the opening of its descriptor on, which is why that is opened before the first write. On an older kernel, on another
system and for a few files each of them is synced.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from shared.storage.files import fsync_path

_AT_ONCE = 8
"""Files that are synced at a time: a disk that is asked for many takes little longer than for one."""
_FEW = 256
"""Files that are synced sooner one by one: what others have written to the file system is waited for, too."""
_REPORTS_ERRORS = (5, 8)
"""The first Linux whose `syncfs` fails where a page could not be written."""
_POOL = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sync")
"""Its threads start with the first file."""


@dataclass
class Durable:
    """Makes the files under a folder durable. `open` comes before the first of them is written."""

    root: Path
    _descriptor: int = field(default=-1)

    def open(self) -> None:
        """Begin to take notice of pages that cannot be written."""
        if self._descriptor < 0 and syncfs() is not None:
            self._descriptor = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        """Give back what `open` took."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def sync(self, paths: Collection[str | Path]) -> None:
        """Make files durable, and their names as far as folders are among `paths`. Raises `OSError`."""
        if len(paths) > _FEW and self._descriptor >= 0 and self._holds(paths) and self._sync_all():
            return
        sync_each(paths)

    def _holds(self, paths: Collection[str | Path]) -> bool:
        """Return whether the files lie on one file system: a link may lead to another."""
        device = os.fstat(self._descriptor).st_dev
        return all(os.stat(folder).st_dev == device for folder in {os.path.dirname(path) for path in paths})  # noqa: PTH116, PTH120

    def _sync_all(self) -> bool:
        """Sync the file system; return whether it can be."""
        call = syncfs()
        if call is None:
            return False
        try:
            call(self._descriptor)
        except OSError as error:
            if error.errno in {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}:
                return False
            raise
        return True


def sync_each(paths: Collection[str | Path]) -> None:
    """Make files durable, one by one, several at a time."""
    ordered = list(paths)
    shares = [share for start in range(_AT_ONCE) if (share := ordered[start::_AT_ONCE])]
    list(_POOL.map(_sync_one_by_one, shares))


def _sync_one_by_one(paths: list[str | Path]) -> None:
    for path in paths:
        fsync_path(Path(path))


@cache
def syncfs() -> Callable[[int], None] | None:
    """Return what syncs the file system of a descriptor and raises `OSError`; None where errors would be missed."""
    if platform.system() != "Linux" or _linux() < _REPORTS_ERRORS:
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int]

    def sync(descriptor: int) -> None:
        if call(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return sync


def _linux() -> tuple[int, int]:
    """Return the version of the kernel; (0, 0) where its name does not begin with one."""
    numbers = platform.release().split(".")[:2]
    if len(numbers) < len(_REPORTS_ERRORS) or not all(part.isdigit() for part in numbers):
        return 0, 0
    return int(numbers[0]), int(numbers[1])
