"""The ledger: for every minute that was to be collected, a verdict. Pure.

Per symbol and UTC day it holds sets of minutes, as bit masks (`shared.ledger.minutes`):

    wanted    was to be collected: a member of the universe, its history, the grace time of one that left
    received  stored, came over WebSocket
    healed    stored, came over REST
    refused   the exchange has a candle that cannot be true, such as a price of 0; it is not stored
    absent    the exchange has no such candle: it shows rows before and after, and said so half an hour apart
    halted    it has none, while the exchange or the instrument stood still
    due       instants at which funding was settled
    settled   instants whose settled rate is stored

`received`, `healed` and `settled` are read from the stored files, so they can be rebuilt from them at any time; the
others are found out by the collector and travel as `Verdict` events. What is wanted, over, and in none of the first
six but `wanted` is missing. The writer owns the ledger: one Parquet file a day beside the data, and a copy on the bus.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from shared.datasets.ledger import LedgerRow, Verdict
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
    """What is known about one symbol's day: a mask of minutes per set."""

    wanted: int = 0
    received: int = 0
    healed: int = 0
    absent: int = 0
    halted: int = 0
    due: int = 0
    settled: int = 0
    refused: int = 0

    def __or__(self, other: "DayLedger") -> "DayLedger":
        return DayLedger(*(getattr(self, name) | getattr(other, name) for name in SETS))

    @property
    def stored(self) -> int:
        """Minutes whose candle is on disk."""
        return self.received | self.healed

    @property
    def without_candle(self) -> int:
        """Minutes of which the exchange has no candle. One that was refused is none of them: it has something."""
        return (self.absent | self.halted) & ~(self.stored | self.refused)

    def missing(self, over: int) -> int:
        """Return the wanted minutes among those that are over which have no verdict."""
        return self.wanted & over & ~(self.stored | self.refused | self.absent | self.halted)

    def missing_settlements(self, over: int) -> int:
        """Return the settlement instants among those that are over whose rate is not stored."""
        return self.due & over & ~self.settled

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


def to_text(day: DayLedger) -> str:
    """Spell a day for the bus: "wanted=0-1439 received=0-99,101-1439". Empty sets are left out."""
    return " ".join(f"{name}={mask_to_text(mask)}" for name in SETS if (mask := getattr(day, name)))


@lru_cache(maxsize=8192)
def from_text(text: str) -> DayLedger:
    """Read `to_text` back. Equal days are one object: most days of most symbols are alike."""
    return DayLedger(**{name: mask_from_text(runs) for name, _, runs in (part.partition("=") for part in text.split())})


def to_row(exchange: str, symbol: Symbol, day: date, ledger: DayLedger, version: str) -> LedgerRow:
    """Spell a day for the disk."""
    sets = {name: mask_to_text(getattr(ledger, name)) for name in SETS}
    return LedgerRow(exchange=exchange, symbol=symbol, day=day_start(day), version=version, **sets)


def from_row(row: Mapping[str, str]) -> DayLedger:
    """Read the sets of a row of the ledger's file."""
    return from_sets(*(row[name] for name in SETS))


@lru_cache(maxsize=8192)
def from_sets(*texts: str | None) -> DayLedger:
    """Read a day from its sets, in the order of `SETS`; equal days are one object."""
    return DayLedger(*[mask_from_text(text or "") for text in texts])


def by_day(verdict: Verdict) -> Iterable[tuple[date, DayLedger]]:
    """Cut a verdict into days: what it adds to each of them, for every symbol that it names."""
    for day in days_between(verdict.begin, verdict.end):
        yield day, DayLedger(**{verdict.verdict: day_mask(day, verdict.begin, verdict.end)})


def over_mask(day: date, until: datetime) -> int:
    """Return the minutes of a day that open before `until`."""
    midnight = day_start(day)
    return day_mask(day, midnight, max(midnight, min(midnight + DAY, until)))


class Account(NamedTuple):
    """Minutes by verdict, and settlements, summed up over symbols and days."""

    wanted: int = 0
    received: int = 0
    healed: int = 0
    halted: int = 0
    absent: int = 0
    missing: int = 0
    settlements: int = 0
    settlements_missing: int = 0
    refused: int = 0

    @property
    def existing(self) -> int:
        """Wanted minutes of which the exchange has a candle, as far as is known; also one that cannot be true."""
        return self.received + self.healed + self.refused + self.missing

    @property
    def complete(self) -> float | None:
        """Share of the wanted minutes that the exchange has and that are stored; None where none is."""
        return (self.received + self.healed) / self.existing if self.existing else None


def account_of(ledger: DayLedger, over: int) -> Account:
    """Count what is known about a symbol's day, as far as its minutes are among those of `over`."""
    left = wanted = ledger.wanted & over
    counts = [wanted.bit_count()]
    refused = wanted & ledger.refused & ~ledger.stored
    left &= ~refused
    for mask in (ledger.received, ledger.healed, ledger.halted, ledger.absent):  # as `verdicts`, for many days at once
        found = left & mask
        left ^= found
        counts.append(found.bit_count())
    due = ledger.due & over
    counts += [left.bit_count(), due.bit_count(), (due & ~ledger.settled).bit_count(), refused.bit_count()]
    return Account(*counts)


def total(accounts: Iterable[Account]) -> Account:
    """Add up accounts."""
    return Account(*map(sum, zip(*accounts, strict=True)))


def account(days: Iterable[tuple[date, DayLedger]], until: datetime) -> Account:
    """Sum up what is known about some days, as far as their minutes opened before `until`."""
    return total(account_of(ledger, over_mask(day, until)) for day, ledger in days)
