"""Is a version of the dataset what it must be? A snapshot against its manifest, any version in itself. Reads only."""

from pathlib import Path

from services.converter.qlib.store import QlibStore
from services.converter.versions.consistency import Progress, VersionCheck
from services.converter.versions.findings import Findings, UnverifiableError
from services.converter.versions.snapshots import FrozenFile, SnapshotManifest, digests, files_of, read_snapshot
from services.converter.versions.versions import SNAPSHOT_FILE


def verify(folder: Path, *, frozen: bool, progress: Progress = lambda *_: None) -> Findings:
    """Verify a folder: as a snapshot, or as a version, which must not be written meanwhile.

    Raises `UnverifiableError` where there is no calendar, or no manifest of a snapshot that can be read.
    """
    found = Findings()
    if frozen:
        _against_manifest(folder, _manifest(folder), found, progress)
    elif QlibStore(folder).unfinished:
        found.notes.append("the last conversion did not end: what it began may look like a difference; convert again")
    VersionCheck(folder, found, frozen).check(progress)
    return found


# --- Against the manifest


def _manifest(folder: Path) -> SnapshotManifest:
    try:
        manifest = read_snapshot(folder)
    except ValueError as error:
        raise UnverifiableError(str(error)) from error
    if manifest is None:
        raise UnverifiableError(f"{folder / SNAPSHOT_FILE} is missing: it is not known what was frozen")
    return manifest


def _against_manifest(folder: Path, manifest: SnapshotManifest, found: Findings, progress: Progress) -> None:
    there = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    there.pop(SNAPSHOT_FILE.as_posix(), None)
    for name in sorted(manifest.files.keys() - there.keys()):
        found.add(name, "is missing")
    for name in sorted(there.keys() - manifest.files.keys()):
        found.add(name, "is not in the manifest")
    common = sorted(manifest.files.keys() & there.keys())
    for done, (name, digest) in enumerate(zip(common, digests(there[name] for name in common), strict=True), start=1):
        progress("digesting", done, len(common))
        found.files += 1
        now, then = FrozenFile(digest, there[name].stat().st_size), manifest.files[name]
        if now.size != then.size:
            found.add(name, f"has {now.size} bytes, the manifest says {then.size}")
        elif now.sha256 != then.sha256:
            found.add(name, f"is not what was frozen: its SHA-256 begins with {digest[:16]}, not {then.sha256[:16]}")


# --- Against itself
