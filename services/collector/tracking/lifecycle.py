"""What becomes of the instruments: listed, suspended, about to go, gone; and when the exchange stood still. Pure.

Two things depend on it: whether a subscription may be silent, and whether a minute without a candle is a halt. The
list is asked for again and again, since pushes about it may be missed; so an instant is known to one interval only.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from shared.datasets.instrument import ENDED_STATE, LIVE_STATE
from shared.exchanges.base import Instrument, Listing, Maintenance
from shared.grid import DAY, MINUTE, ceil_minute, floor_minute
from shared.ledger.minutes import Coverage
from shared.symbol import Symbol

GONE_LOOKS = 4
GONE_SECONDS = 180.0
"""Looks, and our seconds between the first and the last of them, in which a name must be missing from the list before
its instrument is taken to be gone. One whose announced end has passed needs a single look."""


@dataclass(frozen=True)
class Change:
    """Something that happened to an instrument, for the log."""

    symbol: str
    what: str
    before: str | None = None
    now: str | None = None


@dataclass
class _Missing:
    """A name that is not in the list any more: since when, and in how many looks."""

    since: float
    """Our monotonic seconds."""
    at: datetime
    """The exchange's clock."""
    looks: int = 1


@dataclass
class Instruments:
    """The newest list of the exchange, and what was learnt from those before.

    A list may lack rows that exist. So an instrument is gone only by evidence: its announced end has passed, its name
    was missing in several looks over minutes, or the candle endpoints do not know it either. A list without half of the
    names that should be there is none.
    """

    known: dict[str, Instrument] = field(default_factory=dict)
    """What is listed, or was until a moment ago."""
    gone: dict[str, datetime] = field(default_factory=dict)
    """Instruments that ended, and when."""
    seen_time: datetime | None = None
    _missing: dict[str, _Missing] = field(default_factory=dict)
    _ended: list[Change] = field(default_factory=list)
    """Ends that were found since the last list."""
    _remade: dict[str, tuple[Change, datetime]] = field(default_factory=dict)
    """Instruments that are another contract since lately: what of them changed, and when that was seen."""
    _halts: dict[str, Coverage] = field(default_factory=dict)
    _maintenance: Coverage = field(default_factory=Coverage)

    def update(
        self,
        listing: Listing,
        now: datetime,
        seconds: float,
        expected: Collection[str] = (),
        stored: Mapping[Symbol, datetime | None] = MappingProxyType({}),
    ) -> list[Change] | None:
        """Take a fresh list over; return what changed, None where the list is not believed.

        The first list changes nothing. now: the exchange's clock. seconds: our monotonic clock. expected: names that
        must be there beside those known, such as those that are followed. stored: names that were listed when somebody
        looked the last time, which may be long ago, and the announced end of each.
        """
        names = listing.names | listing.instruments.keys()
        should = {*self.known, *expected} - self.gone.keys()
        if not names or 2 * len(should & names) < len(should):
            return None
        changes = list(self._changes(listing.instruments)) if self.seen_time is not None else []
        self._note_missing((should | stored.keys()) - self.gone.keys() - names, now, seconds, stored)
        changes += self._ended
        self._ended = []
        self._remade |= {change.symbol: (change, now) for change in changes if change.what in _REMADE_BY}
        for symbol in names & self._missing.keys():
            del self._missing[symbol]
        for symbol, instrument in listing.instruments.items():
            self._note_state(symbol, instrument, now)
        self.seen_time = now
        return changes

    def _note_state(self, symbol: str, instrument: Instrument, now: datetime) -> None:
        if instrument.state == ENDED_STATE:
            self.gone.setdefault(symbol, min(instrument.expiry_time or now, now))
        else:
            self.gone.pop(symbol, None)
        before = self.known.get(symbol, instrument)
        if instrument.halted or before.halted:
            begin = floor_minute(self.seen_time or now)
            self._halts.setdefault(symbol, Coverage()).add_span(begin, ceil_minute(now) + MINUTE)
        self.known[symbol] = instrument

    def _note_missing(
        self, missing: Iterable[str], now: datetime, seconds: float, stored: Mapping[Symbol, datetime | None]
    ) -> None:
        """Count in how many looks names are missing; end those that are gone by that."""
        for symbol in sorted(missing):
            instrument, noted = self.known.get(symbol), self._missing.get(symbol)
            if noted is None:
                noted = self._missing[symbol] = _Missing(seconds, now)
            else:
                noted.looks += 1
            announced = instrument.expiry_time if instrument is not None else stored.get(Symbol(symbol))
            over = announced is not None and announced <= now
            long = noted.looks >= GONE_LOOKS and seconds - noted.since >= GONE_SECONDS
            if over or long:
                self._end(symbol, announced if over and announced is not None else noted.at)

    def _end(self, symbol: str, at: datetime) -> None:
        self.gone[symbol] = at
        self.known.pop(symbol, None)
        del self._missing[symbol]
        self._ended.append(Change(symbol, "delisted"))

    def unknown(self, symbol: str) -> None:
        """Take that the exchange has answered for a minute that it knows no such instrument.

        With a name that is missing from the list more than once, these are two witnesses: it is gone.
        """
        noted = self._missing.get(symbol)
        if noted is not None and noted.looks > 1:
            self._end(symbol, noted.at)

    @property
    def missing(self) -> list[str]:
        """Return the names that are not in the list and not gone by evidence, in order."""
        return sorted(self._missing)

    def _changes(self, listed: Mapping[Symbol, Instrument]) -> Iterable[Change]:
        for symbol, now in sorted(listed.items()):
            before = self.known.get(symbol)
            if before is not None:
                yield from _differences(before, now)
            elif symbol in self.gone:
                yield Change(symbol, "back", None, now.state)
            else:
                yield Change(symbol, "listed", None, now.state)

    def stood_still(self, windows: Iterable[Maintenance], now: datetime) -> list[Maintenance]:
        """Note the maintenance of the trading of swaps that is under way; return it.

        It is believed to last until its expected end: once it is over it is not listed any more, and the next look may
        come later than that.
        """
        under_way = [
            window for window in windows if window.halts_swaps and window.state == "ongoing" and window.begin <= now
        ]
        for window in under_way:
            expected = min(window.end or now, now + DAY)
            self._maintenance.add_span(floor_minute(window.begin), ceil_minute(max(expected, now + MINUTE)))
        return under_way

    def halts(self, symbol: str) -> Coverage:
        """Return the minutes at which the exchange or the instrument stood still."""
        found = Coverage(dict(self._maintenance.days))
        found.add_masks(self._halts.get(symbol, Coverage()).days.items())
        return found

    def is_expected_silent(self, symbol: str) -> bool:
        """Return whether nothing is to be expected of an instrument now."""
        instrument = self.known.get(symbol)
        return symbol in self.gone or (instrument is not None and instrument.halted)

    def listing_times(self) -> dict[str, datetime | None]:
        """Return when each instrument was listed."""
        return {symbol: instrument.list_time for symbol, instrument in self.known.items()}

    def of_note(self, symbols: Iterable[str]) -> dict[str, str]:
        """Return what is not as usual about some symbols: symbol → state, `gone`, or the announced end."""
        found = {}
        for symbol in symbols:
            instrument = self.known.get(symbol)
            if symbol in self.gone:
                found[symbol] = f"gone since {self.gone[symbol].isoformat()}"
            elif symbol in self._missing:
                found[symbol] = "not in the exchange's list of instruments, waiting for more evidence"
            elif instrument is not None and instrument.state != LIVE_STATE:
                found[symbol] = instrument.state
            elif instrument is not None and instrument.expiry_time is not None:
                found[symbol] = f"leaves the exchange at {instrument.expiry_time.isoformat()}"
            elif (remade := self._remade.get(symbol)) is not None and self._is_recent(remade[1]):
                change, at = remade
                found[symbol] = f"{change.what} changed from {change.before} to {change.now} by {at.isoformat()}"
        return found

    def _is_recent(self, at: datetime) -> bool:
        return self.seen_time is not None and self.seen_time - at < DAY

    def forget_before(self, begin: datetime) -> None:
        """Drop what lies before the window."""
        for minutes in (*self._halts.values(), self._maintenance):
            minutes.forget_before(begin.date())


def _differences(before: Instrument, now: Instrument) -> Iterable[Change]:
    if before.state != now.state:
        yield Change(now.symbol, "state", before.state, now.state)
    if before.expiry_time != now.expiry_time:
        yield Change(now.symbol, "delisting announced", None, str(now.expiry_time))
    for what, name in _WATCHED.items():
        old, new = getattr(before, name), getattr(now, name)
        if old != new and old and new:  # announced ones have most fields empty
            yield Change(now.symbol, what, str(old), str(new))


_WATCHED = {
    "tick size": "tick_size",
    "lot size": "lot_size",
    "contract value": "contract_value",
    "settle currency": "settle_currency",
    "leverage": "max_leverage",
    "listing time": "list_time",
}
"""What of an instrument may change under its name: as the log says it → its field."""
_REMADE_BY = {"contract value", "settle currency", "listing time"}
"""Of these, what makes another contract of it."""
