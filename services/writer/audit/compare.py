"""What is stored, held against what the exchange says of the same minutes today. Pure: rows, time, dice are arguments.

Floats are compared exactly: both sides were parsed from the same decimal text, by the same code.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import Verdict
from shared.datasets.registry import AnyEvent
from shared.datasets.row import Row
from shared.exchanges import base
from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start, floor_day, floor_minute, minutes_between
from shared.ledger.day import DayLedger
from shared.ledger.minutes import day_mask
from shared.symbol import Symbol

PAGE_MINUTES = 288
"""Minutes of one request: a fifth of a day, since a page must not be cut short (300 rows) nor cross midnight."""
SURE = timedelta(minutes=10)
"""Age of a minute at which everything that can come of it has come: from the exchange, over the bus, onto the disk."""
SETTLED_SURE = timedelta(hours=1)
"""The same of a settlement: the history shows it some seconds to a minute later, and is asked again for a while."""
_ON_ITS_WAY = timedelta(minutes=1)
"""Our time that a row may wait in memory before it is stored; where the exchange's clock runs faster, so many more
of its minutes are on their way."""
RECENT_AFTER = timedelta(minutes=15)
"""How long after an hour has ended it is audited."""
_HOUR = timedelta(hours=1)


class Kind(StrEnum):
    """What is wrong. The first five are of minutes, the others of settlements."""

    CHANGED = "changed"
    """Stored with another value than the exchange's."""
    ABSENT = "absent"
    """Not stored since the exchange was said to have no such candle; it has."""
    HALTED = "halted"
    """The same, said of a time when it stood still."""
    MISSING = "missing"
    """Wanted and not stored; the exchange has it."""
    INVENTED = "invented"
    """Stored; the exchange has no such candle."""
    RATE = "rate"
    """A settlement stored with another rate."""
    RATE_MISSING = "rate_missing"
    RATE_INVENTED = "rate_invented"


COMPARED: dict[type[Row], tuple[str, ...]] = {
    Candle: ("open", "high", "low", "close", "volume", "amount", "contracts"),
    FundingRate: ("funding_rate",),
}


@dataclass(frozen=True)
class Difference:
    """One field; None: there is no value on that side."""

    field: str
    stored: float | None
    exchange: float | None


@dataclass(frozen=True)
class Mismatch:
    """One minute, or one settlement, that is not stored as the exchange has it."""

    kind: Kind
    symbol: Symbol
    at: datetime
    stored: Candle | FundingRate | None
    exchange: Candle | FundingRate | None

    @property
    def differences(self) -> list[Difference]:
        """Return the fields that differ; all of them where one side has no row."""
        names = COMPARED[FundingRate if FundingRate in {type(self.stored), type(self.exchange)} else Candle]
        both = [(name, getattr(self.stored, name, None), getattr(self.exchange, name, None)) for name in names]
        return [Difference(*values) for values in both if values[1] != values[2]]


@dataclass(frozen=True, order=True)
class Page:
    """Minutes of one symbol that open in [begin, end), all on one UTC day."""

    symbol: Symbol
    begin: datetime
    end: datetime

    @property
    def day(self) -> date:
        """Return the day that all of it lies on."""
        return self.begin.date()


@dataclass(frozen=True)
class Answer:
    """What the exchange has of a page."""

    candles: Mapping[datetime, Candle]
    unsure: frozenset[datetime] = frozenset()
    """Minutes whose row cannot be read, or is not closed: nothing is said of them."""

    def __or__(self, later: "Answer") -> "Answer":
        """Join two answers on the same page: what one of them has, the exchange has."""
        return Answer({**self.candles, **later.candles}, self.unsure | later.unsure)


def answer_of(page: Page, answer: base.Page[Candle]) -> Answer:
    """Take what the exchange has of a page.

    A row that does not even say when it opened may be of any minute of which there is no other.
    """
    candles = {candle.open_time: candle for candle in answer.events if page.begin <= candle.open_time < page.end}
    opens = [row.at for row in answer.refused if row.at is not None] + [*answer.partial]
    unsure = {at for at in opens if page.begin <= at < page.end}
    if any(row.at is None for row in answer.refused):
        unsure |= {*minutes_between(page.begin, page.end)} - candles.keys()
    return Answer(candles, frozenset(unsure))


def comparable(page: Page, stored: Collection[datetime], answer: Answer, ledger: DayLedger) -> list[datetime]:
    """Return the minutes to compare, in order: stored, or wanted and there; and the exchange speaks clearly of them."""
    known = ledger.wanted | ledger.without_row
    there = {at for at in answer.candles if known >> ((at - day_start(page.day)) // MINUTE) & 1}
    return sorted((there | set(stored)) - answer.unsure)


def compare_candles(page: Page, stored: Mapping[datetime, Candle], answer: Answer, ledger: DayLedger) -> list[Mismatch]:
    """Compare a page minute by minute. What is neither stored nor wanted is nothing to complain of."""
    found = []
    for opened in comparable(page, stored, answer, ledger):
        ours, theirs = stored.get(opened), answer.candles.get(opened)
        kind = _kind_of(ours, theirs, ledger, 1 << ((opened - day_start(page.day)) // MINUTE))
        if kind is not None:
            found.append(Mismatch(kind, page.symbol, opened, ours, theirs))
    return found


def _kind_of(ours: Candle | None, theirs: Candle | None, ledger: DayLedger, minute: int) -> Kind | None:
    if ours is not None and theirs is not None:
        return None if _equal(ours, theirs) else Kind.CHANGED
    if ours is not None:
        return Kind.INVENTED
    if ledger.halted & minute:
        return Kind.HALTED
    if ledger.absent & minute:
        return Kind.ABSENT
    return Kind.MISSING


def compare_settlements(
    symbol: Symbol,
    stored: Mapping[datetime, FundingRate],
    said: Mapping[datetime, FundingRate],
    wanted: Callable[[datetime], bool],
) -> list[Mismatch]:
    """Compare settlements by their instant; `said` begins well before what is compared.

    The history reaches back a few months only: before its oldest row, nothing can be said.
    """
    oldest = min(said, default=None)
    found = []
    for at in sorted(stored.keys() | said.keys()):
        ours, theirs = stored.get(at), said.get(at)
        if theirs is None:
            kind = Kind.RATE_INVENTED if oldest is not None and at > oldest else None
        elif ours is None:
            kind = Kind.RATE_MISSING if wanted(at) else None
        else:
            kind = None if _equal(ours, theirs) else Kind.RATE
        if kind is not None:
            found.append(Mismatch(kind, symbol, at, ours, theirs))
    return found


def _equal(ours: Candle | FundingRate, theirs: Candle | FundingRate) -> bool:
    return all(getattr(ours, name) == getattr(theirs, name) for name in COMPARED[type(theirs)])


def repair_of(mismatch: Mismatch, *, exchange_now: datetime) -> AnyEvent | None:
    """Return the event that mends a mismatch, None where nothing does.

    The exchange's row wins on disk as the newest knowledge; it is dated later than the stored one, also where the
    clock that dated that one was ahead. Of an invented minute only a doubt is published (the verdict `absent`): whoever
    owns the files asks again before anything is deleted. An invented settlement is only reported.
    """
    ours, theirs = mismatch.stored, mismatch.exchange
    if theirs is not None:
        if ours is None:
            return theirs
        later: dict[str, Any] = {theirs.newest: max(getattr(theirs, theirs.newest), getattr(ours, ours.newest) + _TICK)}
        return msgspec.structs.replace(theirs, **later)
    if isinstance(ours, Candle):
        return Verdict(
            exchange=ours.exchange,
            verdict="absent",
            symbols=(ours.symbol,),
            begin=ours.open_time,
            end=ours.open_time + MINUTE,
            known_time=exchange_now,
        )
    return None


def repairs_of(
    mismatches: Sequence[Mismatch], compared: int, *, exchange_now: datetime
) -> list[tuple[Mismatch, AnyEvent]]:
    """Return what can be mended of one look, with the event that does it.

    Where all that was compared is said to be invented, the exchange gave an empty page: that is only reported.
    """
    if len(mismatches) == compared and all(one.kind is Kind.INVENTED for one in mismatches):
        return []
    events = ((one, repair_of(one, exchange_now=exchange_now)) for one in mismatches)
    return [(one, event) for one, event in events if event is not None]


_TICK = timedelta(milliseconds=1)
"""The least that two times differ by on disk."""


# --- What to look at


def sure_until(now: datetime, rate: float = 1.0, *, after: timedelta = SURE) -> datetime:
    """Return the instant before which everything has come; rate: how fast the exchange's clock runs."""
    return floor_minute(now - after - max(0.0, rate - 1.0) * _ON_ITS_WAY)


def pages_of(
    day: date, ledgers: Mapping[Symbol, DayLedger], begin: datetime, end: datetime, symbols: Collection[str] = ()
) -> list[Page]:
    """Return the pages of a day that hold stored or wanted minutes of [begin, end); all symbols where none is named."""
    midnight = day_start(day)
    found = []
    for symbol, ledger in sorted(ledgers.items()):
        if symbols and symbol not in symbols:
            continue
        for first in range(0, MINUTES_PER_DAY, PAGE_MINUTES):
            page_begin = max(begin, midnight + first * MINUTE)
            page_end = min(end, midnight + (first + PAGE_MINUTES) * MINUTE)
            if page_begin < page_end and (ledger.stored | ledger.wanted) & day_mask(day, page_begin, page_end):
                found.append(Page(symbol, page_begin, page_end))
    return found


def pick_day(dice: random.Random, days: Sequence[date], today: date) -> date | None:
    """Choose a day at random, None where there is none; the weight falls with the age, so the recent come often."""
    if not days:
        return None
    return dice.choices(days, [1 / (1 + max(0, (today - day).days)) for day in days])[0]


def last_hour_end(now: datetime, rate: float = 1.0) -> datetime:
    """Return the end of the last hour that ended long enough ago."""
    return sure_until(now, rate, after=RECENT_AFTER).replace(minute=0)


def next_recent(
    audited: Mapping[str, datetime], ledgers: Mapping[Symbol, DayLedger], hour_end: datetime
) -> Page | None:
    """Return the page that brings the symbol forward that is furthest behind; None where none is.

    audited: symbol → up to when it was audited as it came; a new one begins with the last hour. ledgers: of the day
    of that hour. Where there are more symbols than pages, a page holds more than an hour.
    """
    begin = hour_end - _HOUR
    hour = day_mask(begin.date(), begin, hour_end)
    behind = [
        (audited.get(symbol, begin), symbol)
        for symbol, ledger in ledgers.items()
        if (ledger.stored | ledger.wanted) & hour and audited.get(symbol, begin) < hour_end
    ]
    if not behind:
        return None
    since, symbol = min(behind)
    since = max(since, hour_end - PAGE_MINUTES * MINUTE)
    return Page(symbol, since, min(hour_end, floor_day(since) + DAY))
