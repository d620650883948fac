"""Which raw files are there, and in which version? The raw folder as it was when a run began. I/O."""

import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow
from shared.datasets.row import Row
from shared.datasets.universe import Rank
from shared.storage.layout import Partition, days_with_change, partitions, signature
from shared.storage.parquet import version_of
from shared.storage.segments import PendingRows, RawRows
from shared.storage.versions import content_in, digest_of

_QUIET_NS = 5_000_000_000
"""A folder that changed less than this before its scan may change once more within the same tick of its clock."""

SOURCES: tuple[type[Row], ...] = (
    Candle,
    FundingRate,
    PredictedFundingRate,
    Rank,
    LedgerRow,
    InstrumentDefinition,
)
"""Datasets that end up in Qlib."""


if TYPE_CHECKING:
    type Texts = dict[str, str] | msgspec.Raw
else:
    Texts = msgspec.Raw  # as it is read; it may be written as a mapping, too
_NAMES = msgspec.json.Decoder(dict[str, str])


class DayFiles(msgspec.Struct, eq=False):
    """The files of one day of a dataset.

    What is remembered of most days is never looked at, only written again: so it stays the text that was read, until
    somebody asks.
    """

    versions_held: Texts = msgspec.field(name="versions")
    changed_ns: int = 0
    """When a name in the folder changed last; 0 where that time cannot be trusted."""
    digest: str = ""
    """Identifies the version of the whole day."""
    signatures_held: Texts = msgspec.field(name="signatures", default=msgspec.Raw(b"{}"))

    @property
    def versions(self) -> dict[str, str]:
        """Symbol ("" for the one file of all symbols) → what names the content of its file."""
        self.versions_held = found = _as_mapping(self.versions_held)
        return found

    @property
    def signatures(self) -> dict[str, str]:
        """The same → the signature of the file whose content that is."""
        self.signatures_held = found = _as_mapping(self.signatures_held)
        return found

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, DayFiles)
            and (self.changed_ns, self.digest) == (other.changed_ns, other.digest)
            and (self.versions, self.signatures) == (other.versions, other.signatures)
        )

    __hash__ = None  # type: ignore[assignment]

    def is_as(self, other: "DayFiles") -> bool:
        """Return whether the content of the files is that of others."""
        if self is other or (self.digest and self.digest == other.digest):
            return True
        return self.versions == other.versions


def _as_mapping(held: Texts) -> dict[str, str]:
    """Return names as a mapping; none where the text makes no sense."""
    if isinstance(held, dict):
        return held
    try:
        return _NAMES.decode(held)
    except (ValueError, RecursionError):
        return {}


NO_FILES = DayFiles({})

Days = dict[date, DayFiles]


@lru_cache(maxsize=1 << 16)
def day_name(dataset: str, day: date) -> str:
    """Return how the manifest names a day of a dataset: "kline_1m/2025-04-05"."""
    return f"{dataset}/{day.isoformat()}"


@dataclass(frozen=True)
class RawFiles:
    """The files of a raw folder as they were when a run began: dataset → day → files, in order of time.

    rows: reads them, and what waited then to be merged into them. A day of which there is some is another version.
    """

    root: Path
    datasets: Mapping[str, Days]
    rows: RawRows
    unreadable: tuple[str, ...] = ()
    """Segments that cannot be read, each with the reason: what they hold is not converted."""

    def of(self, kind: type[Row]) -> Days:
        """Return the days of a dataset."""
        return self.datasets[kind.dataset]

    def version_of(self, kind: type[Row]) -> Hashable:
        """Return what differs as soon as the content of a file of a dataset does."""
        return tuple((day, files.digest) for day, files in self.of(kind).items())

    def versions(self, files: Iterable[Partition]) -> Hashable:
        """Return what differs as soon as the content of one of some files does."""
        return tuple((file, self.datasets[file.dataset][file.day].versions[file.symbol or ""]) for file in files)

    def partitions(self, kind: type[Row], days: Iterable[date]) -> list[Partition]:
        """Return the files of some days, in order."""
        found = self.of(kind)
        there = sorted(day for day in days if day in found)
        return [Partition(kind.dataset, day, name or None) for day in there for name in sorted(found[day].versions)]


def scan(
    root: Path, known: Mapping[str, DayFiles], *, every_file: bool = False, pending: PendingRows | None = None
) -> RawFiles:
    """List the raw files of a folder, and read the rows that wait to be merged into them.

    known: "kline_1m/2025-04-05" → the files of the day as they were converted. A day's folder in which no name has
    changed since is not scanned again: files are replaced under their names, which changes the folder's time of
    change. `every_file` scans it all the same, and finds a file that was modified in place.
    pending: what a scan before this one has read of the same folder.
    """
    pending = pending or PendingRows(root)
    pending.refresh(SOURCES)  # before the files: what is merged meanwhile is in them
    datasets = {
        kind.dataset: _with_pending(_scan_days(root, kind.dataset, known, every_file), pending.versions(kind.dataset))
        for kind in SOURCES
    }
    return RawFiles(root, datasets, pending.rows(), pending.unreadable)


def _with_pending(found: Days, pending: Mapping[Partition, str]) -> Days:
    """Give the files of which rows wait in segments versions of their own: their content is not what they say.

    Such a version is "content+segment+segment": where rows are appended, it begins as the one before.
    """
    by_day: dict[date, dict[str, str]] = {}
    for file, segments in pending.items():
        by_day.setdefault(file.day, {})[file.symbol or ""] = segments
    days = dict(found)
    for day, waiting in by_day.items():
        files = found.get(day, NO_FILES)
        versions = files.versions | {name: f"{files.versions.get(name, '')}+{of}" for name, of in waiting.items()}
        # Nothing of them is kept for the next scan, so that it opens the files again.
        days[day] = DayFiles(versions, digest=digest_of(versions))
    return dict(sorted(days.items()))


def _scan_days(root: Path, dataset: str, known: Mapping[str, DayFiles], every_file: bool) -> Days:
    began_ns, found = time.time_ns(), {}
    for day, changed_ns in days_with_change(root, dataset).items():
        before = known.get(day_name(dataset, day), NO_FILES)
        if before.changed_ns == changed_ns and not every_file:
            found[day] = before
        else:
            quiet = changed_ns < began_ns - _QUIET_NS
            files = _look_at(root, dataset, day, before, changed_ns=changed_ns if quiet else 0)
            if files.versions:
                found[day] = files
    return found


def _look_at(root: Path, dataset: str, day: date, before: DayFiles, *, changed_ns: int) -> DayFiles:
    """Name the content of every file of a day; one that is as it was need not be opened."""
    versions, signatures = {}, {}
    for file, status in partitions(root, dataset, day):
        name = file.symbol or ""
        signatures[name] = signature(status)
        as_it_was = name in before.versions and before.signatures.get(name) == signatures[name]
        versions[name] = before.versions[name] if as_it_was else content_in(version_of(file.path(root), status))
    return DayFiles(versions, changed_ns, digest_of(versions), signatures)


def until_latest(raw: RawFiles, latest: datetime | None) -> tuple[RawFiles, list[Partition]]:
    """Return raw files without the days that begin after an instant, and the files of those days. Pure.

    latest: the latest time that it can be now; None: not known, then nothing is left out.
    """
    if latest is None:
        return raw, []
    kept: dict[str, Days] = {}
    later: list[Partition] = []
    last = latest.astimezone(UTC).date()
    for dataset, days in raw.datasets.items():
        kept[dataset] = {day: files for day, files in days.items() if day <= last}
        for day in days.keys() - kept[dataset].keys():
            later += [Partition(dataset, day, name or None) for name in days[day].versions]
    return replace(raw, datasets=kept), sorted(later, key=lambda file: (file.dataset, file.day, file.symbol or ""))
