"""A copy of the ledger in memory, kept up with the bus: only days that changed are read again. I/O."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType

from shared.bus.bus import Bus
from shared.grid import MINUTE, day_start
from shared.ledger.day import NOTHING, ByDataset, DayLedger, from_bus
from shared.ledger.minutes import FULL_DAY, gaps_of_mask
from shared.symbol import belongs


class Replica:
    """What the ledger says of every day that the bus knows, of one dataset."""

    def __init__(self) -> None:
        self._days: dict[date, dict[str, DayLedger]] = {}
        self.days: Mapping[date, Mapping[str, DayLedger]] = MappingProxyType(self._days)
        """Day → symbol → what is known. It is changed by `replace` alone, so that no change goes unnoticed."""
        self.lacking: dict[date, frozenset[str]] = {}
        """Which symbols have minutes without a verdict: day → symbols; days without any are not in it."""
        self._changed: list[set[date]] = []

    def note_changes(self, changed: set[date]) -> None:
        """Add every day that changes from now on to a set."""
        self._changed.append(changed)

    def replace(self, day: date, ledgers: Mapping[str, DayLedger]) -> None:
        """Take over what the ledger says of a day now; nothing of a day that it knows no more."""
        self._days.pop(day, None)
        self.lacking.pop(day, None)
        if ledgers:
            self._days[day] = dict(ledgers)
        if lacking := frozenset(symbol for symbol, known in ledgers.items() if known.missing(FULL_DAY)):
            self.lacking[day] = lacking
        for changed in self._changed:
            changed.add(day)

    def last_collected(self, symbol: str) -> datetime | None:
        """Return the open of the last minute of a symbol that was to be collected, or is stored; None without any.

        Whoever collected it may have died before it said that it wanted it.
        """
        for day in sorted(self.days, reverse=True):
            known = self.of(symbol, day)
            if minutes := known.wanted | known.stored:
                return day_start(day) + (minutes.bit_length() - 1) * MINUTE
        return None

    def since(self, symbol: str) -> datetime | None:
        """Return from which minute on a symbol that was collected before is to be wanted; None where it never was.

        That is the one after the last that was wanted. Where none is known to have been, the first that is stored:
        whoever collected it died before it said that it wanted it, or the ledger was lost.
        """
        stored: datetime | None = None
        for day in sorted(self.days, reverse=True):
            known = self.of(symbol, day)
            if known.wanted:
                return day_start(day) + known.wanted.bit_length() * MINUTE
            if known.stored:
                stored = next(gaps_of_mask(day, known.stored)).begin
        return stored

    def first_wanted(self, symbol: str) -> datetime | None:
        """Return the open of the first minute that was to be collected of a symbol; None where none ever was."""
        for day in sorted(self.days):
            if wanted := self.of(symbol, day).wanted:
                return next(gaps_of_mask(day, wanted)).begin
        return None

    def first_missing(self, symbol: str, begin: datetime) -> datetime | None:
        """Return the first minute from `begin` on that was wanted and has no verdict; None where there is none."""
        for day in sorted(day for day in self.days if day >= begin.date()):
            if missing := self.of(symbol, day).missing(FULL_DAY):
                return next(gaps_of_mask(day, missing)).begin
        return None

    def of(self, symbol: str, day: date) -> DayLedger:
        """Return what is known about a symbol's day; nothing is a ledger without minutes."""
        return self.days.get(day, {}).get(symbol, NOTHING)


@dataclass
class LedgerCopy:
    """What the ledger says, of the symbols of one exchange or of all."""

    exchange: str | None = None
    _datasets: dict[str, Replica] = field(default_factory=lambda: defaultdict(Replica))
    _versions: dict[date, int] = field(default_factory=dict)

    def __getitem__(self, dataset: str) -> Replica:
        return self._datasets[dataset]

    def of_day(self, day: date) -> dict[str, Mapping[str, DayLedger]]:
        """Return what is known about a day: dataset → symbol → its sets."""
        return {name: replica.days[day] for name, replica in self._datasets.items() if day in replica.days}

    @property
    def known_days(self) -> set[date]:
        """Return the days that were read and are on the bus."""
        return {*self._versions}

    async def refresh(self, bus: Bus, wanted: Callable[[date], bool] = lambda _: True) -> set[date]:
        """Read what changed since the last call, of the days asked for; return those days.

        Raises `BusError`; `ValueError` where a day on the bus is unreadable.
        """
        versions = {day: version for day, version in (await bus.ledger_versions()).items() if wanted(day)}
        changed = {day for day, version in versions.items() if self._versions.get(day) != version}
        gone = self._versions.keys() - versions.keys()
        for day, texts in (await bus.ledger(sorted(changed))).items():
            try:
                self._replace(day, from_bus(texts))
            except ValueError as error:
                raise ValueError(f"the ledger on the bus is unreadable: {day}, {error}") from error
        for day in gone:
            self._replace(day, {})
        # A day that changes between the two reads is read again next time: its version is the older one.
        self._versions = versions
        return changed | gone

    def _replace(self, day: date, found: ByDataset) -> None:
        for dataset in {*found, *self._datasets}:
            known = found.get(dataset, {})
            ours = {
                symbol: one for symbol, one in known.items() if self.exchange is None or belongs(symbol, self.exchange)
            }
            self[dataset].replace(day, ours)
