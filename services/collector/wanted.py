"""Which minutes of which symbol are wanted, and which of them are missing. Pure: time is an argument.

A member of the universe is wanted from BACKFILL_DAYS before today on, without an end; one that left is wanted up to
the ranking that dropped it, the minute that was open then included. A minute is settled once it was handed on, or once
the exchange said that it has no such row.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from shared.coverage import Coverage, Gap, mask_from_text, split_gap
from shared.events import Ranking
from shared.exchange import PAGE_CANDLES, RECENT_MINUTES
from shared.grid import DAY, MINUTE, ceil_minute, floor_day, floor_minute

GRACE = timedelta(seconds=5)
"""How long after its end a minute may take to arrive by itself; confirm was seen 0-3 s late."""
SURE = timedelta(minutes=5)
"""A row that the exchange does not have this long after its minute, it does not have at all: history-candles was seen
to lag by about one minute."""


@dataclass
class Wanted:
    """One symbol: what is wanted of it, and what is settled."""

    symbol: str
    begin: datetime
    until: datetime | None = None
    """None: a member. Else the ranking that dropped it."""
    seen: Coverage = field(default_factory=Coverage)
    """Minutes handed on, or stored before."""
    absent: Coverage = field(default_factory=Coverage)
    """Minutes that the exchange does not have."""
    asked_recent: Coverage = field(default_factory=Coverage)
    """Minutes that the endpoint of the last day did not give: ask the one of history."""
    forming: datetime | None = None
    """Open of the newest row seen, closed or not: every minute before it is over."""

    def over_until(self, exchange_now: datetime) -> datetime:
        """Return the end of the minutes that should have arrived: by the clock, or since a later row is there."""
        by_clock = floor_minute(exchange_now - GRACE)
        by_row = self.forming - MINUTE if self.forming else by_clock
        end = max(by_clock, by_row)
        return end if self.until is None else min(end, ceil_minute(self.until))

    def gaps(self, exchange_now: datetime) -> list[Gap]:
        """Return the minutes that should be there and are not, oldest first."""
        settled = Coverage(dict(self.seen.days))
        for day, mask in self.absent.days.items():
            settled.add_mask(day, mask)
        return settled.gaps(self.begin, self.over_until(exchange_now))

    def is_done(self, exchange_now: datetime) -> bool:
        """Return whether a symbol that left has nothing more to come."""
        if self.until is None or exchange_now < ceil_minute(self.until) + GRACE:
            return False
        return not self.gaps(exchange_now)


@dataclass(frozen=True)
class Request:
    """One page to ask the exchange for."""

    symbol: str
    gap: Gap
    recent: bool


def history_begin(exchange_now: datetime, backfill_days: int) -> datetime:
    """Return the first wanted minute: midnight UTC so many days before today, or now where no history is wanted."""
    return floor_day(exchange_now) - backfill_days * DAY if backfill_days else floor_minute(exchange_now)


def pages(wanted: Wanted, gaps: Iterable[Gap], exchange_now: datetime) -> Iterator[Request]:
    """Cut gaps into pages, newest first, each for the endpoint that has it."""
    border = ceil_minute(exchange_now) - RECENT_MINUTES * MINUTE
    for gap in sorted(gaps, reverse=True):
        for piece in split_gap(gap, PAGE_CANDLES):
            recent = piece.begin >= border and piece.begin not in wanted.asked_recent
            yield Request(wanted.symbol, piece, recent)


def settle(wanted: Wanted, request: Request, exchange_now: datetime) -> None:
    """Note what of a page the answer did not hold, once its rows have been marked as seen.

    Only the endpoint of history, asked well after the minute, is believed when it has no row: the other one answers
    nothing for what is older than a day, which looks the same.
    """
    sure_until = min(request.gap.end, floor_minute(exchange_now - SURE))
    for hole in wanted.seen.gaps(request.gap.begin, max(request.gap.begin, sure_until)):
        (wanted.asked_recent if request.recent else wanted.absent).add_span(hole.begin, hole.end)


class Universe:
    """Everything that is wanted now, as the rankings come in."""

    def __init__(self, backfill_days: int) -> None:
        self._backfill_days = backfill_days
        self._ranked_time: datetime | None = None
        self.symbols: dict[str, Wanted] = {}
        self._handed: dict[str, dict[date, int]] = {}

    @property
    def ranked_time(self) -> datetime | None:
        """Return the instant of the ranking in force."""
        return self._ranked_time

    def apply(
        self,
        ranking: Ranking,
        exchange_now: datetime,
        listed: Mapping[str, datetime | None],
        stored: Mapping[date, Mapping[str, str]],
    ) -> list[str]:
        """Take a ranking over; return the symbols that are new. Those that stay are not touched.

        An older ranking than the one in force (a pending entry read after a restart) only tells whose last minutes
        may still be missing.
        """
        newer = self._ranked_time is None or ranking.ranked_time > self._ranked_time
        if newer:
            self._ranked_time = ranking.ranked_time
        joined = []
        for symbol in ranking.members if newer else ():
            known = self.symbols.get(symbol)
            if known is None:
                self.symbols[symbol] = self._new(symbol, exchange_now, listed, stored)
                joined.append(symbol)
            else:
                known.until = None
        members = set(ranking.members)
        leavers = ({*self.symbols} - members if newer else set()) | set(ranking.removed) - members
        for symbol in sorted(leavers):
            known = self.symbols.get(symbol)
            if known is None:
                known = self.symbols[symbol] = self._new(symbol, exchange_now, listed, stored)
                known.until = ranking.ranked_time
            elif known.until is None and newer:
                known.until = ranking.ranked_time
        return joined

    def _new(
        self,
        symbol: str,
        exchange_now: datetime,
        listed: Mapping[str, datetime | None],
        stored: Mapping[date, Mapping[str, str]],
    ) -> Wanted:
        begin = history_begin(exchange_now, self._backfill_days)
        if (list_time := listed.get(symbol)) is not None:
            begin = max(begin, floor_minute(list_time))
        seen = Coverage({day: mask_from_text(runs[symbol]) for day, runs in stored.items() if symbol in runs})
        return Wanted(symbol, begin, seen=seen)

    def members(self) -> list[str]:
        """Return the symbols whose live data is wanted: members, and leavers until their last minute is there."""
        return sorted(self.symbols)

    def take_back_lost(self, stored: Mapping[date, Mapping[str, str]]) -> int:
        """Count as missing again what was handed on before the last call and is still not on disk; return how much.

        A Redis that came back empty, or a stream cut at its cap, loses entries that nobody else would ask for again.
        The time between two calls is what the writer gets to store what it was given.
        """
        lost = 0
        for symbol, wanted in self.symbols.items():
            for day, handed in self._handed.get(symbol, {}).items():
                if day in stored:
                    missing = handed & ~mask_from_text(stored[day].get(symbol, ""))
                    wanted.seen.days[day] = wanted.seen.days.get(day, 0) & ~missing
                    lost += missing.bit_count()
        self._handed = {symbol: dict(wanted.seen.days) for symbol, wanted in self.symbols.items()}
        return lost

    def drop_done(self, exchange_now: datetime) -> list[str]:
        """Let go of the symbols that left and have nothing more to come; return them."""
        done = [symbol for symbol, wanted in self.symbols.items() if wanted.is_done(exchange_now)]
        for symbol in done:
            del self.symbols[symbol]
        return done
