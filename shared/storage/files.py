"""Files that survive a crash: temporary file, fsync, rename, fsync of the folder."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import count
from pathlib import Path

import structlog

log = structlog.get_logger()


class BusyError(Exception):
    """Another process holds the lock."""


def reason_of(error: OSError) -> str:
    """Return what the system says, and of which file."""
    file = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{file}" if error.strerror else str(error)


OF_THE_FILE = {errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV}
"""What the system says of something that is no file, or not ours to read: it would stand in the way for ever."""


class LockError(OSError):
    """No lock can be had; the text says what to do."""


def replace_file(path: Path, write: Callable[[Path], object], *, sync_folder: bool = True) -> None:
    """Replace a file so that a reader, or a crash at any instant, sees the old one or the new one, whole.

    `write` fills the temporary file that it is given. With `sync_folder=False` the caller syncs the folder itself, once
    for many files.
    """
    temporary = stage_file(path, write)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_folder:
        fsync_path(path.parent)


def stage_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Write what is to become a file, durably, under the temporary name that it returns; a rename makes it the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        write(temporary)
        fsync_path(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


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
    except OSError as error:
        if error.errno not in _NO_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
        _warn_once(path, error)
    finally:
        os.close(descriptor)


_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What a file system says that cannot make the names in a folder durable (CIFS, Docker on Windows)."""
_WARNED: set[int] = set()


def _warn_once(path: Path, error: OSError) -> None:
    """Say once per file system that a power cut may take back the newest renames there; files themselves are synced."""
    device = path.stat().st_dev
    if device not in _WARNED:
        _WARNED.add(device)
        log.warning(
            "folders cannot be synced here, a power cut may lose the newest files", path=str(path), why=str(error)
        )


def remove_stale_temporaries(root: Path) -> int:
    """Remove what a crash left behind; return how many files. Call it only while no one writes under `root`."""
    stale = [
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.startswith(".") and name.endswith(".tmp")
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def free_name(path: Path) -> Path:
    """Return a path, or where there is something already the same with a number behind it."""
    numbered = (path if number == 1 else path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(name for name in numbered if not os.path.lexists(name))


@contextmanager
def exclusive(path: Path, otherwise: str) -> Iterator[int]:
    """Hold a lock file, so that two processes never change the same folder. The lock dies with its process.

    Yields its descriptor: a process that inherits it holds the lock, too, until it ends itself.

    Raises:
        BusyError: another process holds it; it says `otherwise`.
        LockError: no lock can be had here, or the file is a symlink: what it leads to is not ours to touch.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise LockError(f"{path} is a symlink, so it cannot be a lock: remove it") from error
        raise
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(otherwise) from None
    except OSError as error:
        os.close(descriptor)
        raise LockError(
            f"the file system of {path.parent} has no locks ({error.strerror}): two processes would overwrite each "
            "other's files; use a local folder, or mount it with locks"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
