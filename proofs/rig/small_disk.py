"""A disk of a fixed size, to be filled up: an ext4 in a file, or a tmpfs where no loop device is to be had.

It is mounted in a mount namespace of this process and of those it starts, so it is gone when they are, however they
end. Needs root.
"""

import os
import subprocess
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path

_TMPFS_BYTES = 512 * 1024 * 1024
"""A tmpfs is memory."""
_SMALLEST_PIECE = 4096


class NoSmallDiskError(Exception):
    """No such disk can be had here; the text says why."""


class SmallDisk:
    """A disk of its own under `folder`. Mount it before anything is started that is to see it."""

    def __init__(self, folder: Path, size: int) -> None:
        """Plan a disk of `size` bytes."""
        self.path = folder / "disk"
        self.kind = ""
        self._image = folder / "disk.ext4"
        self._size = size
        self._filler = self.path / "filler"

    def mount(self) -> None:
        """Make and mount it. Raises `NoSmallDiskError`."""
        if os.geteuid() != 0:
            raise NoSmallDiskError("mounting a small disk needs root")
        try:
            os.unshare(os.CLONE_NEWNS)  # type: ignore[attr-defined,unused-ignore] # Linux only
            _run("mount", "--make-rprivate", "/")
        except (OSError, AttributeError) as error:
            raise NoSmallDiskError(f"no mount namespace of our own: {error}") from error
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._mount_ext4()
            self.kind = "ext4"
        except OSError:
            self._mount_tmpfs()
            self.kind = "tmpfs"

    def _mount_ext4(self) -> None:
        with self._image.open("wb") as image:
            image.truncate(self._size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def _mount_tmpfs(self) -> None:
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES}", "tmpfs", str(self.path))
        except OSError as error:
            raise NoSmallDiskError(f"neither a loop device nor a tmpfs: {error}") from error

    def fill(self) -> None:
        """Take what is free, to the last block."""
        handle = os.open(self._filler, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            _take(handle, os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize)
        finally:
            os.close(handle)

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


def _take(handle: int, size: int) -> None:
    taken, piece = 0, max(size, _SMALLEST_PIECE)
    while piece >= _SMALLEST_PIECE:
        try:
            os.posix_fallocate(handle, taken, piece)
        except OSError as error:
            if error.errno != ENOSPC:
                raise
            piece //= 2
        else:
            taken += piece


def _run(*command: str) -> None:
    """Run a command; raises `OSError` with what it said."""
    with suppress(FileNotFoundError):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
        if answer.returncode == 0:
            return
        raise OSError(f"{command[0]}: {answer.stderr.strip()}")
    raise OSError(f"{command[0]} is not installed")
