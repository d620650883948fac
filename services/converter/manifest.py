"""Which raw days differ from what is in Qlib? The manifest remembers; the decision is pure, the scan is I/O."""

import time
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from services.converter.features.asof import PREDICTION_VALID, SETTLEMENT_VALID, Contract
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow
from shared.datasets.row import Row
from shared.datasets.universe import Rank
from shared.grid import DAY, day_start, from_ms
from shared.ledger.minutes import mask_to_text
from shared.storage.files import replace_file
from shared.storage.layout import Partition, days_with_change, digest_of, partitions, signature

log = structlog.get_logger()

Holes = Mapping[date, Mapping[str, int]]
"""Day → symbol → the minutes of which the exchange has no candle, as a mask: of every candle file of the day."""

_QUIET_NS = 5_000_000_000
"""A folder that changed less than this before it was looked at may change once more without another time of change."""


class DayFiles(msgspec.Struct, frozen=True):
    """The files of one day of a dataset.

    versions: symbol ("" for the one file of all) → signature. changed_ns: when a name in the folder changed last; 0
    where that says nothing. digest: names the version of the whole day.
    """

    versions: dict[str, str]
    changed_ns: int = 0
    digest: str = ""


NO_FILES = DayFiles({})


class ContractRecord(msgspec.Struct, frozen=True):
    """What was known of the instruments under a name, see `Contract`, in plain values."""

    begins: tuple[int, ...] = ()
    values: tuple[tuple[int, float], ...] = ()


class Manifest(msgspec.Struct, kw_only=True):
    """What is in Qlib, whole: "kline_1m/2025-04-05" → the files of the day as they were converted."""

    recipe: str = ""
    days: dict[str, DayFiles] = {}
    without: dict[str, dict[str, str]] = {}
    """Day → symbol → the minutes that the exchange had no candle of when it was converted, as runs."""
    tracks: dict[str, ContractRecord] = {}
    """Symbol → what was known of its instruments."""

    def of(self, dataset: str, day: date) -> DayFiles:
        """Return the files of a day that are in Qlib."""
        return self.days.get(f"{dataset}/{day}", NO_FILES)


Days = dict[date, DayFiles]


@dataclass(frozen=True)
class Listing:
    """The raw files as they were when the run began: dataset → day → files, in order of time."""

    datasets: Mapping[str, Days]

    def of(self, kind: type[Row]) -> Days:
        """Return the days of a dataset."""
        return self.datasets[kind.dataset]

    def partitions(self, kind: type[Row], days: Iterable[date]) -> list[Partition]:
        """Return the files of some days, in order."""
        found = self.of(kind)
        there = sorted(day for day in days if day in found)
        return [Partition(kind.dataset, day, name or None) for day in there for name in sorted(found[day].versions)]


SOURCES: tuple[type[Row], ...] = (
    Candle,
    FundingRate,
    PredictedFundingRate,
    Rank,
    LedgerRow,
    InstrumentDefinition,
)
"""Datasets that end up in Qlib."""


VALID_DAYS: Mapping[type[Row], int] = {
    FundingRate: SETTLEMENT_VALID // DAY,
    PredictedFundingRate: -(-PREDICTION_VALID // DAY),
}
"""On how many days after its own a row may still be the last one known."""


def manifest_path(root: Path) -> Path:
    """Return where the manifest lies inside a provider folder; Qlib does not look there."""
    return root / ".converter" / "manifest.json"


def read_manifest(root: Path) -> Manifest:
    """Read the manifest; one that is absent or damaged knows of nothing, so everything is converted again."""
    try:
        return msgspec.json.decode(manifest_path(root).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, RecursionError) as error:
        log.warning("what has been converted cannot be read, converting all of it again", error=str(error))
        return Manifest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Replace the manifest. It is written last: what it does not know yet is merely converted again."""
    content = msgspec.json.encode(manifest)
    replace_file(manifest_path(root), lambda temporary: temporary.write_bytes(content))


def scan(data_dir: Path, known: Manifest, *, every_file: bool = False) -> Listing:
    """List the raw files. A day's folder in which no name has changed since it was converted is not looked into again.

    Files are replaced under their names, which changes the folder's time of change; `every_file` finds also what was
    written into a file that was there.
    """
    return Listing({kind.dataset: _scan_days(data_dir, kind.dataset, known, every_file) for kind in SOURCES})


def _scan_days(data_dir: Path, dataset: str, known: Manifest, every_file: bool) -> Days:
    looked_ns, found = time.time_ns(), {}
    for day, changed_ns in days_with_change(data_dir, dataset).items():
        before = known.of(dataset, day)
        if before.changed_ns == changed_ns and not every_file:
            found[day] = before
        else:
            files = partitions(data_dir, dataset, day)
            versions = {partition.symbol or "": signature(stat) for partition, stat in files}
            if versions:
                quiet = changed_ns < looked_ns - _QUIET_NS
                found[day] = DayFiles(versions, changed_ns if quiet else 0, digest_of(versions))
    return found


def until_latest(listing: Listing, latest: datetime | None) -> tuple[Listing, list[Partition]]:
    """Return a listing without the days that begin after an instant, and the files of those. Pure.

    latest: the latest time that it can be now; None: not known, then nothing is left out.
    """
    if latest is None:
        return listing, []
    kept: dict[str, Days] = {}
    later: list[Partition] = []
    for dataset, days in listing.datasets.items():
        kept[dataset] = {day: files for day, files in days.items() if day_start(day) <= latest}
        for day in days.keys() - kept[dataset].keys():
            later += [Partition(dataset, day, name or None) for name in days[day].versions]
    return Listing(kept), sorted(later, key=lambda file: (file.dataset, file.day, file.symbol or ""))


def changed_days(listing: Listing, kind: type[Row], manifest: Manifest) -> set[date]:
    """Return the days of a dataset whose files are not those of the manifest. Pure."""
    return {day for day, files in listing.of(kind).items() if files.versions != manifest.of(kind.dataset, day).versions}


def concerned_days(listing: Listing, manifest: Manifest, end: date) -> set[date]:
    """Return the days of which something has changed that concerns every symbol. Pure.

    A settlement or a prediction concerns the days of `VALID_DAYS` after its own, a ranking those until the first one of
    another day.
    """
    found: set[date] = set()
    for kind, reach in VALID_DAYS.items():
        found |= _reaching(changed_days(listing, kind, manifest), reach)
    for day in changed_days(listing, Rank, manifest):
        last = min((later for later in listing.of(Rank) if later > day), default=end)
        found |= _reaching([day], (last - day).days)
    return found


def _reaching(changed: Iterable[date], reach: int) -> set[date]:
    return {day + timedelta(days=ahead) for day in changed for ahead in range(reach + 1)}


def track_of(contract: Contract) -> ContractRecord:
    """Return what a manifest keeps of a contract."""
    values = zip(contract.known.tolist(), contract.values.tolist(), strict=True)
    return ContractRecord(tuple(contract.begins.tolist()), tuple(values))


def redefined_since(before: ContractRecord, now: ContractRecord) -> date | None:
    """Return the first day on which another word on the instruments under a name changes a bar; None: on none."""
    if before == now:
        return None
    if not before.begins or not now.begins:
        return date.min
    differing = {*before.begins} ^ {*now.begins} | {known for known, _ in {*before.values} ^ {*now.values}}
    return from_ms(min(differing)).date() if min(differing) > 0 else date.min


def dirty_days(
    listing: Listing,
    manifest: Manifest,
    until: datetime,
    holes: Holes,
    tracks: Mapping[str, ContractRecord] = MappingProxyType({}),
    *,
    looks_back: bool = False,
) -> dict[str, list[date]]:
    """Return symbol → the days to compute again, in order. Pure.

    A candle file concerns its own day, and the next one where fields look back on the bar before. `holes` tells of the
    days whose ledger has changed: another word on a day's missing minutes changes which of its bars are whole.
    `tracks`: what is known of the instruments now; another word on one concerns all days from then on.
    """
    redefined = {
        symbol: since
        for symbol in tracks.keys() | manifest.tracks.keys()
        if (
            since := redefined_since(
                manifest.tracks.get(symbol, ContractRecord()), tracks.get(symbol, ContractRecord())
            )
        )
        is not None
    }
    everywhere, candles = concerned_days(listing, manifest, until.date()), listing.of(Candle)
    dirty: dict[str, set[date]] = defaultdict(set)
    for day, files in candles.items():
        if day_start(day) >= until:
            continue
        changed = _changed_symbols(files, manifest.of(Candle.dataset, day))
        changed |= _with_another_word(files, holes.get(day, {}), manifest.without.get(str(day), {}))
        changed |= {symbol for symbol in redefined.keys() & files.versions.keys() if redefined[symbol] <= day}
        for symbol in files.versions if day in everywhere else changed:
            dirty[symbol].add(day)
        if looks_back:
            for symbol in changed & candles.get(day + DAY, NO_FILES).versions.keys():
                dirty[symbol].add(day + DAY)
    return {symbol: sorted(day for day in found if day_start(day) < until) for symbol, found in sorted(dirty.items())}


def _changed_symbols(files: DayFiles, known: DayFiles) -> set[str]:
    if files.versions == known.versions:
        return set()
    return {symbol for symbol, version in files.versions.items() if known.versions.get(symbol) != version}


def _with_another_word(files: DayFiles, holes: Mapping[str, int], known: Mapping[str, str]) -> set[str]:
    return {
        symbol for symbol, mask in holes.items() if mask_to_text(mask) != known.get(symbol, "")
    } & files.versions.keys()


def after(
    listing: Listing,
    known: Manifest,
    holes: Holes,
    *,
    span: tuple[datetime, datetime],
    recipe: str,
    tracks: Mapping[str, ContractRecord] = MappingProxyType({}),
    left: Mapping[str, Container[date]],
    unreadable: Container[str] = (),
) -> Manifest:
    """Return the manifest of a run that converted everything in `span`, but for the candles of days `left`. Pure.

    unreadable: days such as "ledger/2025-04-05" of which nothing was taken, so that they are looked at again.
    A day that was not over at its end is not whole in Qlib, so it is not remembered; days whose files were retired are
    dropped. Whoever reads it finds them unconverted, never the other way round.
    """
    origin, end = span
    whole: dict[str, DayFiles] = {}
    for dataset, days in listing.datasets.items():
        for day, files in days.items():
            if f"{dataset}/{day}" in unreadable:
                continue
            if day_start(day) + DAY <= end and (dataset != Candle.dataset or day_start(day) >= origin):
                whole[f"{dataset}/{day}"] = _but_for(files, day, left) if dataset == Candle.dataset else files
    without = known.without | {
        str(day): {symbol: mask_to_text(mask) for symbol, mask in said.items()} for day, said in holes.items()
    }
    kept = {day: said for day, said in without.items() if f"{Candle.dataset}/{day}" in whole}
    return Manifest(recipe=recipe, days=whole, without=kept, tracks=dict(tracks))


def _but_for(files: DayFiles, day: date, left: Mapping[str, Container[date]]) -> DayFiles:
    versions = {symbol: version for symbol, version in files.versions.items() if day not in left.get(symbol, ())}
    return files if len(versions) == len(files.versions) else DayFiles(versions, digest=digest_of(versions))


def digests(manifest: Manifest) -> dict[str, str]:
    """Return which version of each day is in Qlib, of the datasets that are retired once they are there. Pure."""
    retired = Candle.dataset, PredictedFundingRate.dataset
    return {name: files.digest for name, files in manifest.days.items() if name.split("/")[0] in retired}


def runs_of_days(dirty: list[date], longest: int | None = None) -> list[tuple[date, int]]:
    """Return runs of consecutive days as (first, how many), of at most `longest` days. Pure."""
    runs: list[tuple[date, int]] = []
    for day in dirty:
        if runs and runs[-1][0] + timedelta(days=runs[-1][1]) == day and runs[-1][1] != longest:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((day, 1))
    return runs
