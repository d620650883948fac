"""Snapshots: the head, frozen beside it, with a manifest that describes it down to the digest of every file. I/O.

Files are copied, never hard-linked: bins are patched in place, and a second name would show the patch. The kernel
copies them, which on btrfs and XFS shares the blocks until one side is written.
"""

import hashlib
import os
import platform
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from services.converter.manifest import manifest_path, read_manifest
from services.converter.qlib.bins import read_extent
from services.converter.qlib.frequencies import FREQUENCIES, Frequency
from services.converter.qlib.store import QlibStore
from services.converter.versions.changing import LOCK, changing, check_name, give_name, sync_tree
from services.converter.versions.versions import SNAPSHOT_FILE, VersionError
from shared.storage.files import exclusive, replace_file
from shared.storage.qlib_layout import CALENDARS, INSTRUMENTS

_ROOT = Path(__file__).parents[3]
_WIDTH = 4
_MINUTELY = FREQUENCIES[0]
_READ_ONLY = 0o444
_CHUNK_BYTES = 1 << 20
_HASHERS = 2
"""A digest takes a core for itself; more than this would not leave the services any on a small machine."""

Progress = Callable[[str, int, int], None]
"""(what is being done, how many of it, of how many)."""


class CalendarRange(msgspec.Struct, frozen=True):
    """Bars of a calendar. first, last: labels, the open of a bar in UTC."""

    first: str
    last: str
    bars: int


class SymbolMinutes(msgspec.Struct, frozen=True):
    """Minutes of a symbol. coverage: the share of those from the first to the last that have a candle."""

    first: str
    last: str
    coverage: float


class FrozenFile(msgspec.Struct, frozen=True):
    """One file of a snapshot. size: bytes."""

    sha256: str
    size: int


class SnapshotManifest(msgspec.Struct, kw_only=True, frozen=True):
    """What a snapshot is."""

    name: str
    created: datetime
    version: str
    """The version that it was taken of."""
    recipe: str
    """How bars were computed, as the converter names it."""
    software: dict[str, str]
    calendars: dict[str, CalendarRange]
    fields: dict[str, list[str]]
    """By frequency."""
    symbols: dict[str, SymbolMinutes]
    coverage: float
    """The share of all minutes of all symbols that have a candle."""
    files: dict[str, FrozenFile]
    """Every file but this one, by its path inside the snapshot."""


def read_snapshot(folder: Path) -> SnapshotManifest | None:
    """Read a snapshot's manifest; None where the folder is no snapshot. Raises `ValueError` on a damaged one."""
    path = folder / SNAPSHOT_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=SnapshotManifest)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def take_snapshot(
    qlib_dir: Path,
    name: str,
    *,
    created: datetime,
    patience_seconds: float = 0.0,
    waits: Callable[[], object] = lambda: None,
    progress: Progress = lambda *_: None,
) -> tuple[Path, SnapshotManifest]:
    """Freeze the head under a name. The converter waits only while files are copied, not while they are digested.

    What lies in the bins beyond the calendars, which no reader sees, is left out.

    Raises:
        VersionError: the name is taken or none, there is nothing to freeze, or there is no place for it.
        BusyError: the converter was at work for longer than `patience_seconds`.

    """
    check_name(name)
    with ExitStack() as being_made:
        with changing(qlib_dir, patience_seconds=patience_seconds, waits=waits) as versions:
            head = QlibStore(versions.head)
            _check_finished(head)
            folder = versions.reserve(name)
            lock = folder / LOCK
            being_made.enter_context(exclusive(lock, f"snapshot {name} is being made"))
            base = head.root.name
            _copy_head(head, folder, progress)
        manifest = _describe(folder, name, created, base, progress)
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        replace_file(folder / SNAPSHOT_FILE, lambda temporary: temporary.write_bytes(content))
        lock.unlink()
        for path in files_of(folder):
            path.chmod(_READ_ONLY)
        sync_tree(folder)
        return give_name(folder), manifest


def files_of(folder: Path) -> list[Path]:
    """Return every file of a folder, in order."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def digests(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the SHA-256 of files, in their order; some are read at once."""
    with ThreadPoolExecutor(max_workers=_HASHERS) as pool:
        yield from pool.map(_sha256, paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# --- Copying


def _check_finished(head: QlibStore) -> None:
    if head.calendar(_MINUTELY) is None:
        raise VersionError(f"{head.root}: nothing has been converted yet")
    if head.unfinished:
        raise VersionError(
            f"{head.root}: the last conversion did not end, so late rows may be there by half; convert again first"
        )


def _copy_head(head: QlibStore, folder: Path, progress: Progress) -> None:
    """Copy what readers see, and what the converter remembers of the raw files that it comes from."""
    texts = [*_listed(head.root / CALENDARS, ".txt"), *_listed(head.root / INSTRUMENTS, ".txt")]
    bins = [path for symbol in head.symbols() for path in _listed(head.folder(symbol), ".bin")]
    remembered = [manifest_path(head.root)] if manifest_path(head.root).exists() else []
    bars = {frequency.name: _bars(head, frequency) for frequency in FREQUENCIES}
    paths = [*texts, *remembered, *bins]
    for done, path in enumerate(paths):
        progress("copying", done, len(paths))
        size = path.stat().st_size
        if path.suffix == ".bin":
            size = _visible_bytes(path, size, bars.get(path.name.split(".")[-2], 0))
        if size or path.suffix != ".bin":  # a market may have no members
            target = folder / path.relative_to(head.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, target, size)
    progress("copying", len(paths), len(paths))


def _listed(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith("."))


def _bars(store: QlibStore, frequency: Frequency) -> int:
    calendar = store.calendar(frequency)
    return calendar[1] if calendar else 0


def _visible_bytes(path: Path, size: int, bars: int) -> int:
    """Return how much of a bin the calendar shows: nothing, where it begins beyond its end.

    Raises `DamagedBinError`.
    """
    extent = read_extent(path)
    return min(size, _WIDTH * (1 + bars - extent[0])) if extent is not None and extent[0] < bars else 0


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy the first bytes of a file inside the kernel, where it can."""
    with source.open("rb") as reader, target.open("xb") as writer:
        left = size
        try:
            while left and (count := os.copy_file_range(reader.fileno(), writer.fileno(), left)):
                left -= count
        except (AttributeError, OSError):  # macOS, or a file system that cannot: what is done so far is done again
            reader.seek(0)
            writer.seek(0)
            left = size
            while left and (part := reader.read(min(left, _CHUNK_BYTES))):
                writer.write(part)
                left -= len(part)
    if left:
        raise OSError(f"{source} ended {left} bytes early")


# --- Describing


def _describe(folder: Path, name: str, created: datetime, base: str, progress: Progress) -> SnapshotManifest:
    store = QlibStore(folder)
    symbols, coverage = _symbols(store, progress)
    return SnapshotManifest(
        name=name,
        created=created,
        version=base,
        recipe=read_manifest(folder).recipe,
        software=software(),
        calendars={frequency.name: found for frequency in FREQUENCIES if (found := _range(store, frequency))},
        fields=_fields(store),
        symbols=symbols,
        coverage=coverage,
        files=_files(folder, progress),
    )


def _range(store: QlibStore, frequency: Frequency) -> CalendarRange | None:
    calendar = store.calendar(frequency)
    if calendar is None:
        return None
    first = _label(frequency, calendar[0])
    return CalendarRange(first, store.last_label(frequency), calendar[1])


def _label(frequency: Frequency, opened: datetime) -> str:
    return f"{opened:%Y-%m-%d}" if frequency.name == "day" else f"{opened:%Y-%m-%d %H:%M:%S}"


def _fields(store: QlibStore) -> dict[str, list[str]]:
    """Return the fields of every frequency that has any, those of all symbols together."""
    extents = [store.extents(symbol) for symbol in store.symbols()]
    found = {one.name: sorted({name for bins in extents for name in bins[one.name]}) for one in FREQUENCIES}
    return {frequency: names for frequency, names in found.items() if names}


def _symbols(store: QlibStore, progress: Progress) -> tuple[dict[str, SymbolMinutes], float]:
    """Return the minutes of every symbol, and the coverage of all of them together."""
    calendar = store.calendar(_MINUTELY)
    found, total = {}, Counter[str]()
    symbols = store.symbols()
    for done, symbol in enumerate(symbols):
        progress("counting", done, len(symbols))
        extent = store.extent(symbol, "close", _MINUTELY)
        if extent is None or calendar is None:
            continue
        first, last = (_label(_MINUTELY, calendar[0] + at * _MINUTELY.step) for at in (extent[0], extent[1] - 1))
        minutes, candles = extent[1] - extent[0], _candles(store, symbol)
        total.update(minutes=minutes, candles=candles)
        found[symbol] = SymbolMinutes(first, last, candles / minutes)
    return found, total["candles"] / max(1, total["minutes"])


def _candles(store: QlibStore, symbol: str) -> int:
    """Return how many minutes of a symbol have a candle."""
    covered = store.bin_path(symbol, "coverage", _MINUTELY)
    if covered.exists():
        return int(np.count_nonzero(np.fromfile(covered, "<f4", offset=_WIDTH) > 0))
    return int(
        np.count_nonzero(~np.isnan(np.fromfile(store.bin_path(symbol, "close", _MINUTELY), "<f4", offset=_WIDTH)))
    )


def _files(folder: Path, progress: Progress) -> dict[str, FrozenFile]:
    paths = [path for path in files_of(folder) if path.relative_to(folder).as_posix() != ".converter/lock"]
    found = {}
    for done, (path, digest) in enumerate(zip(paths, digests(paths), strict=True), start=1):
        found[path.relative_to(folder).as_posix()] = FrozenFile(digest, path.stat().st_size)
        progress("digesting", done, len(paths))
    return found


def software() -> dict[str, str]:
    """Return the versions of what made the data; this project's own as far as they are known where it runs."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: version(package) for package in ("numpy", "pyarrow")}
    project = _ROOT / "pyproject.toml"
    if project.exists():
        found["qlib-crypto"] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    if commit := _commit():
        found["commit"] = commit
    return found


def _commit() -> str | None:
    """Return the commit that runs, "+" behind it where files differ from it; None where there is no git."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - constant arguments
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
