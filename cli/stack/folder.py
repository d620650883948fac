"""What a stack keeps in its folder, and whose folder is it? I/O."""

import shutil
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO


class StackError(Exception):
    """The system did not come up, or is not what was asked of it."""


class FolderLock:
    """The lock of a stack's folder: two stacks on one folder would write the same files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take it. Raises `StackError` where another run holds it."""
        file = (self._folder / "lock").open("w")
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except OSError as error:
            file.close()
            raise StackError(f"{self._folder} is in use by another run; stop that first") from error
        self._file = file

    def release(self) -> None:
        """Give it back. Safe to call again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def clear(folder: Path) -> None:
    """Delete what an earlier run left in its folder. Raises `StackError` where that run is still under way."""
    if not folder.exists():
        return
    lock = FolderLock(folder)
    lock.take()
    try:
        shutil.rmtree(folder)
    finally:
        lock.release()


def tail(path: Path, lines: int = 10) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
