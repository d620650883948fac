"""The ledger: for every minute that was to be collected, a verdict. Pure.

Per dataset, symbol and UTC day it holds sets of minutes, as bit masks (`shared.ledger.minutes`):

    wanted    was to be collected: every minute of a symbol that is followed, or those at which a row is due
    received  stored, came over WebSocket
    healed    stored, came over REST
    refused   the exchange has a row that cannot be true, such as a price of 0; it is not stored
    absent    the exchange has no such row: it shows rows before and after, and said so half an hour apart
    halted    it has none, while the exchange or the instrument stood still

`received` and `healed` are read from the stored files, so they can be rebuilt from them at any time; the others are
found out by the collector and travel as `Verdict` events. What is wanted, over, and in none of the other five is
missing. The writer owns the ledger: one Parquet file a day beside the data, and a copy on the bus.

Before there were several datasets, the sets of candles stood alone, with two more: `due` and `settled`, when funding
was settled and whether the rate is stored. They are read as what is wanted and received of `funding`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from shared.datasets.funding import FundingRate
from shared.datasets.ledger import CANDLES, LedgerRow, Verdict
from shared.grid import DAY, day_start, days_between
from shared.ledger.minutes import day_mask, mask_from_text, mask_to_text
from shared.symbol import Symbol


class MinuteVerdict(StrEnum):
    """What the ledger says of a wanted minute. The first that holds is the verdict."""

    RECEIVED = "received"
    HEALED = "healed"
    REFUSED = "refused"
    HALTED = "halted"
    ABSENT = "absent"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class DayLedger:
    """What is known about a dataset's day of one symbol: a mask of minutes per set."""

    wanted: int = 0
    received: int = 0
    healed: int = 0
    absent: int = 0
    halted: int = 0
    refused: int = 0

    def __or__(self, other: "DayLedger") -> "DayLedger":
        return DayLedger(*(getattr(self, name) | getattr(other, name) for name in SETS))

    @property
    def stored(self) -> int:
        """Minutes whose row is on disk."""
        return self.received | self.healed

    def without_stored(self) -> "DayLedger":
        """Return the same without what is stored, which the data files say."""
        return replace(self, received=0, healed=0)

    @property
    def without_row(self) -> int:
        """Minutes of which the exchange has no row. One that was refused is none of them: it has something."""
        return (self.absent | self.halted) & ~(self.stored | self.refused)

    def missing(self, over: int) -> int:
        """Return the wanted minutes among those that are over which have no verdict."""
        return self.wanted & over & ~(self.stored | self.refused | self.absent | self.halted)

    def verdicts(self, over: int) -> dict[MinuteVerdict, int]:
        """Split the wanted minutes that are over by verdict: disjoint masks whose union is all of them."""
        left, found = self.wanted & over, {}
        for verdict in MinuteVerdict:
            mask = left & (getattr(self, verdict) if verdict is not MinuteVerdict.MISSING else left)
            found[verdict] = mask
            left &= ~mask
        return found


NOTHING = DayLedger()
SETS = tuple(field.name for field in fields(DayLedger))
OLD_SETS = ("due", "settled")
"""Of ledgers before there were several datasets."""

type ByDataset = dict[str, dict[str, DayLedger]]
"""Dataset → symbol → what is known."""


def to_text(day: DayLedger) -> str:
    """Spell a day for the bus: "wanted=0-1439 received=0-99,101-1439". Empty sets are left out."""
    return " ".join(f"{name}={mask_to_text(mask)}" for name in SETS if (mask := getattr(day, name)))


@lru_cache(maxsize=8192)
def from_text(text: str) -> DayLedger:
    """Read `to_text` back. Equal days are one object: most days of most symbols are alike.

    Raises `ValueError` for what is no set of the minutes of a day.
    """
    parts = {name: runs for name, runs in _parts(text) if name not in OLD_SETS}
    if unknown := parts.keys() - set(SETS):
        raise ValueError(f"{min(unknown)[:100]!r} is no set of a ledger")
    return DayLedger(**{name: mask_from_text(runs) for name, runs in parts.items()})


def _parts(text: str) -> Iterator[tuple[str, str]]:
    return ((name, runs) for name, _, runs in (part.partition("=") for part in text.split()))


def bus_field(about: str, symbol: str) -> str:
    """Name a dataset and symbol on the bus: of candles it is the symbol alone."""
    return symbol if about == CANDLES else f"{about}/{symbol}"


def from_bus(texts: Mapping[str, str]) -> ByDataset:
    """Read the fields of a day on the bus. Raises `ValueError`, naming the field."""
    found: ByDataset = defaultdict(dict)
    for name, text in texts.items():
        about, _, symbol = name.rpartition("/")
        try:
            found[about or CANDLES][symbol] = from_text(text)
            old = _old_in(text)
        except ValueError as error:
            raise ValueError(f"{name[:200]}: {error}") from error
        if old:
            found[FundingRate.dataset].setdefault(symbol, old)
    return found


@lru_cache(maxsize=8192)
def _old_in(text: str) -> DayLedger | None:
    """Return what a day on the bus says of funding in the old way; None where it says nothing."""
    parts = dict(_parts(text))
    return from_old_sets(*(parts.get(name) for name in OLD_SETS))


def to_row(exchange: str, symbol: Symbol, day: date, ledger: DayLedger, version: str, *, about: str) -> LedgerRow:
    """Spell a day for the disk."""
    sets = {name: mask_to_text(getattr(ledger, name)) for name in SETS}
    return LedgerRow(exchange=exchange, about=about, symbol=symbol, day=day_start(day), version=version, **sets)


def from_row(row: Mapping[str, str]) -> Iterator[tuple[str, DayLedger]]:
    """Yield what a row of the ledger's file says of which dataset; an old row speaks of candles and of funding."""
    yield row["about"], from_sets(*(row[name] for name in SETS))
    if old := from_old_sets(*(row[name] for name in OLD_SETS)):
        yield FundingRate.dataset, old


@lru_cache(maxsize=8192)
def from_sets(*texts: str | None) -> DayLedger:
    """Read a day from its sets, in the order of `SETS`; equal days are one object."""
    return DayLedger(*[mask_from_text(text or "") for text in texts])


@lru_cache(maxsize=8192)
def from_old_sets(due: str | None, settled: str | None) -> DayLedger | None:
    """Read what an old ledger says of funding; None where it says nothing."""
    if not (due or settled):
        return None
    stored = mask_from_text(settled or "")
    return DayLedger(wanted=mask_from_text(due or "") | stored, received=stored)


def by_day(verdict: Verdict) -> Iterable[tuple[date, str, DayLedger]]:
    """Cut a verdict into days: what it adds to each of them, for every symbol that it names, and of which dataset."""
    old = verdict.verdict == "due"
    about, name = (FundingRate.dataset, "wanted") if old else (verdict.about, verdict.verdict)
    for day in days_between(verdict.begin, verdict.end):
        yield day, about, DayLedger(**{name: day_mask(day, verdict.begin, verdict.end)})


def over_mask(day: date, until: datetime) -> int:
    """Return the minutes of a day that open before `until`."""
    midnight = day_start(day)
    return day_mask(day, midnight, max(midnight, min(midnight + DAY, until)))


class Account(NamedTuple):
    """Minutes by verdict, summed up over symbols and days."""

    wanted: int = 0
    received: int = 0
    healed: int = 0
    halted: int = 0
    absent: int = 0
    missing: int = 0
    refused: int = 0

    @property
    def existing(self) -> int:
        """Wanted minutes of which the exchange has a row, as far as is known; also one that cannot be true."""
        return self.received + self.healed + self.refused + self.missing

    @property
    def complete(self) -> float | None:
        """Share of the wanted minutes that the exchange has and that are stored; None where none is."""
        return (self.received + self.healed) / self.existing if self.existing else None


def account_of(ledger: DayLedger, over: int) -> Account:
    """Count what is known about a day, as far as its minutes are among those of `over`."""
    left = wanted = ledger.wanted & over
    counts = [wanted.bit_count()]
    refused = wanted & ledger.refused & ~ledger.stored
    left &= ~refused
    for mask in (ledger.received, ledger.healed, ledger.halted, ledger.absent):  # as `verdicts`, for many days at once
        found = left & mask
        left ^= found
        counts.append(found.bit_count())
    counts += [left.bit_count(), refused.bit_count()]
    return Account(*counts)


def total(accounts: Iterable[Account]) -> Account:
    """Add up accounts."""
    return Account(*map(sum, zip(*accounts, strict=True)))


def account(days: Iterable[tuple[date, DayLedger]], until: datetime) -> Account:
    """Sum up what is known about some days, as far as their minutes opened before `until`."""
    return total(account_of(ledger, over_mask(day, until)) for day, ledger in days)
