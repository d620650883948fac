"""Which minutes of which symbol are wanted, and which of them are missing. Pure: time is an argument.

A member of the universe is wanted from BACKFILL_DAYS before today on, without an end; one that left stays wanted for a
grace time after the ranking that dropped it, so that a symbol that comes back has no hole. A minute is settled once it
was handed on, or once the exchange said that it has no such row.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import reduce
from operator import or_

from services.collector.tracking.denials import Denials
from shared.datasets.ledger import Finding, Verdict
from shared.datasets.universe import Ranking
from shared.exchanges.registry import PAGE_CANDLES, RECENT_MINUTES
from shared.grid import DAY, MINUTE, ceil_minute, day_start, days_between, floor_day, floor_minute
from shared.ledger.minutes import FULL_DAY, Coverage, Gap, day_mask, gaps_of, gaps_of_mask, split_gap
from shared.ledger.replica import LedgerCopy
from shared.symbol import Symbol

GRACE = timedelta(seconds=5)
"""How long after its end a minute may take to arrive by itself; confirm was seen 0-3 s late."""
SURE = timedelta(minutes=5)
"""A row that the exchange does not have this long after its minute, it does not have at all: history-candles was seen
to lag by about one minute."""


_REFUSED_AGAIN_SECONDS = 1.0
"""A row that cannot be true is nearly always a single odd answer."""


@dataclass
class Wanted:
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
    """Minutes handed on, or stored before."""
    absent: Coverage = field(default_factory=Coverage)
    """Minutes that the exchange does not have."""
    halted: Coverage = field(default_factory=Coverage)
    """The same, while the exchange or the instrument stood still."""
    refused: Coverage = field(default_factory=Coverage)
    """Minutes of which the exchange has a row that cannot be true."""
    unwanted: Coverage = field(default_factory=Coverage)
    """Minutes since `begin` that are not to be collected: an absence that is not to be filled."""
    due: Coverage = field(default_factory=Coverage)
    """Minutes at whose open funding was settled."""
    asked_recent: Coverage = field(default_factory=Coverage)
    """Minutes that the endpoint of the last day did not give: ask the one of history."""
    denials: Denials = field(default_factory=Denials)
    """Minutes that the endpoint of history did not give, though not often enough, or long enough, to believe it."""
    refusals: Denials = field(default_factory=lambda: Denials(first_wait=_REFUSED_AGAIN_SECONDS))
    """Minutes of which it gave a row that cannot be true, though not often enough to take that for its last word."""
    funding_known: bool = True
    """Whether its funding history was asked for; a fresh one's was not."""
    only_healed: bool = False
    """Whether nobody follows it: what the ledger lacks of it is fetched, no more."""
    forming: datetime | None = None
    """Open of the newest row seen, closed or not: every minute before it is over."""

    def over_until(self, exchange_now: datetime) -> datetime:
        """Return the end of the minutes that should have arrived: by the clock, or since a later row is there."""
        by_clock = floor_minute(exchange_now - GRACE)
        by_row = self.forming - MINUTE if self.forming else by_clock
        end = max(by_clock, by_row)
        return end if self.last is None else min(end, ceil_minute(self.last))

    @property
    def last(self) -> datetime | None:
        """Return when nothing more is wanted, since it is followed no longer or has ended; None: without an end."""
        return min((at for at in (self.until, self.ended) if at is not None), default=None)

    def gaps(self, exchange_now: datetime) -> list[Gap]:
        """Return the minutes that should be there and are not, oldest first."""
        return gaps_of(self.begin, self.over_until(exchange_now), self._settled)

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
        return known

    def is_done(self, exchange_now: datetime) -> bool:
        """Return whether a symbol that left has nothing more to come."""
        if self.last is None or exchange_now < ceil_minute(self.last) + GRACE:
            return False
        return self.funding_known and not self.gaps(exchange_now)

    def is_warm(self, exchange_now: datetime) -> bool:
        """Return whether its history is there, but for minutes that may be on their way."""
        return sum(gap.minutes for gap in self.gaps(exchange_now)) < NEARLY_NONE

    def forget_before(self, begin: datetime) -> None:
        """Let the window slide: what is older is wanted no longer, and costs no memory."""
        self.begin = max(self.begin, begin)
        for minutes in (
            self.seen,
            self.absent,
            self.halted,
            self.refused,
            self.unwanted,
            self.due,
            self.asked_recent,
            self.denials,
            self.refusals,
        ):
            minutes.forget_before(self.begin.date())


NEARLY_NONE = 10
"""Minutes per symbol that may be on their way at any moment without the history being incomplete."""


@dataclass(frozen=True)
class Request:
    """One page to ask the exchange for."""

    symbol: Symbol
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


def settle(
    wanted: Wanted,
    request: Request,
    exchange_now: datetime,
    seconds: float,
    halts: Coverage,
    *,
    disputed: bool = False,
) -> None:
    """Note what of a page the answer did not hold, once its rows have been marked as seen, or as refused.

    Only the endpoint of history, asked well after the minute, is believed when it has no row: the other one answers
    nothing for what is older than a day, which looks the same. Absent is a minute between rows that the exchange has
    shown, in answers that agree half an hour apart. `seconds`: our monotonic clock. `halts`: when the exchange or the
    instrument stood still. `disputed`: the exchange's clock is in doubt, so nothing is judged.
    """
    wanted.refusals.drop(wanted.seen.days)
    wanted.refused.add_masks(wanted.refusals.repeated())
    wanted.refusals.drop(wanted.refused.days)
    shown = [wanted.seen, wanted.refused, wanted.refusals.minutes()]
    for minutes in shown:
        wanted.denials.drop(minutes.days)
    sure_until = max(request.gap.begin, min(request.gap.end, floor_minute(exchange_now - SURE)))
    holes = gaps_of(
        request.gap.begin, sure_until, lambda day: reduce(or_, (minutes.days.get(day, 0) for minutes in shown))
    )
    if request.recent:
        for hole in holes:
            wanted.asked_recent.add_span(hole.begin, hole.end)
        return
    if disputed:
        return
    wanted.denials.note(holes, exchange_now, seconds)
    _judge(wanted, exchange_now, halts)


def _judge(wanted: Wanted, exchange_now: datetime, halts: Coverage) -> None:
    """Give the minutes a verdict that were denied for long enough."""
    for day, mask in wanted.denials.repeated():
        wanted.halted.add_mask(day, mask & halts.days.get(day, 0))
    if (shown := wanted.shown()) is not None:
        for day, mask in wanted.denials.agreed(exchange_now):
            wanted.absent.add_mask(day, mask & day_mask(day, *shown) & ~wanted.halted.days.get(day, 0))
    wanted.denials.drop(wanted.halted.days)
    wanted.denials.drop(wanted.absent.days)


def give_up(wanted: Wanted, gap: Gap) -> None:
    """Note that an instrument is unknown to the exchange: nothing will come of it."""
    wanted.absent.add_span(gap.begin, gap.end)


@dataclass(frozen=True)
class Reach:
    """How far back a symbol is wanted."""

    backfill_days: int
    retention_days: int = 90
    leaver_grace: timedelta = timedelta(hours=9)
    """How long one that left is followed still."""
    fill_absence: bool = True
    """Whether the time that a symbol was away for is fetched when it comes back."""


class Universe:
    """Everything that is wanted now, as the rankings come in."""

    def __init__(self, reach: Reach, ledger: LedgerCopy) -> None:
        self._reach = reach
        self._ledger = ledger
        self._ranking: Ranking | None = None
        self._ranked_time: datetime | None = None
        self._members: frozenset[Symbol] = frozenset()
        self.symbols: dict[Symbol, Wanted] = {}
        self._ever: set[str] = set()
        self._ended_early: dict[Symbol, datetime] = {}
        """Symbols that left, and were let go since they had ended: until when they would have been followed."""

    @property
    def ranked_time(self) -> datetime | None:
        """Return the instant of the ranking in force."""
        return self._ranked_time

    @property
    def leavers(self) -> list[Symbol]:
        """Return the symbols that are followed although they are no members."""
        return sorted(self.symbols.keys() - self._members)

    def apply(self, ranking: Ranking, exchange_now: datetime, listed: Mapping[str, datetime | None]) -> list[Symbol]:
        """Take a ranking over; return the symbols that are new. Those that stay are not touched.

        An older ranking than the one in force (a pending entry read after a restart) only tells who left not long ago.
        `listed`: the swaps of the exchange, each with the time of its listing; empty where nobody can tell.
        """
        newer = self._ranked_time is None or ranking.ranked_time > self._ranked_time
        joined: list[Symbol] = []
        if newer:
            self._ranking = ranking
            self._ranked_time, self._members = ranking.ranked_time, frozenset(ranking.members)
        for symbol in ranking.members if newer else ():
            known = self.symbols.get(symbol)
            if known is None or known.only_healed:
                # One that is only being healed begins anew, like one that nobody follows.
                self.symbols[symbol] = self._new(symbol, ranking, exchange_now, listed)
                joined.append(symbol)
            else:
                known.until = None
        self._follow_leavers(ranking, exchange_now, listed, newer=newer)
        return joined

    def _follow_leavers(
        self, ranking: Ranking, exchange_now: datetime, listed: Mapping[str, datetime | None], *, newer: bool
    ) -> None:
        left = ({*self.symbols} if newer else set()) | set(ranking.removed)
        until = ranking.ranked_time + self._reach.leaver_grace
        for symbol in sorted(left - self._members - set(ranking.members)):
            known = self.symbols.get(symbol)
            if known is None:
                known = self.symbols[symbol] = self._new(symbol, ranking, exchange_now, listed)
                known.until = until
            elif known.until is None:
                known.until = until

    def left(self) -> dict[Symbol, datetime]:
        """Return since when the followed symbols are no members that left."""
        return {
            symbol: wanted.until - self._reach.leaver_grace
            for symbol, wanted in self.symbols.items()
            if symbol not in self._members and wanted.until is not None and not wanted.only_healed
        }

    def follow_left(
        self, left: Mapping[Symbol, datetime], exchange_now: datetime, listed: Mapping[str, datetime | None]
    ) -> list[Symbol]:
        """Follow those on that left not too long ago, after a restart; return them. left: symbol → when it left."""
        return self._follow_until(
            {symbol: at + self._reach.leaver_grace for symbol, at in left.items()}, exchange_now, listed
        )

    def _follow_until(
        self, untils: Mapping[Symbol, datetime], exchange_now: datetime, listed: Mapping[str, datetime | None]
    ) -> list[Symbol]:
        taken = []
        for symbol, until in sorted(untils.items()):
            self._ended_early.pop(symbol, None)
            known = self.symbols.get(symbol)
            missing = known is None or known.only_healed
            if self._ranking is not None and missing and symbol not in self._members and until > exchange_now:
                wanted = self.symbols[symbol] = self._new(symbol, self._ranking, exchange_now, listed)
                wanted.until = until
                taken.append(symbol)
        return taken

    def left_by_ledger(self, exchange_now: datetime, listed: Collection[str]) -> dict[Symbol, datetime]:
        """Return who left, and when it was collected last, as far as the ledger knows: where that was forgotten."""
        found = {}
        for symbol in {Symbol(symbol) for symbols in self._ledger.days.values() for symbol in symbols}:
            last = self._ledger.last_collected(symbol)
            if last is not None and symbol in listed and symbol not in self._members:
                found[symbol] = min(last, exchange_now)
        return found

    def _new(
        self, symbol: Symbol, ranking: Ranking, exchange_now: datetime, listed: Mapping[str, datetime | None]
    ) -> Wanted:
        begin = history_begin(exchange_now, self._reach.backfill_days)
        kept_from = history_begin(exchange_now, self._reach.retention_days)
        last, since = self._ledger.last_collected(symbol), self._ledger.since(symbol)
        away = timedelta(0) if last is None else ranking.ranked_time - last
        returned = symbol in ranking.added and away > self._reach.leaver_grace
        if since is not None and (self._reach.fill_absence or not returned):
            # Collected before: what lies between is wanted, as far back as raw data is kept.
            begin = min(begin, max(since, kept_from))
        hole = self._ledger.first_missing(symbol, kept_from)
        begin_anew, begin = begin, min(begin, hole or begin)
        if (list_time := listed.get(symbol)) is not None:
            begin = max(begin, floor_minute(list_time))
        wanted = self._known(symbol, begin)
        wanted.listed = list_time
        self._leave_out(wanted, begin_anew)
        if last is not None and returned and not self._reach.fill_absence:
            wanted.unwanted.add_span(last + MINUTE, floor_minute(ranking.ranked_time))
        return wanted

    def _known(self, symbol: Symbol, begin: datetime) -> Wanted:
        """Return a symbol with what the ledger knows about it."""
        wanted = Wanted(symbol, begin, funding_known=False)
        for day, symbols in self._ledger.days.items():
            if symbol in symbols and day >= begin.date():
                wanted.seen.add_mask(day, symbols[symbol].stored)
                wanted.absent.add_mask(day, symbols[symbol].absent)
                wanted.halted.add_mask(day, symbols[symbol].halted)
                wanted.refused.add_mask(day, symbols[symbol].refused)
                wanted.due.add_mask(day, symbols[symbol].due)
        return wanted

    def _leave_out(self, wanted: Wanted, end: datetime) -> None:
        """Leave out what was never wanted between the begin and `end`."""
        for day in days_between(wanted.begin, end):
            never = day_mask(day, wanted.begin, end) & ~self._ledger.of(wanted.symbol, day).wanted
            wanted.unwanted.add_mask(day, never)

    def adopt(self, exchange_now: datetime) -> list[Symbol]:
        """Take up what the ledger lacks of symbols that nobody follows any more; return them.

        One left while the collector was away, or a file of it was damaged long after.
        """
        kept_from = history_begin(exchange_now, self._reach.retention_days)
        lacking = {Symbol(symbol) for symbols in self._ledger.lacking.values() for symbol in symbols}
        adopted = []
        for symbol in sorted(lacking - self.symbols.keys()):
            hole, last = self._ledger.first_missing(symbol, kept_from), self._ledger.last_collected(symbol)
            if hole is not None and last is not None:
                wanted = self.symbols[symbol] = self._known(symbol, hole)
                wanted.until, wanted.only_healed = last + MINUTE, True
                self._leave_out(wanted, wanted.until)
                adopted.append(symbol)
        return adopted

    def reach_back(self, exchange_now: datetime) -> list[Symbol]:
        """Want what the ledger lacks of symbols that are followed, from before their begin on, too; return them.

        One told the ledger what it wants and died; it was taken in only after its successor had read the ledger.
        """
        kept_from = history_begin(exchange_now, self._reach.retention_days).date()
        reached = []
        for day, symbols in sorted(self._ledger.lacking.items()):
            for symbol in sorted(self.symbols.keys() & symbols) if day >= kept_from else ():
                wanted, missing = self.symbols[symbol], self._ledger.of(symbol, day).missing(FULL_DAY)
                first = next(gaps_of_mask(day, missing)).begin
                if first < wanted.begin:
                    self._begin_earlier(wanted, first)
                    reached.append(symbol)
                if unwanted := wanted.unwanted.days.get(day, 0):
                    wanted.unwanted.days[day] = unwanted & ~missing
        return reached

    def _begin_earlier(self, wanted: Wanted, begin: datetime) -> None:
        earlier = self._known(wanted.symbol, begin)
        self._leave_out(earlier, wanted.begin)
        wanted.begin, wanted.funding_known = begin, False
        for name in ("seen", "absent", "halted", "refused", "due", "unwanted"):
            getattr(wanted, name).add_masks(getattr(earlier, name).days.items())

    def followed(self, exchange_now: datetime) -> list[Symbol]:
        """Return the symbols whose live data is wanted: members, and leavers in their grace time."""
        return sorted(
            symbol
            for symbol, wanted in self.symbols.items()
            if wanted.last is None or exchange_now < ceil_minute(wanted.last) + GRACE
        )

    def is_stranger(self, symbol: Symbol) -> bool:
        """Return whether nobody ever asked for a symbol; True only once, so that it is told once."""
        is_new = symbol not in self._ever and symbol not in self.symbols
        self._ever.add(symbol)
        return is_new

    def end(self, symbol: Symbol, at: datetime, exchange_now: datetime) -> None:
        """Note that an instrument is no more: nothing is wanted of it after that.

        What the ledger was asked to want since then, while the end was in doubt, does not exist.
        """
        if (wanted := self.symbols.get(symbol)) is not None and (wanted.ended is None or at < wanted.ended):
            wanted.absent.add_span(max(ceil_minute(at), wanted.begin), wanted.over_until(exchange_now))
            wanted.ended = at

    def revive(
        self, exchange_now: datetime, listed: Mapping[str, datetime | None], gone: Collection[str]
    ) -> list[Symbol]:
        """Follow those again that had ended and are listed now; return them. The time between is wanted, too."""
        back = [
            symbol
            for symbol, wanted in self.symbols.items()
            if wanted.ended is not None and symbol in listed and symbol not in gone
        ]
        for symbol in back:
            self._take_back_end(self.symbols[symbol])
        for symbol in sorted(self._members - self.symbols.keys()):
            if self._ranking is not None and symbol in listed and symbol not in gone:
                self.symbols[symbol] = self._new(symbol, self._ranking, exchange_now, listed)
                back.append(symbol)
        left = {symbol: until for symbol, until in self._ended_early.items() if symbol in listed and symbol not in gone}
        return back + self._follow_until(left, exchange_now, listed)

    @staticmethod
    def _take_back_end(wanted: Wanted) -> None:
        """Want again what was called absent for an end that was none."""
        if wanted.ended is not None:
            for day in [day for day in wanted.absent.days if day >= wanted.ended.date()]:
                wanted.absent.days[day] &= ~day_mask(day, wanted.ended, day_start(day) + DAY)
        wanted.ended = None

    def take_over(self, days: Iterable[date]) -> None:
        """Count as seen what the ledger says is stored on some days: somebody else may have brought it."""
        for day in days:
            for symbol, known in self._ledger.days.get(day, {}).items():
                wanted = self.symbols.get(Symbol(symbol))
                if wanted is not None and day >= wanted.begin.date() and known.stored:
                    wanted.seen.add_mask(day, known.stored)

    def handed(self) -> dict[Symbol, dict[date, int]]:
        """Return what was handed on so far: symbol → day → minutes."""
        return {symbol: dict(wanted.seen.days) for symbol, wanted in self.symbols.items()}

    def take_back_lost(self, handed: Mapping[Symbol, Mapping[date, int]]) -> int:
        """Count as missing again what was handed on and is not stored, once it had to be; return how many minutes.

        A Redis that came back empty, a stream cut at its cap, or a file that was damaged later loses rows that nobody
        else would ask for again.
        """
        lost = 0
        for symbol, days in handed.items():
            if (wanted := self.symbols.get(symbol)) is None:
                continue
            for day, minutes in days.items():
                missing = minutes & ~self._ledger.of(symbol, day).stored & wanted.seen.days.get(day, 0)
                if missing:
                    wanted.seen.days[day] &= ~missing
                    lost += missing.bit_count()
        return lost

    def untold(self, exchange: str, exchange_now: datetime) -> list[Verdict]:
        """Return what the ledger does not know yet: wanted minutes, and those of which the exchange has no candle.

        Told again until it is there, so a Redis that forgets costs nothing. Equal spans of many symbols are one event.
        """
        spans: dict[tuple[Finding, Gap], list[Symbol]] = defaultdict(list)
        for symbol, wanted in self.symbols.items():
            for finding, gap in self._untold(wanted, exchange_now):
                spans[finding, gap].append(symbol)
        return [
            Verdict(
                exchange=exchange,
                verdict=finding,
                symbols=tuple(symbols),
                begin=gap.begin,
                end=gap.end,
                known_time=exchange_now,
            )
            for (finding, gap), symbols in spans.items()
        ]

    def _untold(self, wanted: Wanted, exchange_now: datetime) -> Iterator[tuple[Finding, Gap]]:
        end = wanted.over_until(exchange_now)
        days = days_between(wanted.begin, end)
        known = {day: self._ledger.of(wanted.symbol, day) for day in days}
        unwanted = {day: known[day].wanted | wanted.unwanted.days.get(day, 0) for day in days}
        yield from (("wanted", gap) for gap in gaps_of(wanted.begin, end, lambda day: unwanted[day]))
        sets: dict[Finding, Coverage] = {
            "absent": wanted.absent,
            "halted": wanted.halted,
            "refused": wanted.refused,
            "due": wanted.due,
        }
        for finding, found in sets.items():
            for day, mask in found.days.items():
                fresh = mask & ~getattr(self._ledger.of(wanted.symbol, day), finding)
                yield from ((finding, gap) for gap in gaps_of_mask(day, fresh))

    def is_settled(self, symbol: Symbol, at: datetime) -> bool:
        """Return whether the rate of a settlement is stored."""
        return at in Coverage({at.date(): self._ledger.of(symbol, at.date()).settled})

    def missing_settlements(self) -> list[Symbol]:
        """Return the symbols of which a settlement is known to have happened whose rate is not stored."""
        return [
            symbol
            for symbol, wanted in self.symbols.items()
            if any(mask & ~self._ledger.of(symbol, day).settled for day, mask in wanted.due.days.items())
        ]

    def slide(self, exchange_now: datetime) -> None:
        """Let the windows move with time, but over no minute that the ledger cannot account for yet."""
        days = self._reach.backfill_days or self._reach.retention_days
        begin = history_begin(exchange_now, days)
        kept_from = history_begin(exchange_now, self._reach.retention_days)
        for wanted in self.symbols.values():
            wanted.forget_before(max(kept_from, self._accounted_until(wanted, begin)))

    def _accounted_until(self, wanted: Wanted, end: datetime) -> datetime:
        """Return the first minute before `end` that is wanted and without a verdict in the ledger, else `end`."""

        def accounted(day: date) -> int:
            known = self._ledger.of(wanted.symbol, day)
            return (known.wanted & ~known.missing(FULL_DAY)) | wanted.unwanted.days.get(day, 0)

        holes = gaps_of(wanted.begin, end, accounted)
        return holes[0].begin if holes else end

    def drop_done(self, exchange_now: datetime) -> list[Symbol]:
        """Let go of the symbols that left, have nothing more to come, and of which the ledger knows all; return them.

        What is found out and not told yet would be forgotten, found missing in the ledger and asked for again.
        """
        done = [
            symbol
            for symbol, wanted in self.symbols.items()
            if wanted.is_done(exchange_now) and not any(self._untold(wanted, exchange_now))
        ]
        self._ever.update(done)
        for symbol in done:
            wanted = self.symbols.pop(symbol)
            if wanted.ended is not None and wanted.until is not None and not wanted.only_healed:
                self._ended_early[symbol] = wanted.until
        return done
