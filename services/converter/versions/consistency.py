"""Is a version consistent in itself? Calendars against the grid, bins against each other, instruments against bins.

Files are read as Qlib reads them, without the store that wrote them: a judge must not share its mistakes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.converter.qlib.frequencies import FREQUENCIES, Frequency, calendar_lines
from services.converter.qlib.names import folder_of
from services.converter.versions.findings import Findings, UnverifiableError
from shared.grid import floor_day

_WIDTH = 4
_MINUTELY = FREQUENCIES[0]
_PRICES = ("open", "high", "low", "close")
_AMOUNTS = ("volume", "amount", "contracts")
_COLUMNS = 3
"""Of an instruments file: symbol, first, last."""

Values = NDArray[np.float32]
Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Calendar:
    """first: the open of its first bar. labels: of all its bars."""

    first: datetime
    labels: list[str]

    @property
    def bars(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Bin:
    """positions first to end; values: as far as the calendar shows them."""

    first: int
    end: int
    values: Values


@dataclass
class VersionCheck:
    """One folder under examination. frozen: nothing may lie beyond the calendar's end."""

    folder: Path
    found: Findings
    frozen: bool
    calendars: dict[str, _Calendar] = field(default_factory=dict)
    minutes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Symbol → its bars at one minute, as far as the calendar shows them."""
    spelled: dict[str, str] = field(default_factory=dict)
    """Folder → symbol, as all.txt has it."""
    beyond: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)

    def check(self, progress: Progress) -> None:
        """Check calendars, then bins, then instruments."""
        self._read_calendars()
        if _MINUTELY.name not in self.calendars:
            raise UnverifiableError(f"{self.folder} has no calendar of minutes, so its bins mean nothing")
        self.spelled = {folder_of(symbol): symbol for symbol in _first_cells(self.folder / "instruments" / "all.txt")}
        features = self.folder / "features"
        symbols = sorted(path for path in features.iterdir() if path.is_dir()) if features.is_dir() else []
        fields = self._fields(symbols)
        for done, symbol in enumerate(symbols):
            progress(self._symbol(symbol), done, len(symbols))
            self._check_symbol(symbol, fields)
        progress("bins", len(symbols), len(symbols))
        self._check_instruments()
        self._add_notes()

    def _add_notes(self) -> None:
        for name, count in sorted(self.beyond.items()):
            self.found.notes.append(f"{count} {name} bins reach beyond the calendar: a conversion did not end")
        for name, count in sorted(self.lacking.items()):
            self.found.notes.append(f"{name} is lacking for {count} symbols that have other fields")

    # --- calendars

    def _read_calendars(self) -> None:
        folder = self.folder / "calendars"
        names = {path.name for path in folder.glob("*.txt")} if folder.is_dir() else set()
        known = {f"{one.name}.txt" for one in FREQUENCIES} | {f"{one.name}_future.txt" for one in FREQUENCIES}
        for name in sorted(names - known):
            self.found.add(f"calendars/{name}", "is no calendar of this dataset: Qlib fails on any other .txt here")
        for frequency in FREQUENCIES:
            if f"{frequency.name}.txt" in names:
                self._read_calendar(frequency)
            if f"{frequency.name}_future.txt" in names or (frequency.future and frequency.name in self.calendars):
                self._check_future(frequency)

    def _read_calendar(self, frequency: Frequency) -> None:
        file = f"calendars/{frequency.name}.txt"
        labels = self._labels(file)
        try:
            first = datetime.fromisoformat(labels[0]).replace(tzinfo=UTC)
        except (IndexError, ValueError):
            self.found.add(file, "does not begin with a label", labels[0] if labels else "an empty file")
            return
        self.calendars[frequency.name] = _Calendar(first, labels)
        origin = self.calendars.get(_MINUTELY.name, self.calendars[frequency.name]).first
        if first != floor_day(first) or first != origin:
            self.found.add(file, "does not begin at the midnight that the minutes begin at", labels[0])
        self._check_grid(file, frequency, first, labels)

    def _labels(self, file: str) -> list[str]:
        text = (self.folder / file).read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            self.found.add(file, "ends in the middle of a line", text.rsplit("\n", 1)[-1])
        return text.splitlines()

    def _check_grid(self, file: str, frequency: Frequency, first: datetime, labels: list[str]) -> None:
        expected = calendar_lines(frequency, first, 0, len(labels)).splitlines()
        if labels == expected:
            return
        falling = [at for at in range(1, len(labels)) if labels[at] <= labels[at - 1]]
        if falling:
            self.found.add(file, "does not rise", f"line {falling[0] + 1}: {labels[falling[0]]}", len(falling))
        off = [at for at, label in enumerate(labels) if label != expected[at]]
        self.found.add(file, "is off the grid", f"line {off[0] + 1}: {labels[off[0]]}", len(off))

    def _check_future(self, frequency: Frequency) -> None:
        file = f"calendars/{frequency.name}_future.txt"
        if not (self.folder / file).exists():
            self.found.add(file, "is missing: a backtest cannot reach the last bar")
            return
        calendar = self.calendars.get(frequency.name)
        if calendar is None:
            if not self.frozen:
                return  # it is written first
            self.found.add(file, "extends no calendar")
            return
        labels = self._labels(file)
        if labels[: calendar.bars] != calendar.labels or len(labels) <= calendar.bars:
            self.found.add(file, "does not extend the calendar", f"{len(labels)} lines, the calendar {calendar.bars}")
        self._check_grid(file, frequency, calendar.first, labels)

    # --- bins

    def _fields(self, symbols: list[Path]) -> dict[str, set[str]]:
        """Return the fields that any symbol has, by frequency."""
        found: dict[str, set[str]] = defaultdict(set)
        for folder in symbols:
            for path in folder.glob("*.bin"):
                name, _, frequency = path.stem.rpartition(".")
                found[frequency].add(name)
        return found

    def _check_symbol(self, folder: Path, fields: Mapping[str, set[str]]) -> None:
        by_frequency: dict[str, dict[str, Path]] = defaultdict(dict)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            name, _, suffix = path.stem.rpartition(".")
            if path.suffix != ".bin" or suffix not in {one.name for one in FREQUENCIES} or not name:
                self.found.add(self._name(path), "is no bin of a frequency")
            else:
                by_frequency[suffix][name] = path
        for frequency in FREQUENCIES:
            paths = by_frequency.get(frequency.name, {})
            self._check_complete(folder, frequency, paths, fields)
            bins = {name: read for name, path in paths.items() if (read := self._read_bin(path, frequency)) is not None}
            if bins:
                self._check_bins(folder, frequency, bins)

    def _check_complete(
        self, folder: Path, frequency: Frequency, paths: Mapping[str, Path], fields: Mapping[str, set[str]]
    ) -> None:
        if not paths:
            minutes = self.minutes.get(self._symbol(folder))
            if minutes is not None and minutes[0] // frequency.minutes < self._bars(frequency):
                self.found.add(self._name(folder), f"has no {frequency.name} bins, though it has minutes of such bars")
            return
        for name in sorted(fields[frequency.name] - paths.keys()):
            if name in _PRICES or name == "volume":
                self.found.add(self._name(folder / f"{name}.{frequency.name}.bin"), "is missing")
            else:  # days of which no raw file is left keep the fields that they were converted with
                self.lacking[f"{name}.{frequency.name}"] += 1

    def _read_bin(self, path: Path, frequency: Frequency) -> _Bin | None:
        """Read a bin as far as it means anything."""
        file, size = self._name(path), path.stat().st_size
        self.found.files += 1
        if size % _WIDTH:
            self.found.add(file, f"has {size} bytes, which is no multiple of {_WIDTH}")
        raw = np.fromfile(path, "<f4")
        self.found.values += max(0, len(raw) - 1)
        if len(raw) < 2:  # noqa: PLR2004 - the position and one value
            self.found.add(file, "holds no value")
            return None
        head = float(raw[0])
        if not (np.isfinite(head) and head >= 0 and head == int(head)):
            self.found.add(file, "does not begin with a position", f"it begins with {head:g}")
            return None
        first, bars = int(head), self._bars(frequency)
        end = first + len(raw) - 1
        if end > bars:
            self.beyond[frequency.name] += 1
            if self.frozen:
                self.found.add(file, "reaches beyond the calendar", f"bar {bars}", end - max(bars, first))
        return _Bin(first, end, raw[1 : max(1, 1 + bars - first)])

    def _check_bins(self, folder: Path, frequency: Frequency, bins: dict[str, _Bin]) -> None:
        """Check the fields of one symbol at one frequency against each other."""
        bars = self._bars(frequency)
        extents = {name: (one.first, min(one.end, bars)) for name, one in bins.items() if one.first < bars}
        if not extents:
            return
        usual, _ = Counter(extents.values()).most_common(1)[0]
        for name, extent in extents.items():
            if extent != usual:
                file = self._name(folder / f"{name}.{frequency.name}.bin")
                self.found.add(
                    file,
                    "does not hold the bars that the other fields hold",
                    f"{_bars_text(extent)}, the others {_bars_text(usual)}",
                    abs(extent[0] - usual[0]) + abs(extent[1] - usual[1]),
                )
        if frequency is _MINUTELY:
            self.minutes[self._symbol(folder)] = usual
        self._check_values(
            folder, frequency, usual[0], {name: bins[name].values for name in extents if extents[name] == usual}
        )

    def _check_values(self, folder: Path, frequency: Frequency, first: int, values: Mapping[str, Values]) -> None:
        labels = self.calendars[frequency.name].labels
        for name, (what, wrong) in _troubles(values):
            count = int(np.count_nonzero(wrong))
            if count:
                at = int(wrong.argmax())
                where = f"{labels[first + at]}: {_row(values, at)}"
                self.found.add(self._name(folder / f"{name}.{frequency.name}.bin"), what, where, count)

    def _bars(self, frequency: Frequency) -> int:
        calendar = self.calendars.get(frequency.name)
        return calendar.bars if calendar else 0

    def _symbol(self, folder: Path) -> str:
        return self.spelled.get(folder.name, folder.name.upper())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    # --- instruments

    def _check_instruments(self) -> None:
        spans = {path.name: self._read_spans(path) for path in sorted((self.folder / "instruments").glob("*.txt"))}
        if "all.txt" not in spans:
            self.found.add("instruments/all.txt", "is missing")
            return
        listed = spans["all.txt"]
        for symbol in sorted(listed.keys() - self.minutes.keys()):
            self.found.add("instruments/all.txt", "names a symbol that has no bins", symbol)
        for symbol in sorted(self.minutes.keys() - listed.keys()):
            self.found.add("instruments/all.txt", "does not name a symbol that has bins", symbol)
        for symbol in sorted(listed.keys() & self.minutes.keys()):
            self._check_span(symbol, listed[symbol])
        for name, rows in spans.items():
            unknown = rows.keys() - self.minutes.keys()
            for symbol in sorted(unknown):
                if (owner := self.spelled.get(folder_of(symbol), symbol)) != symbol:
                    self.found.add(f"instruments/{name}", f"names a symbol that Qlib takes for {owner}", symbol)
            if name != "all.txt" and unknown:
                self.found.notes.append(f"instruments/{name} names {len(unknown)} symbols of which there is no candle")

    def _read_spans(self, path: Path) -> dict[str, list[tuple[datetime, datetime]]]:
        found: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            try:
                symbol, first, last = _span(line)
            except ValueError:
                self.found.add(self._name(path), "has a line that is no span", f"line {number}: {line}")
                continue
            found[symbol].append((first, last))
        return found

    def _check_span(self, symbol: str, spans: list[tuple[datetime, datetime]]) -> None:
        """Check that the rows of a symbol in all.txt, one for each life, make up the days of its first to last bar."""
        origin = self.calendars[_MINUTELY.name].first
        first, end = self.minutes[symbol]
        begin = floor_day(origin + first * _MINUTELY.step)
        last = floor_day(origin + (end - 1) * _MINUTELY.step) + timedelta(days=1, seconds=-1)
        meet = all(one[1] + timedelta(seconds=1) == other[0] for one, other in pairwise(spans))
        if not meet or (spans[0][0], spans[-1][1]) != (begin, last):
            given = "; ".join(f"{since} to {until}" for since, until in spans)
            self.found.add(
                "instruments/all.txt", f"does not give the days of {symbol}", f"{given}; its bins: {begin} to {last}"
            )


def _first_cells(path: Path) -> list[str]:
    """Return the first cell of every line, none where there is no such file: that is reported elsewhere."""
    if not path.exists():
        return []
    return [line.partition("\t")[0] for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def _span(line: str) -> tuple[str, datetime, datetime]:
    cells = line.split("\t")
    if len(cells) != _COLUMNS:
        raise ValueError(line)
    first, last = (datetime.fromisoformat(cell).replace(tzinfo=UTC) for cell in cells[1:])
    if last < first:
        raise ValueError(line)
    return cells[0], first, last


def _troubles(values: Mapping[str, Values]) -> list[tuple[str, tuple[str, Bools]]]:
    """Return (field, (what, where)) of everything that bars must not be. Pure."""
    found: list[tuple[str, tuple[str, Bools]]] = []
    low, high = values.get("low"), values.get("high")
    if low is not None and high is not None:
        found.append(("high", ("is below low", high < low)))
        for name in ("open", "close"):
            if name in values:
                found.append((name, ("is above high", values[name] > high)))
                found.append((name, ("is below low", values[name] < low)))
    close = values.get("close")
    if close is not None:
        found += [
            (name, ("is there where close is not, or not where it is", np.isnan(values[name]) != np.isnan(close)))
            for name in ("open", "high", "low", "volume")
            if name in values
        ]
    found += [(name, ("is negative", values[name] < 0)) for name in _AMOUNTS if name in values]
    found += [(name, ("is infinite", np.isinf(field))) for name, field in values.items()]
    if "coverage" in values:
        found.append(("coverage", ("is not from 0 to 1", (values["coverage"] < 0) | (values["coverage"] > 1))))
    return found


def _row(values: Mapping[str, Values], at: int) -> str:
    names = [name for name in (*_PRICES, *_AMOUNTS, "coverage") if name in values]
    return ", ".join(f"{name} {values[name][at]:g}" for name in names)


def _bars_text(extent: tuple[int, int]) -> str:
    return f"bars {extent[0]} to {extent[1] - 1}"
