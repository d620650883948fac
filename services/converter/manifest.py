"""What is in Qlib, down to the version of every raw file that it was made from? Kept inside the provider folder."""

from collections.abc import Container, Mapping
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from services.converter.features.asof import Contract
from services.converter.raw.files import NO_FILES, DayFiles, RawFiles, day_name
from shared.datasets.candle import Candle
from shared.datasets.funding import PredictedFundingRate
from shared.grid import DAY
from shared.ledger.minutes import mask_to_text
from shared.storage.files import replace_file
from shared.storage.qlib_layout import OWN
from shared.storage.versions import digest_of

log = structlog.get_logger()

Holes = Mapping[date, Mapping[str, int]]
"""Day → symbol → the minutes of which the exchange has no candle, as a mask: of every candle file of the day."""


class ContractRecord(msgspec.Struct, frozen=True):
    """What was known of the instruments under a name, see `Contract`, in plain values."""

    begins: tuple[int, ...] = ()
    values: tuple[tuple[int, float], ...] = ()


class Manifest(msgspec.Struct, kw_only=True):
    """What is in Qlib, whole: "kline_1m/2025-04-05" → the files of the day as they were converted."""

    recipe: str = ""
    days: dict[str, DayFiles] = {}
    without: dict[str, dict[str, str]] = {}
    """Day → symbol → the minutes that the exchange had no candle of when it was converted, as runs, if any."""
    tracks: dict[str, ContractRecord] = {}
    """Symbol → what was known of its instruments."""
    names: list[str] | None = None
    """The symbols of the candle files; None, as in a file of an older version: they are to be looked for."""

    def of(self, dataset: str, day: date) -> DayFiles:
        """Return the files of a day that are in Qlib."""
        return self.days.get(day_name(dataset, day), NO_FILES)

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of which candle files are in Qlib."""
        if self.names is None:
            days = (files for name, files in self.days.items() if name.startswith(_CANDLES))
            self.names = sorted({symbol for files in days for symbol in files.versions})
        return tuple(self.names)


_CANDLES = f"{Candle.dataset}/"


def manifest_path(root: Path) -> Path:
    """Return where the manifest lies inside a provider folder; Qlib does not read it."""
    return root / OWN / "manifest.json"


def read_manifest(root: Path) -> Manifest:
    """Read the manifest; one that is absent or damaged is empty, so everything is converted again."""
    try:
        return msgspec.json.decode(manifest_path(root).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, RecursionError) as error:
        log.warning("what has been converted cannot be read, converting all of it again", error=str(error))
        return Manifest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Replace the manifest. It is written last: what it does not contain yet is merely converted again."""
    manifest.symbols()
    content = msgspec.json.encode(manifest)
    replace_file(manifest_path(root), lambda temporary: temporary.write_bytes(content))


def record_of(contract: Contract) -> ContractRecord:
    """Return what a manifest keeps of a contract. Pure."""
    values = zip(contract.known.tolist(), contract.values.tolist(), strict=True)
    return ContractRecord(tuple(contract.begins.tolist()), tuple(values))


def after(
    raw: RawFiles,
    before: Manifest,
    holes: Holes,
    *,
    span: tuple[datetime, datetime],
    recipe: str,
    contracts: Mapping[str, ContractRecord] = MappingProxyType({}),
    left: Mapping[str, Container[date]],
    unreadable: Container[str] = (),
) -> Manifest:
    """Return the manifest of a run that converted everything in `span`, but for the candles of days `left`. Pure.

    unreadable: days such as "ledger/2025-04-05" of which nothing was read, so that they are scanned again.
    A day that was not over at the end of the span is not whole in Qlib, so it is left out. So are days whose files were
    retired. A day that is left out counts as not converted, never the other way round.
    """
    first, last = span[0].date(), (span[1] - DAY).date()  # of whole days: the origin is a midnight
    whole: dict[str, DayFiles] = {}
    for dataset, days in raw.datasets.items():
        since = first if dataset == Candle.dataset else date.min
        for day, files in days.items():
            if since <= day <= last and (name := day_name(dataset, day)) not in unreadable:
                whole[name] = _but_for(files, day, left) if dataset == Candle.dataset else files
    without = before.without | {
        str(day): {symbol: mask_to_text(mask) for symbol, mask in masks.items() if mask} for day, masks in holes.items()
    }
    kept = {day: masks for day, masks in without.items() if masks and f"{_CANDLES}{day}" in whole}
    names = _names_after(before, whole)
    return Manifest(recipe=recipe, days=whole, without=kept, tracks=dict(contracts), names=names)


def _names_after(before: Manifest, days: Mapping[str, DayFiles]) -> list[str] | None:
    """Return the symbols of the candle files, from those before and the days that changed; None where some are gone."""
    known, of_candles = before.days, [name for name in days if name.startswith(_CANDLES)]
    if any(name.startswith(_CANDLES) and name not in days for name in known):
        return None
    names = {*before.symbols()}
    for name in of_candles:
        if days[name] is not known.get(name):
            if known.get(name, NO_FILES).versions.keys() - days[name].versions.keys():
                return None
            names |= days[name].versions.keys()
    return sorted(names)


def _but_for(files: DayFiles, day: date, left: Mapping[str, Container[date]]) -> DayFiles:
    if not left:
        return files
    versions = {symbol: version for symbol, version in files.versions.items() if day not in left.get(symbol, ())}
    if len(versions) == len(files.versions):
        return files
    return DayFiles(
        versions,
        digest=digest_of(versions),
        signatures_held={name: files.signatures[name] for name in versions if name in files.signatures},
    )


def digests(manifest: Manifest) -> dict[str, str]:
    """Return which version of each day is in Qlib, of the datasets that are retired once they are there. Pure."""
    retired = Candle.dataset, PredictedFundingRate.dataset
    return {name: files.digest for name, files in manifest.days.items() if name.split("/")[0] in retired}
