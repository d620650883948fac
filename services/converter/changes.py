"""Which raw days differ from what is in Qlib? The manifest remembers; the decision is pure, the scan is I/O."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec

from services.converter.known import PREDICTION_VALID, SETTLEMENT_VALID
from shared.coverage import mask_to_text
from shared.dataset import Partition, days, partitions, signature
from shared.durable import replace_file
from shared.events import Candle, FundingRate, LedgerRow, PredictedFundingRate, Rank
from shared.grid import DAY, day_start

Versions = dict[Partition, str]
Holes = dict[str, int]
"""Name of a candle file → the minutes of its day that the exchange has no candle of, as a mask."""


class Manifest(msgspec.Struct, kw_only=True):
    """Which version of which raw file is in Qlib, whole: "kline_1m/2025-04-05/BTC_USDT" → its signature."""

    recipe: str = ""
    files: dict[str, str] = {}
    holes: dict[str, str] = {}
    """Name of a candle file → the minutes that the exchange had no candle of when it was converted, as runs."""


@dataclass(frozen=True)
class Listing:
    """The raw files as they were when the run began, with their signatures."""

    candles: Versions
    funding: Versions
    predictions: Versions
    rankings: Versions
    ledger: Versions

    def all(self) -> Versions:
        """Return all files."""
        return {file: version for one in fields(self) for file, version in getattr(self, one.name).items()}


SOURCES = (Candle, FundingRate, PredictedFundingRate, Rank, LedgerRow)
"""Datasets that end up in Qlib, in the order of the listing."""


def manifest_path(root: Path) -> Path:
    """Return where the manifest lies inside a provider folder; Qlib does not look there."""
    return root / ".converter" / "manifest.json"


def read_manifest(root: Path) -> Manifest:
    """Read the manifest; an absent one knows of nothing."""
    try:
        return msgspec.json.decode(manifest_path(root).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Replace the manifest. It is written last: what it does not know yet is merely converted again."""
    content = msgspec.json.encode(manifest)
    replace_file(manifest_path(root), lambda temporary: temporary.write_bytes(content))


def scan(data_dir: Path) -> Listing:
    """List the raw files."""
    found = [
        {
            partition: signature(stat)
            for day in days(data_dir, kind.dataset)
            for partition, stat in partitions(data_dir, kind.dataset, day)
        }
        for kind in SOURCES
    ]
    return Listing(*found)


def name_of(partition: Partition) -> str:
    """Return the name of a file in the manifest."""
    return f"{partition.dataset}/{partition.day}" + (f"/{partition.symbol}" if partition.symbol else "")


def changed_days(files: Mapping[Partition, str], manifest: Manifest) -> set[date]:
    """Return the days of the files that are not those of the manifest. Pure."""
    return {file.day for file, version in files.items() if manifest.files.get(name_of(file)) != version}


def concerned_days(listing: Listing, manifest: Manifest, end: date) -> set[date]:
    """Return the days of which something has changed that concerns every symbol. Pure.

    A settlement is the last one known for as long as `SETTLEMENT_VALID`, a prediction for `PREDICTION_VALID`, a ranking
    until the first one of another day.
    """
    settled, predicted = SETTLEMENT_VALID // DAY, -(-PREDICTION_VALID // DAY)
    found = _reaching(changed_days(listing.funding, manifest), settled)
    found |= _reaching(changed_days(listing.predictions, manifest), predicted)
    ranked = sorted(file.day for file in listing.rankings)
    for day in changed_days(listing.rankings, manifest):
        last = min((later for later in ranked if later > day), default=end)
        found |= {day + timedelta(days=ahead) for ahead in range((last - day).days + 1)}
    return found


def _reaching(changed: Iterable[date], reach: int) -> set[date]:
    return {day + timedelta(days=ahead) for day in changed for ahead in range(reach + 1)}


def dirty_days(
    listing: Listing, manifest: Manifest, until: datetime, holes: Holes, *, looks_back: bool = False
) -> dict[str, list[date]]:
    """Return symbol → the days to compute again, in order. Pure.

    A candle file concerns its own day, and the next one where fields look back on the bar before. `holes` tells of the
    days whose ledger has changed: another word on a day's missing minutes changes which of its bars are whole.
    """
    everywhere = concerned_days(listing, manifest, until.date())
    dirty: dict[str, set[date]] = defaultdict(set)
    for file, version in listing.candles.items():
        name = name_of(file)
        known = manifest.holes.get(name, "")
        changed = manifest.files.get(name) != version or (name in holes and mask_to_text(holes[name]) != known)
        if day_start(file.day) < until and (changed or file.day in everywhere):
            dirty[file.symbol or ""].add(file.day)
            if changed and looks_back and Partition(file.dataset, file.day + DAY, file.symbol) in listing.candles:
                dirty[file.symbol or ""].add(file.day + DAY)
    return {symbol: sorted(day for day in found if day_start(day) < until) for symbol, found in sorted(dirty.items())}


def after(listing: Listing, until: datetime, recipe: str, holes: Mapping[str, str]) -> Manifest:
    """Return the manifest of a run that converted everything before `until`. Pure.

    A day that was not over at `until` is not whole in Qlib, so it is not remembered; days whose files were retired are
    dropped. Whoever reads it finds them unconverted, never the other way round.
    """
    done = {
        name_of(partition): version
        for partition, version in listing.all().items()
        if day_start(partition.day) + DAY <= until
    }
    return Manifest(recipe=recipe, files=done, holes={name: text for name, text in holes.items() if name in done})


def runs_of_days(dirty: list[date], longest: int | None = None) -> list[tuple[date, int]]:
    """Return runs of consecutive days as (first, how many), of at most `longest` days. Pure."""
    runs: list[tuple[date, int]] = []
    for day in dirty:
        if runs and runs[-1][0] + timedelta(days=runs[-1][1]) == day and runs[-1][1] != longest:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((day, 1))
    return runs
