"""What becomes of the instruments: listed, suspended, about to go, gone; and when the exchange stood still. Pure.

Two things depend on it: whether a subscription may be silent, and whether a minute without a candle is a halt. The
list is asked for again and again, since pushes about it may be missed; so an instant is known to one interval only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shared.coverage import Coverage
from shared.exchange import Instrument, Maintenance
from shared.grid import DAY, MINUTE, ceil_minute, floor_minute

LIVE = "live"
_STOPPED = {"suspend", "preopen", "test", "settling"}
"""States in which nothing is traded. rebase and post_only still have candles."""


@dataclass(frozen=True)
class Change:
    """Something that happened to an instrument, for the log."""

    symbol: str
    what: str
    before: str | None = None
    now: str | None = None


@dataclass
class Instruments:
    """The newest list of the exchange, and what was learnt from those before."""

    known: dict[str, Instrument] = field(default_factory=dict)
    gone: dict[str, datetime] = field(default_factory=dict)
    """Instruments that left the list, and when."""
    seen_time: datetime | None = None
    _halts: dict[str, Coverage] = field(default_factory=dict)
    _maintenance: Coverage = field(default_factory=Coverage)

    def update(self, listed: Mapping[str, Instrument], now: datetime) -> list[Change]:
        """Take a fresh list over; return what changed. The first list changes nothing."""
        changes = list(self._changes(listed)) if self.seen_time is not None else []
        for symbol in self.known.keys() - listed.keys():
            self.gone[symbol] = self.known[symbol].expiry_time or now
        for symbol, instrument in listed.items():
            self.gone.pop(symbol, None)
            before = self.known.get(symbol, instrument)
            if _STOPPED & {instrument.state, before.state}:
                begin = floor_minute(self.seen_time or now)
                self._halts.setdefault(symbol, Coverage()).add_span(begin, ceil_minute(now) + MINUTE)
        self.known, self.seen_time = dict(listed), now
        return changes

    def _changes(self, listed: Mapping[str, Instrument]) -> Iterable[Change]:
        for symbol in sorted(listed.keys() | self.known.keys()):
            now, before = listed.get(symbol), self.known.get(symbol)
            if now is None:
                yield Change(symbol, "delisted")
            elif before is None:
                yield Change(symbol, "listed", None, now.state)
            else:
                yield from _differences(before, now)

    def stood_still(self, windows: Iterable[Maintenance], now: datetime) -> list[Maintenance]:
        """Note the maintenance that is under way; return it.

        It is believed to last until its expected end: once it is over it is not told any more, and the next look may
        come later than that.
        """
        under_way = [window for window in windows if window.state == "ongoing" and window.begin <= now]
        for window in under_way:
            expected = min(window.end or now, now + DAY)
            self._maintenance.add_span(floor_minute(window.begin), ceil_minute(max(expected, now + MINUTE)))
        return under_way

    def halts(self, symbol: str) -> Coverage:
        """Return the minutes at which the exchange or the instrument stood still."""
        found = Coverage(dict(self._maintenance.days))
        for day, mask in self._halts.get(symbol, Coverage()).days.items():
            found.add_mask(day, mask)
        return found

    def is_listed(self, symbol: str) -> bool:
        """Return whether the exchange lists an instrument as one that has candles."""
        return symbol in self.known and self.known[symbol].state not in {"preopen", "test"}

    def is_expected_silent(self, symbol: str) -> bool:
        """Return whether nothing is to be expected of an instrument now."""
        instrument = self.known.get(symbol)
        return symbol in self.gone or (instrument is not None and instrument.state in _STOPPED)

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
            elif instrument is not None and instrument.state != LIVE:
                found[symbol] = instrument.state
            elif instrument is not None and instrument.expiry_time is not None:
                found[symbol] = f"leaves the exchange at {instrument.expiry_time.isoformat()}"
        return found

    def forget_before(self, begin: datetime) -> None:
        """Drop what lies before the window."""
        for minutes in (*self._halts.values(), self._maintenance):
            minutes.forget_before(begin.date())


def _differences(before: Instrument, now: Instrument) -> Iterable[Change]:
    if before.state != now.state:
        yield Change(now.symbol, "state", before.state, now.state)
    if before.expiry_time != now.expiry_time:
        yield Change(now.symbol, "delisting announced", None, str(now.expiry_time))
    if before.tick_size != now.tick_size:
        yield Change(now.symbol, "tick size", before.tick_size, now.tick_size)
