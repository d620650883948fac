"""How does a dataset lie in Qlib's folder, and become visible? Bins by offset, calendars and instruments by rename.

    calendars/1min.txt                      one label a line: the commit record
    instruments/all.txt                     symbol, first, last; a row for each instrument of the name
    features/btc_usdt/close.1min.bin        little-endian float32: the position of the first value, then the values

A reader seeks in the bins up to the calendar's end, so values beyond it are invisible: first all bins, then the
calendars, then the instruments. Writing a value twice at its offset changes nothing, so a run that died is run again.
Source of the format: Qlib's file storage (`FileFeatureStorage`, `FileCalendarStorage`, `FileInstrumentStorage`).
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import structlog

from services.converter.qlib.bins import (
    LAST_POSITION,
    WIDTH,
    Bins,
    DamagedBinError,
    Extent,
    Slice,
    extent_of,
    open_bin,
    read_bin,
    read_extent,
    write_new,
    write_whole,
)
from services.converter.qlib.frequencies import FREQUENCIES, Frequency, calendar_lines, future_bars
from services.converter.qlib.names import Names, folder_of
from shared.storage.durable import Durable
from shared.storage.files import fsync_path, stage_file, temporary_of
from shared.storage.qlib_layout import ALL, BIN_NAME, LISTS, OWN, bin_path, calendar_path, features_of, market_path

log = structlog.get_logger()

_LABEL_BYTES = {True: len("2025-04-05\n"), False: len("2025-04-05 00:00:00\n")}


class CommitError(OSError):
    """What is visible is in part of this conversion, in part of the one before; the text says which."""


class ChangedBinsError(Exception):
    """A bin that is not what this process remembers of it: whoever asks the disk again can go on."""


@dataclass
class QlibStore:
    """One provider folder."""

    root: Path
    distrusts: bool = False
    """Whether the last run died before its commit: then what is equal on disk may not be durable yet."""
    converted: tuple[str, ...] = ()
    """Symbols of which raw files have been converted, as they are spelled: their names count before those on disk."""
    _touched: set[str] = field(default_factory=set)
    """Bins that were written in place, and are not durable yet."""
    _unnamed: dict[str, str] = field(default_factory=dict)
    """Bins that were written as a whole, under names that no reader opens: temporary → its name."""
    _folders: set[str] = field(default_factory=set)
    """Folders whose names are not durable yet."""

    @cached_property
    def durable(self) -> Durable:
        """What makes the bins durable."""
        return Durable(self.root)

    # --- what is there

    def calendar(self, frequency: Frequency) -> tuple[datetime, int] | None:
        """Return the origin and the number of bars of a calendar, or None where there is none yet."""
        path, width = self._calendar_path(frequency), _label_bytes(frequency)
        if not os.path.lexists(path):
            return None
        if not path.is_file():
            raise _no_calendar(path, "is no file")
        with path.open("rb") as handle:
            first = handle.read(width)
            bars, rest = divmod(os.fstat(handle.fileno()).st_size, width)
        if not first:
            return None
        try:
            origin = datetime.fromisoformat(first.decode("ascii").removesuffix("\n")).replace(tzinfo=UTC)
        except ValueError:
            raise _no_calendar(path, "does not begin with a label") from None
        if rest or not first.endswith(b"\n"):
            raise _no_calendar(path, "its size is no multiple of a label's")
        return origin, bars

    def span(self) -> tuple[datetime, datetime] | None:
        """Return [first, end) of what the calendars show, or None where there is none: the longest one counts.

        One of them may have been deleted, or cut: the bins hold what the others show. Raises `ValueError` where one
        begins elsewhere than the others.
        """
        found = {frequency: known for frequency in FREQUENCIES if (known := self.calendar(frequency)) is not None}
        if not found:
            return None
        origin = Counter(first for first, _ in found.values()).most_common(1)[0][0]
        for frequency, (first, _) in found.items():
            if first != origin:
                raise _no_calendar(self._calendar_path(frequency), f"begins at {first}, the others at {origin}")
        return origin, max(origin + bars * frequency.step for frequency, (_, bars) in found.items())

    def symbols(self) -> list[str]:
        """Return the symbols that have features, as they are spelled."""
        return sorted(map(self.names.spelled, self._feature_folders()))

    def _feature_folders(self) -> list[str]:
        """Return the names of the folders of features; whatever else lies there is ignored."""
        with suppress(FileNotFoundError), os.scandir(features_of(self.root)) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        return []

    @cached_property
    def names(self) -> Names:
        """The symbols that have been published. `all.txt` keeps their spelling: folders are in lower case.

        A name in it that has no folder was not written by this converter.
        """
        folders = {*self._feature_folders()}
        listed = (name for name in self._listed_names() if folder_of(name) in folders)
        return Names([*self.converted, *listed])

    def _listed_names(self) -> list[str]:
        """Return the names in `all.txt`, or where it cannot be read those in the other instruments files."""
        for path in [self.market_path(ALL), *sorted(self.market_path(ALL).parent.glob(LISTS))]:
            try:
                # Nothing else is opened: a FIFO would be waited for.
                text = path.read_text(encoding="utf-8") if path.is_file() else None
            except (OSError, UnicodeDecodeError) as error:
                log.warning("instruments cannot be read, they are written again", path=str(path), error=str(error))
            else:
                if text is not None:
                    return [line.partition("\t")[0] for line in text.splitlines()]
                if os.path.lexists(path):
                    log.warning("instruments that are no file, they are written again", path=str(path))
        return []

    def market_path(self, market: str) -> Path:
        """Return where an instruments file lies."""
        return market_path(self.root, market)

    def extent(self, symbol: str, name: str, frequency: Frequency) -> Extent | None:
        """Return the positions [first, end) that a bin holds, or None where there is no bin. See `read_extent`."""
        return read_extent(self._bin(symbol, name, frequency))

    def extents(self, symbol: str) -> Mapping[str, Mapping[str, Extent]]:
        """Return the extent of every bin of a symbol: name of the frequency → field → extent."""
        found: dict[str, dict[str, Extent]] = {frequency.name: {} for frequency in FREQUENCIES}
        with suppress(FileNotFoundError), os.scandir(self.folder(symbol)) as entries:
            for entry in entries:
                match = BIN_NAME.fullmatch(entry.name)
                extent = read_extent(entry.path) if match and match["frequency"] in found else None
                if match and extent is not None:
                    found[match["frequency"]][match["field"]] = extent
        return found

    def value(self, symbol: str, name: str, frequency: Frequency, position: int) -> np.float32:
        """Return the value at a position, NaN where the bin does not reach."""
        extent = self.extent(symbol, name, frequency)
        if extent is None or not extent[0] <= position < extent[1]:
            return np.float32("nan")
        offset = WIDTH * (1 + position - extent[0])
        found: np.float32 = np.fromfile(self.bin_path(symbol, name, frequency), "<f4", count=1, offset=offset)[0]
        return found

    def values(self, symbol: str, name: str, frequency: Frequency) -> Slice | None:
        """Return all that a bin holds, or None where there is no bin. Raises `DamagedBinError`."""
        return read_bin(self.bin_path(symbol, name, frequency))

    def readable(self, symbol: str, frequency: Frequency, names: Iterable[str], bars: int) -> Bins:
        """Return what the bins of some fields hold of the first `bars` bars, and why not of those that are damaged."""
        extents, damaged = dict[str, Extent](), dict[str, str]()
        for name in names:
            try:
                extent = self.extent(symbol, name, frequency)
            except DamagedBinError as error:
                damaged[name] = str(error)
            else:
                if extent is not None and extent[0] < bars:
                    extents[name] = extent[0], min(extent[1], bars)
        return Bins(extents, damaged)

    def last_label(self, frequency: Frequency) -> str:
        """Return the last label of a calendar that is there."""
        with self._calendar_path(frequency).open("rb") as handle:
            handle.seek(-_label_bytes(frequency), os.SEEK_END)
            return handle.read().decode("utf-8", errors="replace").strip()

    def folder(self, symbol: str) -> Path:
        """Return where the bins of a symbol lie."""
        return features_of(self.root) / folder_of(symbol)

    def bin_path(self, symbol: str, name: str, frequency: Frequency) -> Path:
        """Return where a field of a symbol lies."""
        return Path(self._bin(symbol, name, frequency))

    def _bin(self, symbol: str, name: str, frequency: Frequency) -> str:
        """Return the same as a string: thousands of them are opened, and a `Path` costs as much as opening it."""
        return f"{self._features}/{folder_of(symbol)}/{_bin_name(name, frequency.name)}"

    @cached_property
    def _features(self) -> str:
        return str(features_of(self.root))

    def _calendar_path(self, frequency: Frequency, *, future: bool = False) -> Path:
        return calendar_path(self.root, frequency.name, future=future)

    # --- features

    def begin(self) -> None:
        """Mark that bins are being written. A run that finds an old mark syncs also what it need not write."""
        self.distrusts = self.unfinished
        self._marker.parent.mkdir(parents=True, exist_ok=True)
        self._marker.touch()
        self.durable.open()

    @property
    def unfinished(self) -> bool:
        """Whether the last run that wrote has not come to its commit."""
        return self._marker.exists()

    @property
    def _marker(self) -> Path:
        return self.root / OWN / "writing"

    def write(
        self,
        symbol: str,
        name: str,
        frequency: Frequency,
        slices: list[Slice],
        span: Extent,
        *,
        shown: int = LAST_POSITION,
        replaces: bool = False,
    ) -> None:
        """Put values at their positions, and let the bin hold all of `span`, NaN where no value was given.

        slices: sorted, disjoint, inside of span. span: [first, end) of the bars that the symbol has; it never shrinks.
        shown: the bars of the calendar; what lies behind was left by a run that did not end, and is cut off.
        replaces: nothing is taken from the bin that is there.
        """
        path = self._bin(symbol, name, frequency)
        handle = None if replaces else open_bin(path, os.O_RDWR)
        if handle is None:
            self._rewrite(path, None, slices, span)
            return
        try:
            extent = extent_of(path, handle)
            if extent[0] < shown < extent[1]:
                os.ftruncate(handle, WIDTH * (1 + shown - extent[0]))
                self._touched.add(path)
                extent = extent[0], shown
            if span[0] < extent[0]:
                self._rewrite(path, extent, slices, span)
            elif _patch(handle, extent, slices, span) or self.distrusts:
                self._touched.add(path)
        finally:
            os.close(handle)

    def patch(
        self, symbol: str, name: str, frequency: Frequency, slices: list[Slice], span: Extent, *, extent: Extent
    ) -> None:
        """Do as `write` in a bin of which it is remembered what it holds, and which does not begin earlier now.

        Raises `ChangedBinsError` where that is not what it holds.
        """
        path = self._bin(symbol, name, frequency)
        try:
            handle = open_bin(path, os.O_RDWR)
            if handle is None:
                raise ChangedBinsError(f"{path} is gone")
            try:
                if extent_of(path, handle) != extent:
                    raise ChangedBinsError(f"{path} holds other bars than those that were written")
                if _patch(handle, extent, slices, span) or self.distrusts:
                    self._touched.add(path)
            finally:
                os.close(handle)
        except DamagedBinError as error:
            raise ChangedBinsError(str(error)) from error

    def _rewrite(self, path: str, extent: Extent | None, slices: list[Slice], span: Extent) -> None:
        """Write a whole bin, with a new first position. `name_new` gives it its name, so that no reader sees half."""
        parts = slices
        if extent is not None:
            old = np.fromfile(path, "<f4", offset=WIDTH, count=extent[1] - extent[0])
            parts = [Slice(extent[0], old), *slices]
        first, end = span[0], max(span[1], *(part.end for part in parts))
        content = np.empty(1 + end - first, "<f4")
        content[0] = first
        if extent is not None or sum(len(part.values) for part in parts) != end - first:
            content[1:] = np.nan
        for part in parts:
            content[1 + part.position - first : 1 + part.end - first] = part.values
        temporary = str(temporary_of(Path(path)))
        write_new(temporary, content.data.cast("B"))
        self._unnamed[temporary] = path

    def name_new(self) -> None:
        """Give the bins that were written as a whole their names, once they are durable."""
        self.durable.sync(self._unnamed)
        for temporary, path in self._unnamed.items():
            os.replace(temporary, path)  # noqa: PTH105 - see `_bin`
            self._folders.add(path.rpartition("/")[0])
        self._unnamed.clear()

    # --- commit

    def commit(self, origin: datetime, until: datetime, market_texts: dict[str, str]) -> None:
        """Make everything visible: bins durable, then the calendars, then the instruments.

        until: the instant up to which minutes are there; calendars never get shorter. Everything is written and durable
        under temporary names before the first rename, so that a full disk or a name that cannot be spelled changes
        nothing that is visible.

        Raises:
            CommitError: it failed when some files had their names already; its text names what is visible now.
            OSError: before that; then calendars and instruments are as they were.

        """
        self.make_durable()
        staged: list[tuple[Path, Path]] = []
        try:
            for frequency in FREQUENCIES:
                for pair in self._stage_calendar(frequency, origin, frequency.bars_until(origin, until)):
                    staged.append(pair)  # noqa: PERF402 - each one as it is made: the next may fail
            for market, text in market_texts.items():
                if self.distrusts or not _holds(self.market_path(market), text):
                    staged.append(_stage_text(self.market_path(market), text))
            self._show(staged)
        except BaseException:
            for temporary, _ in staged:
                with suppress(OSError):  # the next run removes what stays
                    temporary.unlink(missing_ok=True)
            raise

    def _show(self, staged: list[tuple[Path, Path]]) -> None:
        """Give what has been written its names. From the first one on a failure is visible: the error names what is."""
        for number, (temporary, path) in enumerate(staged):
            try:
                temporary.replace(path)
            except OSError as error:
                if not number:
                    raise
                shown = ", ".join(str(done.relative_to(self.root)) for _, done in staged[:number])
                raise CommitError(
                    f"{path} cannot be replaced ({error.strerror}): new are {shown}; the other calendars and "
                    "instruments are those of the conversion before; the next conversion replaces all of them"
                ) from error
        try:
            for folder in {path.parent for _, path in staged}:
                fsync_path(folder)
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            raise CommitError(
                f"calendars and instruments are new, but a power cut may take them back ({error.strerror}); "
                "the next conversion writes them again"
            ) from error

    def make_durable(self) -> None:
        """Make every bin durable that was written."""
        self.name_new()
        self.durable.sync(self._touched)
        self.durable.sync(self._folders)
        if self._folders:
            fsync_path(features_of(self.root))
        self._touched.clear()
        self._folders.clear()

    def _stage_calendar(self, frequency: Frequency, origin: datetime, bars: int) -> Iterator[tuple[Path, Path]]:
        """Write a calendar under a temporary name, and the one that reaches ahead, where it has more bars."""
        existing = self.calendar(frequency)
        known = existing[1] if existing else 0
        if bars <= known:
            if frequency.future and not self._reaches_ahead(frequency, known):
                text = calendar_lines(frequency, origin, 0, future_bars(known))
                yield _stage_text(self._calendar_path(frequency, future=True), text)
            return
        path = self._calendar_path(frequency)
        lines = calendar_lines(frequency, origin, known, bars - known)
        if frequency.future:  # first: the calendar is the record that both are there
            ahead = calendar_lines(frequency, origin, bars, future_bars(bars) - bars)
            future = self._calendar_path(frequency, future=True)
            yield stage_file(future, lambda temporary: _extend(path, temporary, known, lines + ahead)), future
        yield stage_file(path, lambda temporary: _extend(path, temporary, known, lines)), path

    def _reaches_ahead(self, frequency: Frequency, bars: int) -> bool:
        """Return whether the calendar that reaches ahead is as long as it must be for so many bars."""
        path = self._calendar_path(frequency, future=True)
        return path.is_file() and path.stat().st_size == future_bars(bars) * _label_bytes(frequency)

    def day_spans(
        self, frequency: Frequency, origin: datetime, until: datetime, known: Mapping[str, Mapping[str, Extent]]
    ) -> dict[str, tuple[datetime, datetime]]:
        """Return the first and last bar of every symbol, as far as the calendar shows them.

        known: of symbols of which that need not be looked up, field → extent.
        """
        bars = frequency.bars_until(origin, until)
        found = {}
        for symbol in self.symbols():
            extent = known[symbol].get("close") if symbol in known else self._shown(symbol, frequency, bars)
            if extent is not None:
                found[symbol] = (origin + extent[0] * frequency.step, origin + (extent[1] - 1) * frequency.step)
        return found

    def _shown(self, symbol: str, frequency: Frequency, bars: int) -> Extent | None:
        """Return what a symbol holds of the first `bars` bars: that of `close`, of the others where it is damaged."""
        close = self.readable(symbol, frequency, ["close"], bars)
        if not close.damaged:
            return close.common
        names = {match["field"] for path in self.folder(symbol).iterdir() if (match := BIN_NAME.fullmatch(path.name))}
        return self.readable(symbol, frequency, names, bars).common


@cache
def _bin_name(name: str, frequency: str) -> str:
    return bin_path(Path(), "symbol", name, frequency).name


def _patch(handle: int, extent: Extent, slices: list[Slice], span: Extent) -> bool:
    """Write what is not there yet; return whether that was anything."""
    first, end = extent
    changed = False
    for part in [*slices, Slice(span[1], np.array([], "<f4"))]:
        if part.position > end:  # a hole between the bin's end and the slice: bars that do not exist
            hole = np.full(part.position - end, np.nan, "<f4")
            part = Slice(end, np.concatenate([hole, part.values]))  # noqa: PLW2901
        content, at = part.values.astype("<f4").tobytes(), WIDTH * (1 + part.position - first)
        if os.pread(handle, len(content), at) != content:
            write_whole(handle, memoryview(content), at)
            changed = True
        end = max(end, part.end)
    return changed


def _extend(path: Path, temporary: Path, known: int, lines: str) -> None:
    """Write a calendar by copying what is known and adding what is new: the cost follows the new bars."""
    if known:
        shutil.copyfile(path, temporary)
    with temporary.open("a", encoding="utf-8") as handle:
        handle.write(lines)


def _holds(path: Path, text: str) -> bool:
    """Return whether a file is there with a text: then it need not be written again."""
    try:
        return path.is_file() and path.read_bytes() == text.encode()
    except OSError:
        return False


def _stage_text(path: Path, text: str) -> tuple[Path, Path]:
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(f"{path} is a folder, where a file of instruments belongs: remove it")
    return stage_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8")), path


def _no_calendar(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path}: {why}, so it was not written by this converter; delete it, and it is made from the other calendars"
    )


def _label_bytes(frequency: Frequency) -> int:
    return _LABEL_BYTES[frequency.minutes % 1440 == 0]
