"""One instrument on one channel: which of its minutes are wanted, and which are missing. Pure: time is an argument.

A minute is settled once it was published, or once the exchange said that it has no such row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from services.collector.tracking.denials import Denials
from shared.grid import MINUTE, ceil_minute, floor_minute
from shared.ledger.minutes import FULL_DAY, Coverage, Gap, Lacking
from shared.symbol import Symbol

GRACE = timedelta(seconds=5)
"""How long after its end a minute may take to arrive by itself; confirm was seen 0-3 s late."""


_REFUSED_AGAIN_SECONDS = 1.0
"""A row that cannot be true is nearly always a single odd answer."""


@dataclass
class TrackedInstrument:
    """One symbol: what is wanted of it, and what is settled."""

    symbol: Symbol
    begin: datetime
    until: datetime | None = None
    """None: without an end. Else the end of the time for which one that left is followed."""
    ended: datetime | None = None
    """When the instrument itself ended, where that is proven."""
    listed: datetime | None = None
    """When the instrument was listed, where the exchange says so."""
    seen: Coverage = field(default_factory=Coverage)
    """Minutes published, or stored before."""
    absent: Coverage = field(default_factory=Coverage)
    """Minutes that the exchange does not have."""
    halted: Coverage = field(default_factory=Coverage)
    """The same, while the exchange or the instrument stood still."""
    refused: Coverage = field(default_factory=Coverage)
    """Minutes of which the exchange has a row that cannot be true."""
    unwanted: Coverage = field(default_factory=Coverage)
    """Minutes since `begin` that are not to be collected: an absence that is not to be filled."""
    due: Coverage | None = None
    """The minutes at which a row is due; None: at every minute."""
    denials: Denials = field(default_factory=Denials)
    """Minutes that the exchange did not give, though not often enough, or long enough, to believe it."""
    refusals: Denials = field(default_factory=lambda: Denials(first_wait=_REFUSED_AGAIN_SECONDS))
    """Minutes of which it gave a row that cannot be true, though not often enough to take that for its last word."""
    asked: bool = True
    """Whether the exchange was asked since `begin` for what is due, where that has to be found out."""
    only_healed: bool = False
    """Whether it is not followed: what the ledger lacks of it is fetched, no more."""
    forming: datetime | None = None
    """Open of the newest row seen, closed or not: every minute before it is over."""
    _lacking: Lacking = field(init=False, repr=False, compare=False)
    _kept_from: date = field(default=date.min, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._lacking = Lacking(self._settled)
        for minutes in (self.seen, self.absent, self.halted, self.refused, self.unwanted, self.due):
            if minutes is not None:
                minutes.note_changes(self._lacking.changed)

    def over_until(self, exchange_now: datetime) -> datetime:
        """Return the end of the minutes that should have arrived: by the clock, or since a later row is there."""
        by_clock = floor_minute(exchange_now - GRACE)
        by_row = self.forming - MINUTE if self.forming else by_clock
        end = max(by_clock, by_row)
        return end if self.last is None else min(end, ceil_minute(self.last))

    @property
    def last(self) -> datetime | None:
        """Return when nothing more is wanted, since it is followed no longer or has ended; None: without an end."""
        if self.until is None or self.ended is None:
            return self.ended if self.until is None else self.until
        return min(self.until, self.ended)

    def gaps(self, exchange_now: datetime) -> list[Gap]:
        """Return the minutes that should be there and are not, oldest first."""
        return self._lacking.gaps(self.begin, self.over_until(exchange_now))

    def to_ask(self, gaps: Iterable[Gap], exchange_now: datetime, seconds: float) -> list[Gap]:
        """Return the parts of gaps that were not denied just now. `seconds`: our monotonic clock."""
        resting = self.denials.resting(exchange_now, seconds)
        resting.add_masks(self.refusals.resting(exchange_now, seconds).days.items())
        if not resting.days:
            return list(gaps)
        return [part for gap in gaps for part in resting.gaps(gap.begin, gap.end)]

    def shown(self) -> tuple[datetime, datetime] | None:
        """Return between which instants a minute lies between rows that the exchange has shown; None: between none.

        The first row, or the listing; and the last row, or the proven end of the instrument.
        """
        begins = [at for at in (self.listed, self.seen.first(), self.refused.first()) if at is not None]
        ends = [at for at in (self.ended, self.forming, self.seen.last(), self.refused.last()) if at is not None]
        return (min(begins), max(ends)) if begins and ends else None

    def _settled(self, day: date) -> int:
        known = self.seen.days.get(day, 0)
        if known == FULL_DAY:  # nearly every day of history, at every sweep
            return known
        for minutes in (self.absent, self.halted, self.refused, self.unwanted):
            known |= minutes.days.get(day, 0)
        return known if self.due is None else known | (FULL_DAY & ~self.due.days.get(day, 0))

    def is_done(self, exchange_now: datetime) -> bool:
        """Return whether a symbol that left has nothing more to come."""
        if self.last is None or exchange_now < ceil_minute(self.last) + GRACE:
            return False
        return self.asked and not self.gaps(exchange_now)

    def is_warm(self, exchange_now: datetime) -> bool:
        """Return whether its history is there, but for minutes that may be on their way."""
        return sum(gap.minutes for gap in self.gaps(exchange_now)) < NEARLY_NONE

    def forget_before(self, begin: datetime) -> None:
        """Let the window slide: what is older is wanted no longer, and costs no memory."""
        self.begin = max(self.begin, begin)
        if self.begin.date() == self._kept_from:
            return
        self._kept_from = self.begin.date()
        for minutes in (
            self.seen,
            self.absent,
            self.halted,
            self.refused,
            self.unwanted,
            self.denials,
            self.refusals,
        ):
            minutes.forget_before(self.begin.date())
        if self.due is not None:
            self.due.forget_before(self.begin.date())


NEARLY_NONE = 10
"""Minutes per symbol that may be on their way at any moment without the history being incomplete."""
