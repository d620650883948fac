"""Which raw days differ from what is in Qlib? The manifest remembers; the decision is pure, the scan is I/O."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec

from services.converter.features import FUNDING_VALID
from shared.dataset import Partition, days, partitions, signature
from shared.durable import replace_file
from shared.events import Candle, FundingRate, Rank
from shared.grid import DAY, day_start

SOURCES = (Candle, FundingRate, Rank)
"""Datasets that end up in Qlib."""


class Manifest(msgspec.Struct, kw_only=True):
    """Which version of which raw file is in Qlib, whole: "kline_1m/2025-04-05/BTC_USDT" → its signature."""

    files: dict[str, str] = {}


@dataclass(frozen=True)
class Listing:
    """The raw files as they were when the run began, with their signatures."""

    candles: dict[Partition, str]
    funding: dict[Partition, str]
    rankings: dict[Partition, str]

    def all(self) -> dict[Partition, str]:
        """Return all files."""
        return self.candles | self.funding | self.rankings


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


def dirty_days(listing: Listing, manifest: Manifest, until: datetime) -> dict[str, list[date]]:
    """Return symbol → the days to compute again, in order. Pure.

    A candle file concerns its own day. A settlement is the last one known for as long as `FUNDING_VALID`, so a changed
    funding file concerns the days after it, too, of every symbol.
    """
    funded: set[date] = set()
    for partition, version in listing.funding.items():
        if manifest.files.get(name_of(partition)) != version:
            reach = FUNDING_VALID // timedelta(days=1)
            funded |= {partition.day + timedelta(days=ahead) for ahead in range(reach + 1)}
    dirty: dict[str, list[date]] = defaultdict(list)
    for partition, version in sorted(listing.candles.items()):
        changed = manifest.files.get(name_of(partition)) != version
        if day_start(partition.day) < until and (changed or partition.day in funded):
            dirty[partition.symbol or ""].append(partition.day)
    return dirty


def after(listing: Listing, until: datetime) -> Manifest:
    """Return the manifest of a run that converted everything before `until`. Pure.

    A day that was not over at `until` is not whole in Qlib, so it is not remembered; days whose files were retired are
    dropped. Whoever reads it finds them unconverted, never the other way round.
    """
    done = {
        name_of(partition): version
        for partition, version in listing.all().items()
        if day_start(partition.day) + DAY <= until
    }
    return Manifest(files=done)


def runs_of_days(dirty: list[date]) -> list[tuple[date, int]]:
    """Return runs of consecutive days as (first, how many). Pure."""
    runs: list[tuple[date, int]] = []
    for day in dirty:
        if runs and runs[-1][0] + timedelta(days=runs[-1][1]) == day:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((day, 1))
    return runs
