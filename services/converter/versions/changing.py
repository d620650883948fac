"""How do versions change? Begun, finished, swapped in, pinned, pruned: always under the locks, by one rename. I/O.

Every change is made under `qlib_data.versions/.lock` (where that folder is there) and the head's own
`.converter/lock`: the second one keeps out who was given the folder of a version itself, or works in place.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.converter.versions.versions import HEAD, VersionError, Versions, number_of, own_name, size_of
from shared.storage.files import BusyError, exclusive, fsync_path, replace_text
from shared.storage.qlib_layout import OWN, PARTS

_UNFINISHED = ".unfinished"
LOCK = OWN / "lock"
_BASE = OWN / "built-from"
"""Inside a version: the name of the one that was the head before it."""

_POLL_SECONDS = 0.1
_ROOM = 1.5
"""Times the size of the head that must be free for a new version."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
LONGEST_NAME = 100
"""Characters of a snapshot's name: with what stands around it while it is made, every file system takes it."""
_PARTS = PARTS | {"lost+found"}
_SHOWN = 5


@dataclass
class LockedVersions(Versions):
    """The versions of one dataset while no other process may change them: see `changing`."""

    lock_descriptor: int = -1
    """What the lock of the head hangs on."""
    _locks: ExitStack = field(default_factory=ExitStack)
    _holds_folder: bool = False
    _building: Path | None = None

    # --- the lock

    def lock(self) -> None:
        """Take the locks, and bring the links into order. Raises `BusyError` where another process has them.

        Raises `VersionError` where QLIB_DIR is a file, or a folder with other things than a dataset.
        """
        check_folder(self.name)
        in_place = self.in_place
        if self.folder.is_dir() or not in_place:
            self._lock_folder()
        if not self.in_place:
            self._heal()
        head = self.head
        self.lock_descriptor = self._locks.enter_context(exclusive(head / LOCK, self._busy))
        if (self.in_place, self.head) != (in_place, head):
            raise BusyError(self._busy)  # it was moved into the versions while its lock was waited for

    def unlock(self) -> None:
        """Give the locks back."""
        self._locks.close()
        self._holds_folder = False

    @property
    def _busy(self) -> str:
        return f"another converter, or a command on its versions, is at work on {self.name}"

    def _lock_folder(self) -> None:
        if not self._holds_folder:
            self._locks.enter_context(exclusive(self.folder / ".lock", self._busy))
            self._holds_folder = True

    def _heal(self) -> None:
        """Make both links lead somewhere: on the very first run, and where a process died in between."""
        if not self.head.is_dir() or self.head == self.name:
            version = self.folder / _version_name(max(self._numbers(), default=1))
            version.mkdir(exist_ok=True)
            _point(self.folder / HEAD, version.name)
        if not self.name.is_symlink():
            _point(self.name, f"{self.folder.name}/{HEAD}")

    # --- versions

    def begin(self) -> Path:
        """Return an empty folder for a new version, which no reader sees until `publish`.

        Raises `VersionError` where QLIB_DIR is a mount point, which cannot become a symlink, or the disk has no room.
        """
        self._check_room()
        self._adopt()
        self.remove_unfinished()
        self._building = self._unfinished(_version_name(max(self._numbers(), default=0) + 1))
        replace_text(self._building / _BASE, self.head.name)
        return self._building

    @property
    def is_building(self) -> bool:
        """Whether a version has been begun that no reader sees yet."""
        return self._building is not None

    def publish(self) -> None:
        """Make the version that was begun the head, durably and at once; without one there is nothing to do."""
        if self._building is None:
            return
        version = self.finish(self._building)
        _point(self.folder / HEAD, version.name)
        self._building = None

    def abandon(self) -> None:
        """Delete the version that was begun: on a full disk its room is needed. What stays is deleted the next time."""
        if self._building is not None:
            for folder in {self._building, _finished(self._building)} - {self.head}:
                shutil.rmtree(folder, ignore_errors=True)
        self._building = None

    def rollback(self, name: str | None = None) -> str:
        """Make the version before the head the head again, or the one that is named; return its name."""
        base = self.head / _BASE
        if self.in_place or (name is None and not base.exists()):
            raise VersionError(f"there is no version before {self.head.name}")
        name = name or base.read_text(encoding="utf-8")
        entry = self._entry(name)
        if entry.is_snapshot:
            raise VersionError(f"{name} is no version that can be written; `pin {name}` lets readers see it")
        _point(self.folder / HEAD, name)
        return name

    def _adopt(self) -> None:
        """Make a head that is written in place the first version. Readers must not open it between the two renames."""
        if not self.in_place:
            return
        self.make_room()
        version = self.folder / _version_name(max(self._numbers(), default=0) + 1)
        _point(self.folder / HEAD, version.name)  # first, so that a crash after the move leaves a head
        try:
            self.name.rename(version)
        except OSError as error:
            if error.errno in {errno.EBUSY, errno.EXDEV}:  # what `ismount` does not see: a bind mount of the same disk
                raise VersionError(self._mounted) from error
            raise
        fsync_path(self.folder)
        _point(self.name, f"{self.folder.name}/{HEAD}")

    def make_room(self) -> None:
        """Make the folder of the versions, where there can be one. Raises `VersionError` on a mount point."""
        if self.in_place and os.path.ismount(self.name):
            raise VersionError(self._mounted)
        self._lock_folder()

    def _check_room(self) -> None:
        """Check that a copy of the head leaves room for what is collected meanwhile."""
        needed, free = int(_ROOM * size_of(self.head)), shutil.disk_usage(self.head).free
        if needed > free:
            raise VersionError(
                f"a new version needs {needed / 1e9:.1f} GB beside {self.name}, free are {free / 1e9:.1f}: make room, "
                f"for instance with `qlib-crypto dataset prune --keep 0`"
            )

    @property
    def _mounted(self) -> str:
        return (
            f"{self.name} is a mount point, so no version can lie beside it: mount its parent folder instead, and let "
            f"QLIB_DIR name a folder inside (Docker: the volume on /data/qlib, QLIB_DIR=/data/qlib/qlib_data, and what "
            f"the volume holds now moved into that folder)"
        )

    # --- snapshots

    def reserve(self, name: str) -> Path:
        """Return an empty folder for a snapshot, which no reader sees until `finish`. Raises `VersionError`."""
        check_name(name)
        self.make_room()
        if any(entry.name == name for entry in self.entries()):
            raise VersionError(f"there is a snapshot {name} already")
        self.remove_unfinished()
        if (self.folder / f".{name}{_UNFINISHED}").exists():
            raise VersionError(f"snapshot {name} is being made")
        return self._unfinished(name)

    def pin(self, name: str) -> None:
        """Let readers see a snapshot; the converter goes on with the head."""
        if not self._entry(name).is_snapshot:
            raise VersionError(f"{name} is no snapshot: the converter may write it")
        self._adopt()
        _point(self.name, f"{self.folder.name}/{name}")

    def unpin(self) -> str | None:
        """Let readers see the head; return the name of the snapshot that they saw."""
        pinned = self.pinned
        if pinned is not None:
            _point(self.name, f"{self.folder.name}/{HEAD}")
        return pinned

    # --- what comes and goes

    def _unfinished(self, name: str) -> Path:
        folder = self.folder / f".{name}{_UNFINISHED}"
        folder.mkdir()
        return folder

    def finish(self, unfinished: Path) -> Path:
        """Give a folder its name, after everything in it is durable; return it."""
        sync_tree(unfinished)
        return give_name(unfinished)

    def remove_unfinished(self) -> None:
        """Delete what a process that died left unfinished; not what a living process is at work on."""
        for folder in self.folder.glob(f".*{_UNFINISHED}"):
            try:
                with exclusive(folder / LOCK, ""):
                    shutil.rmtree(folder)
            except BusyError:
                continue

    def prune(self, keep: int, *, snapshots: bool = False) -> list[tuple[str, int]]:
        """Delete old versions, but for the newest `keep`; return names and bytes.

        Old is what came before the head: a version that was rolled back may hold days that the head lacks. With
        `snapshots` also those, but for the newest `keep`. What QLIB_DIR leads to stays in any case.
        """
        self.remove_unfinished()
        entries = self.entries()
        numbers = {one.path: number_of(one.path, self.folder) for one in entries}
        before = [one for one in entries if 0 < numbers[one.path] < numbers[self.head]]
        old = sorted(before, key=lambda one: numbers[one.path], reverse=True)[keep:]
        if snapshots:
            frozen = [one for one in entries if one.is_snapshot and one.path != self.name]
            old += sorted(frozen, key=lambda one: one.path.stat().st_mtime_ns, reverse=True)[keep:]
        return [(one.name, self._delete(one.path)) for one in old if not (one.is_head or one.is_read)]

    def _delete(self, folder: Path) -> int:
        """Delete a folder, which disappears at once and whole; return its bytes."""
        size = size_of(folder)
        doomed = folder.with_name(f".{folder.name}{_UNFINISHED}")
        folder.rename(doomed)
        fsync_path(self.folder)
        shutil.rmtree(doomed)
        return size


@contextmanager
def changing(
    qlib_dir: Path, *, patience_seconds: float = 0.0, waits: Callable[[], object] = lambda: None
) -> Iterator[LockedVersions]:
    """Hold the versions of a dataset, so that no other process writes or swaps them. The first time it creates them.

    `waits` is called once if another process has to be waited for. Raises `BusyError` once patience is at its end.
    """
    deadline, reported = time.monotonic() + patience_seconds, False
    while True:
        versions = LockedVersions(own_name(qlib_dir))
        try:
            versions.lock()
            break
        except BaseException as error:
            versions.unlock()
            if not isinstance(error, BusyError) or time.monotonic() >= deadline:
                raise
        if not reported:
            waits()
            reported = True
        time.sleep(_POLL_SECONDS)
    try:
        yield versions
    except Exception:
        versions.abandon()
        raise
    finally:
        versions.unlock()


def check_folder(name: Path) -> None:
    """Check that a folder is a dataset, or may become one: as a version it is moved, and deleted in the end.

    Hidden names and Qlib's own caches may be in it. Raises `VersionError`.
    """
    if name.is_symlink() or not name.exists():
        return
    if not name.is_dir():
        raise VersionError(f"QLIB_DIR={name} is a file: name a folder, which need not exist")
    foreign = sorted(
        path.name
        for path in name.iterdir()
        if path.name not in _PARTS and not path.name.startswith(".") and not path.name.endswith("_cache")
    )
    if foreign:
        raise VersionError(
            f"QLIB_DIR={name} holds what is no part of a dataset ({', '.join(foreign[:_SHOWN])}): "
            "name a folder of its own, or move that elsewhere"
        )


def check_name(name: str) -> None:
    """Check that a snapshot may have a name. Raises `VersionError`."""
    if len(name) > LONGEST_NAME:
        raise VersionError(
            f"a snapshot cannot be called {name[:20]!r}...: that name has {len(name):,} characters, and the longest "
            f"allowed has {LONGEST_NAME}"
        )
    if not _NAME.fullmatch(name) or name.lower() == HEAD or re.fullmatch(r"v\d+", name):
        raise VersionError(
            f"a snapshot cannot be called {name!r}: letters, digits, '.', '_' and '-', beginning with a letter or a "
            f"digit; not 'head', and not as versions are called"
        )


def give_name(unfinished: Path) -> Path:
    """Give a folder that is durable its name, durably; return it."""
    finished = _finished(unfinished)
    unfinished.rename(finished)
    fsync_path(finished.parent)
    return finished


def _finished(unfinished: Path) -> Path:
    return unfinished.with_name(unfinished.name[1:].removesuffix(_UNFINISHED))


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(fsync_path, [path for path in folder.rglob("*") if not path.is_symlink()]))
    fsync_path(folder)


def _point(link: Path, target: str) -> None:
    """Let a symlink lead to a target, durably: whoever follows it sees the old one or the new one."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    fsync_path(link.parent)


def _version_name(number: int) -> str:
    return f"v{number:04}"
