"""Which versions of the dataset are there, and which one do readers see? Reads only; `changing` changes them.

    qlib_data -> qlib_data.versions/head      what readers open: the head, or a snapshot while one is pinned
    qlib_data.versions/head -> v0002          the version that the converter writes
    qlib_data.versions/v0001/, v0002/         versions: whole provider folders
    qlib_data.versions/before-paper/          a snapshot: a provider folder that never changes
    qlib_data.versions/.v0003.unfinished/     being made, or being deleted

One rename of `head` decides what is written and what is read; readers resolve the symlinks once, when they begin, and
stay in their folder until it is pruned. Links are relative, so that the parent folder may be mounted anywhere.

A real directory at QLIB_DIR, as older installations have, is the head and is written in place. When it has to make room
for a symlink it becomes the first version: it is moved in by one rename, and the symlink appears by the next. Between
the two QLIB_DIR does not exist; a process that dies there leaves a whole version and a `head` that names it, and the
next change puts the symlink back.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.storage.qlib_layout import OWN, versions_of

SNAPSHOT_FILE = OWN / "snapshot.json"
"""A snapshot's manifest, inside its folder; Qlib does not read it."""

HEAD = "head"
_VERSION = re.compile(r"v\d{4,}")
_MAX_LINKS = 40
"""As many symlinks as Linux follows itself."""


class VersionError(ValueError):
    """What was asked for cannot be done with the versions that there are; the text says why, and what can be."""


@dataclass(frozen=True)
class VersionEntry:
    """One folder that can be read. is_head: the converter writes it. is_read: QLIB_DIR leads to it."""

    name: str
    path: Path
    is_snapshot: bool
    is_head: bool
    is_read: bool


@dataclass
class Versions:
    """The versions of one dataset, as they lie on disk now. name: the path that readers open."""

    name: Path

    @classmethod
    def of(cls, qlib_dir: Path) -> "Versions":
        """Return the versions behind QLIB_DIR."""
        return cls(own_name(qlib_dir))

    @property
    def folder(self) -> Path:
        """Where versions and snapshots lie: beside the name."""
        return versions_of(self.name)

    @property
    def in_place(self) -> bool:
        """Whether the name is a real directory, which then is the head."""
        return self.name.is_dir() and not self.name.is_symlink()

    @property
    def head(self) -> Path:
        """The real folder that the converter writes; it need not exist yet."""
        link = self.folder / HEAD
        if self.in_place or not link.is_symlink():
            return self.name
        return self.folder / link.readlink()

    @property
    def exists(self) -> bool:
        """Whether there is a dataset at all."""
        return self.head.is_dir()

    @property
    def pinned(self) -> str | None:
        """The name of the snapshot that readers see, or None where they see the head."""
        if not self.name.is_symlink():
            return None
        target = self.name.readlink().name
        return None if target == HEAD else target

    def entries(self) -> list[VersionEntry]:
        """Return what can be read: snapshots and versions by name, and a head that is written in place."""
        found = [self.name] if self.in_place else []
        if self.folder.is_dir():
            found += sorted(
                path
                for path in self.folder.iterdir()
                if not path.name.startswith(".") and path.is_dir() and not path.is_symlink()
            )
        head, read = self.head, self.name.resolve()
        return [
            VersionEntry(path.name, path, self.is_snapshot(path), path == head, path.resolve() == read)
            for path in found
        ]

    def is_snapshot(self, path: Path) -> bool:
        """Return whether a folder is a snapshot: by its name, or, where it has been copied away, by its manifest."""
        if path.parent == self.folder.resolve() or path.parent == self.folder:
            return not _VERSION.fullmatch(path.name)
        return (path / SNAPSHOT_FILE).exists()

    def find(self, name: str | None) -> Path:
        """Return the folder of a version or a snapshot, of "head", or (None) the one that readers see."""
        if name in {None, HEAD}:
            path = self.head if name else self.name.resolve()
            if not path.is_dir():
                raise VersionError(f"{self.name}: there is no dataset yet")
            return path
        return self._entry(name or "").path

    def _entry(self, name: str) -> VersionEntry:
        entries = {entry.name: entry for entry in self.entries()}
        if name not in entries:
            raise VersionError(f"{self.name} has no version {name!r}; it has {', '.join(entries) or 'none'}")
        return entries[name]

    def _numbers(self) -> list[int]:
        return [number for entry in self.entries() if (number := number_of(entry.path, self.folder))]


def head_folder(qlib_dir: Path) -> Path:
    """Return the folder that the converter writes, whatever readers see; it need not exist yet."""
    return Versions.of(qlib_dir).head


def size_of(folder: Path) -> int:
    """Return how many bytes the files of a folder hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def own_name(qlib_dir: Path) -> Path:
    """Follow symlinks that were made elsewhere: versions lie where the data is, not where it is pointed to from."""
    path = qlib_dir.expanduser().absolute()
    for _ in range(_MAX_LINKS):
        if not path.is_symlink() or path.readlink().parent.name == versions_of(path).name:
            return path
        path = path.parent / path.readlink()
    raise VersionError(f"{qlib_dir} is a symlink that leads nowhere")


def number_of(path: Path, folder: Path) -> int:
    """Return the number of a version in the folder of the versions, 0 of anything else."""
    return int(path.name[1:]) if path.parent == folder and _VERSION.fullmatch(path.name) else 0
