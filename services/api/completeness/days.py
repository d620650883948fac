"""How complete the data is: the ledger's days, counted, and what is still open. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from services.api.text import counted, instant
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.grid import DAY, MINUTE, MINUTES_PER_DAY, day_start
from shared.ledger.day import Account, DayLedger, MinuteVerdict, account_of, over_mask, total
from shared.ledger.minutes import FULL_DAY, Gap, day_mask, gaps_of_mask

_ARRIVES_SECONDS = 25.0
"""From the end of a minute to its flush: the exchange confirms it, or it is asked for over REST."""


def arrived_until(exchange_time: datetime, rate: float, flush_seconds: float) -> datetime:
    """Return the end of the minutes that should be stored by now; younger ones are on their way, not missing.

    A minute takes its time to pass on the exchange's clock; what follows takes ours, so it grows with the rate.
    """
    return exchange_time - MINUTE - timedelta(seconds=(_ARRIVES_SECONDS + flush_seconds) * max(1.0, rate))


def accounts_of(ledgers: Mapping[str, DayLedger], over: int) -> dict[str, Account]:
    """Count every symbol's minutes among some of a day; what is the same object, as most are, is counted once."""
    once = {id(ledger): ledger for ledger in ledgers.values()}
    counted = {number: account_of(ledger, over) for number, ledger in once.items()}
    return {symbol: counted[id(ledger)] for symbol, ledger in ledgers.items()}


class DatasetDay:
    """What the ledger says of a dataset on one UTC day. It never changes, so sums over the day are computed once."""

    def __init__(self, day: date, ledgers: Mapping[str, DayLedger]) -> None:
        self.day = day
        self.ledgers = ledgers

    @cached_property
    def account(self) -> Account:
        """Minutes of all symbols, over the whole day."""
        return total(accounts_of(self.ledgers, FULL_DAY).values())

    @cached_property
    def missing(self) -> Mapping[str, int]:
        """Symbol → its missing minutes, over the whole day, where it has some: nearly always empty."""
        found = ((symbol, ledger.missing(FULL_DAY)) for symbol, ledger in self.ledgers.items())
        return {symbol: mask for symbol, mask in found if mask}

    @cached_property
    def missing_instants(self) -> Sequence[tuple[str, datetime]]:
        """Symbols and their missing minutes, over the whole day, the newest first: for what is rarely due."""
        found = [
            (symbol, gap.begin + number * MINUTE)
            for symbol, mask in self.missing.items()
            for gap in gaps_of_mask(self.day, mask)
            for number in range(gap.minutes)
        ]
        return sorted(found, key=lambda one: (-one[1].timestamp(), one[0]))

    def total(self, over: int) -> Account:
        """Return the account of all symbols over some minutes of the day."""
        return self.account if over == FULL_DAY else total(accounts_of(self.ledgers, over).values())

    def masks(self, verdict: MinuteVerdict, over: int) -> Iterator[tuple[str, int]]:
        """Yield symbols that have minutes of a verdict among some of the day, with these minutes."""
        if verdict is MinuteVerdict.MISSING:
            found = ((symbol, mask & over) for symbol, mask in self.missing.items())
        else:
            found = ((symbol, ledger.verdicts(over)[verdict]) for symbol, ledger in self.ledgers.items())
        return ((symbol, mask) for symbol, mask in found if mask)


class Day:
    """The ledger of one UTC day. datasets: name → symbol → what is known."""

    def __init__(self, day: date, datasets: Mapping[str, Mapping[str, DayLedger]]) -> None:
        self.day = day
        self.datasets = datasets
        self._of: dict[str, DatasetDay] = {name: DatasetDay(day, ledgers) for name, ledgers in datasets.items()}
        self._whole: dict[str, Mapping[str, Counted]] = {}

    def of(self, dataset: str) -> DatasetDay:
        """Return what is known about a dataset."""
        return self._of.get(dataset) or self._of.setdefault(dataset, DatasetDay(self.day, {}))

    @property
    def minutes(self) -> DatasetDay:
        """Return what is known about the candles."""
        return self.of(Candle.dataset)

    @property
    def settlements(self) -> DatasetDay:
        """Return what is known about the settled rates: wanted are the minutes at which funding was settled."""
        return self.of(FundingRate.dataset)

    def count(self, over: int, dataset: str = Candle.dataset) -> Mapping[str, "Counted"]:
        """Return each symbol's minutes of a dataset over some of the day, with its settlements beside its candles."""
        if over != FULL_DAY:
            return self._count(over, dataset)
        if dataset not in self._whole:
            self._whole[dataset] = self._count(over, dataset)
        return self._whole[dataset]

    def _count(self, over: int, dataset: str) -> Mapping[str, "Counted"]:
        minutes = accounts_of(self.of(dataset).ledgers, over)
        settled = accounts_of(self.settlements.ledgers, over) if dataset == Candle.dataset else {}
        once: dict[Counted, Counted] = {}  # most symbols of a day are alike
        found = {name: Counted(minutes.get(name, _NONE), settled.get(name, _NONE)) for name in {*minutes, *settled}}
        return {name: once.setdefault(one, one) for name, one in found.items()}

    def is_of(self, datasets: Mapping[str, Mapping[str, DayLedger]]) -> bool:
        """Return whether it was made of these very objects: what changes is another one."""
        return self.datasets.keys() == datasets.keys() and all(
            ledgers is datasets[name] for name, ledgers in self.datasets.items()
        )


_NONE = Account()


class Counted(NamedTuple):
    """Minutes of a dataset by verdict, and settlements."""

    minutes: Account = _NONE
    settlements: Account = _NONE

    def __bool__(self) -> bool:
        return bool(self.minutes.wanted or self.settlements.wanted)


def sum_of(counts: Iterable[Counted]) -> Counted:
    """Add up minutes and settlements."""
    found = list(counts)
    return Counted(total(one.minutes for one in found), total(one.settlements for one in found))


@dataclass(frozen=True)
class OpenGaps:
    """What is open now."""

    minutes: int = 0
    symbols: int = 0
    gaps: int = 0
    """Runs of missing minutes."""
    since: datetime | None = None
    """Open of the oldest missing minute."""
    settlements: int = 0


def open_gaps(days: Iterable[Day], until: datetime) -> OpenGaps:
    """Count what is missing among the minutes that opened before `until`, without listing every gap."""
    minutes = gaps = settlements = 0
    symbols: set[str] = set()
    since: datetime | None = None
    yesterday: tuple[date, Mapping[str, int]] = (date.min, {})
    for day in sorted(days, key=lambda day: day.day):
        over = over_mask(day.day, until)
        missing = dict(day.minutes.masks(MinuteVerdict.MISSING, over))
        before = yesterday[1] if day.day.toordinal() - yesterday[0].toordinal() == 1 else {}
        for symbol, mask in missing.items():
            minutes += mask.bit_count()
            gaps += (mask & ~(mask << 1)).bit_count()
            gaps -= mask & before.get(symbol, 0) >> (MINUTES_PER_DAY - 1) & 1  # one gap goes on over midnight
        if missing and since is None:
            since = min(next(gaps_of_mask(day.day, mask)).begin for mask in missing.values())
        symbols |= missing.keys()
        settlements += sum((mask & over).bit_count() for mask in day.settlements.missing.values())
        yesterday = (day.day, missing)
    return OpenGaps(minutes, len(symbols), gaps, since, settlements)


@dataclass(frozen=True)
class LedgerView:
    """The ledger on the bus at one moment."""

    days: Mapping[date, Day]
    until: datetime
    """Minutes that open from here on are still on their way."""

    @cached_property
    def open_gaps(self) -> OpenGaps:
        """What is open."""
        return open_gaps(self.days.values(), self.until)

    @cached_property
    def unsettled(self) -> Sequence[tuple[str, datetime]]:
        """Symbols and instants at which funding was settled and the rate is not stored, the newest first."""
        days = [day for day in self.days.values() if day.settlements.missing]
        return missing_settlements(days, day_start(min(self.days)), self.until) if days else []

    @cached_property
    def counted(self) -> Counted:
        """Sum of all days on the bus."""
        overs = [(day, over_mask(day.day, self.until)) for day in self.days.values()]
        return Counted(
            total(day.minutes.total(over) for day, over in overs),
            total(day.settlements.total(over) for day, over in overs),
        )


def by_symbol(
    days: Iterable[Day], begin: datetime, end: datetime, symbol: str | None = None, dataset: str = Candle.dataset
) -> dict[str, tuple[Counted, ...]]:
    """Return what the days of each symbol count that had minutes of a dataset, or settlements, in [begin, end)."""
    found: dict[str, list[Counted]] = defaultdict(list)
    for day in days:
        for name, one in day.count(day_mask(day.day, begin, end), dataset).items():
            if symbol in {None, name} and one:
                found[name].append(one)
    return {name: tuple(counts) for name, counts in sorted(found.items())}


class SymbolGap(NamedTuple):
    """Minutes of one symbol in a row, all of one verdict."""

    symbol: str
    gap: Gap


def gaps(
    days: Iterable[DatasetDay], begin: datetime, end: datetime, verdict: MinuteVerdict, symbol: str | None = None
) -> list[SymbolGap]:
    """Return the gaps of a verdict within [begin, end), joined across midnight, the newest first."""
    found: dict[str, list[Gap]] = defaultdict(list)
    for day in sorted(days, key=lambda day: day.day):
        for name, mask in day.masks(verdict, day_mask(day.day, begin, end)):
            if symbol in {None, name}:
                for gap in gaps_of_mask(day.day, mask):
                    known = found[name]
                    joined = known and known[-1].end == gap.begin
                    known.append(Gap(known.pop().begin, gap.end) if joined else gap)
    named = [SymbolGap(name, gap) for name, known in found.items() for gap in known]
    return sorted(named, key=lambda one: (-one.gap.end.timestamp(), -one.gap.begin.timestamp(), one.symbol))


def missing_settlements(
    days: Iterable[Day], begin: datetime, end: datetime, symbol: str | None = None
) -> list[tuple[str, datetime]]:
    """Return symbols and instants in [begin, end) whose settled rate is missing, the newest first."""
    found: list[tuple[str, datetime]] = []
    for day in sorted(days, key=lambda day: day.day, reverse=True):
        missing = day.settlements.missing_instants
        if symbol is None and begin <= day_start(day.day) and day_start(day.day) + DAY <= end:
            found += missing
        else:
            found += [(name, at) for name, at in missing if begin <= at < end and symbol in {None, name}]
    return found


def per_cent(found: Counted) -> str | None:
    """Return the share of what exists that is stored, as text: "99.998 %"; None where nothing exists.

    Counted are minutes and settlements. Rounded down: 100.000 % means that nothing is missing.
    """
    known = found.minutes.existing + found.settlements.existing
    if not known:
        return None
    thousandths = 100_000 * (known - found.minutes.missing - found.settlements.missing) // known
    return f"{thousandths // 1000}.{thousandths % 1000:03} %"


def sentence(ledger: LedgerView | None) -> str:
    """Return in one sentence how complete the data is."""
    if ledger is None:
        return "completeness is not known yet"
    open_now = ledger.open_gaps
    kinds = ((open_now.minutes, "minute"), (open_now.settlements, "settlement"))
    parts = [counted(count, kind) for count, kind in kinds if count]
    if not parts:
        return "no minute missing"
    if open_now.since is None:
        return f"{parts[0]} missing; being healed"
    rest = f" and {parts[1]}" if len(parts) > 1 else ""
    symbols = counted(open_now.symbols, "symbol")
    return f"{parts[0]} of {symbols}{rest} missing since {instant(open_now.since)}; being healed"
