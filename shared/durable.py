"""Files that survive a crash: temporary file, fsync, rename, fsync of the folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path


class BusyError(Exception):
    """Another process holds the lock."""


def replace_file(path: Path, write: Callable[[Path], object], *, sync_folder: bool = True) -> None:
    """Replace a file so that a reader, or a crash at any instant, sees the old one or the new one, whole.

    `write` fills the temporary file that it is given. With `sync_folder=False` the caller syncs the folder itself, once
    for many files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        write(temporary)
        fsync_path(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_folder:
        fsync_path(path.parent)


def temporary_of(path: Path) -> Path:
    """Return the name of a file while it is written: with a dot and `.tmp`, so that no reader takes it for data."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def replace_text(path: Path, text: str) -> None:
    """Replace a text file durably."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def fsync_path(path: Path) -> None:
    """Make a file's content durable, or the names in a folder: a rename lives in the folder, not in the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temporaries(root: Path) -> int:
    """Remove what a crash left behind; return how many files. Call it only while nobody writes under `root`."""
    stale = [path for path in root.rglob(".*.tmp") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


@contextmanager
def exclusive(path: Path, otherwise: str) -> Iterator[int]:
    """Hold a lock file, so that two processes never change the same folder. The lock dies with its process.

    Yields its descriptor: a process that inherits it holds the lock, too, until it ends itself.

    Raises `BusyError`, saying `otherwise`, at once where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise BusyError(otherwise) from None
        yield handle.fileno()
