"""Which days of which symbols must be computed again? Pure.

A raw file that changed concerns its own day, and the days whose bars depend on it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from types import MappingProxyType

from services.converter.features.difference import PREDICTED_DAYS, SETTLED_DAYS
from services.converter.manifest import ContractRecord, Holes, Manifest
from services.converter.raw.files import NO_FILES, DayFiles, RawFiles
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.row import Row
from shared.datasets.universe import Rank
from shared.grid import DAY, day_start, from_ms
from shared.ledger.minutes import mask_to_text

Dirty = dict[str, list[date]]
"""Symbol → the days to compute again, in order."""

VALID_DAYS: Mapping[type[Row], int] = {
    FundingRate: SETTLED_DAYS,
    PredictedFundingRate: PREDICTED_DAYS,
}
"""On how many days after its own a row may still be the last one known."""


def dirty_days(
    raw: RawFiles,
    manifest: Manifest,
    until: datetime,
    holes: Holes,
    contracts: Mapping[str, ContractRecord] = MappingProxyType({}),
    *,
    looks_back: bool = False,
) -> Dirty:
    """Return the days before `until` to compute again.

    A candle file concerns its own day, and the next one where fields depend on the bar before (`looks_back`).
    holes: of the days whose ledger has changed; other missing minutes change which bars of the day are whole.
    contracts: what is known of the instruments now; a change concerns all days from then on.
    """
    redefined = _redefined(manifest.tracks, contracts)
    everywhere, candles = concerned_days(raw, manifest, until.date()), raw.of(Candle)
    dirty: dict[str, set[date]] = defaultdict(set)
    for day, files in candles.items():
        if not _is_before(day, until):
            continue
        changed = _changed_symbols(files, manifest.of(Candle.dataset, day))
        if day in holes:
            changed |= _with_other_holes(files, holes[day], manifest.without.get(str(day), {}))
        if redefined:
            changed |= {symbol for symbol in redefined.keys() & files.versions.keys() if redefined[symbol] <= day}
        for symbol in files.versions if day in everywhere else changed:
            dirty[symbol].add(day)
        if looks_back and changed:
            for symbol in changed & candles.get(day + DAY, NO_FILES).versions.keys():
                dirty[symbol].add(day + DAY)
    return {symbol: sorted(day for day in found if _is_before(day, until)) for symbol, found in sorted(dirty.items())}


def _is_before(day: date, until: datetime) -> bool:
    """Return whether a day has begun before an instant."""
    last = until.date()
    return day < last or (day == last and day_start(day) < until)


def changed_days(raw: RawFiles, kind: type[Row], manifest: Manifest) -> set[date]:
    """Return the days of a dataset whose files are not those of the manifest."""
    return {day for day, files in raw.of(kind).items() if not files.is_as(manifest.of(kind.dataset, day))}


def concerned_days(raw: RawFiles, manifest: Manifest, end: date) -> set[date]:
    """Return the days of which something has changed that concerns every symbol.

    A settlement or a prediction concerns the days of `VALID_DAYS` after its own, a ranking those until the first one of
    another day.
    """
    found: set[date] = set()
    for kind, reach in VALID_DAYS.items():
        found |= _reaching(changed_days(raw, kind, manifest), reach)
    for day in changed_days(raw, Rank, manifest):
        last = min((later for later in raw.of(Rank) if later > day), default=end)
        found |= _reaching([day], (last - day).days)
    return found


def _reaching(changed: Iterable[date], reach: int) -> set[date]:
    return {day + timedelta(days=ahead) for day in changed for ahead in range(reach + 1)}


def _redefined(before: Mapping[str, ContractRecord], now: Mapping[str, ContractRecord]) -> dict[str, date]:
    """Return symbol → the first day whose bars depend on what has changed in its contract."""
    none, symbols = ContractRecord(), before.keys() | now.keys()
    since = {symbol: redefined_since(before.get(symbol, none), now.get(symbol, none)) for symbol in symbols}
    return {symbol: day for symbol, day in since.items() if day is not None}


def redefined_since(before: ContractRecord, now: ContractRecord) -> date | None:
    """Return the first day on which a changed definition changes a bar; None: on none."""
    if before == now:
        return None
    if not before.begins or not now.begins:
        return date.min
    differing = {*before.begins} ^ {*now.begins} | {known for known, _ in {*before.values} ^ {*now.values}}
    return from_ms(min(differing)).date() if min(differing) > 0 else date.min


def _changed_symbols(files: DayFiles, known: DayFiles) -> set[str]:
    if files.is_as(known):
        return set()
    return {symbol for symbol, version in files.versions.items() if known.versions.get(symbol) != version}


def _with_other_holes(files: DayFiles, holes: Mapping[str, int], known: Mapping[str, str]) -> set[str]:
    return {
        symbol for symbol, mask in holes.items() if mask_to_text(mask) != known.get(symbol, "")
    } & files.versions.keys()


def runs_of_days(dirty: list[date], longest: int | None = None) -> list[tuple[date, int]]:
    """Return runs of consecutive days as (first, how many), of at most `longest` days."""
    runs: list[tuple[date, int]] = []
    for day in dirty:
        if runs and runs[-1][0] + timedelta(days=runs[-1][1]) == day and runs[-1][1] != longest:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((day, 1))
    return runs
