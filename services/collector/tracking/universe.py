"""Who is followed on a channel, as the rankings come in, and what the ledger lacks. Pure: time is an argument.

A member of the universe is wanted from BACKFILL_DAYS before today on, without an end; one that left stays wanted for a
grace time after the ranking that dropped it, so that a symbol that comes back has no hole.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from services.collector.tracking.books import Books
from services.collector.tracking.instrument import GRACE, TrackedInstrument
from shared.datasets.channel import DueInstants
from shared.datasets.ledger import CANDLES, Finding, Verdict
from shared.datasets.registry import COMPLETENESS
from shared.datasets.universe import Ranking
from shared.grid import DAY, MINUTE, ceil_minute, day_start, days_between, floor_day, floor_minute
from shared.ledger.minutes import FULL_DAY, Coverage, Gap, day_mask, gaps_of, gaps_of_mask
from shared.ledger.replica import LedgerCopy
from shared.symbol import Symbol


def history_begin(exchange_now: datetime, backfill_days: int) -> datetime:
    """Return the first wanted minute: midnight UTC so many days before today, or now where no history is wanted."""
    return floor_day(exchange_now) - backfill_days * DAY if backfill_days else floor_minute(exchange_now)


@dataclass(frozen=True)
class Reach:
    """How far back a symbol is wanted."""

    backfill_days: int
    retention_days: int = 90
    leaver_grace: timedelta = timedelta(hours=9)
    """How long one that left is followed still."""
    fill_absence: bool = True
    """Whether the time that a symbol was away for is fetched when it comes back."""


class Tracker:
    """Everything that is wanted of one dataset now, as the rankings come in."""

    def __init__(self, reach: Reach, ledger: LedgerCopy, dataset: str = CANDLES) -> None:
        self.dataset = dataset
        self._reach = reach
        self._ledger = ledger[dataset]
        self._by_instants = isinstance(COMPLETENESS[dataset], DueInstants)
        # Between two settlements nothing is due: that a symbol was collected then, only a row a minute can say.
        self._collected = ledger[CANDLES] if self._by_instants else self._ledger
        self._ranking: Ranking | None = None
        self._ranked_time: datetime | None = None
        self._members: frozenset[Symbol] = frozenset()
        self.symbols: dict[Symbol, TrackedInstrument] = {}
        self._ever: set[str] = set()
        self._books: dict[Symbol, Books] = {}
        self._ledger_changed: set[date] = set()
        self._ledger.note_changes(self._ledger_changed)
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

        An older ranking than the one in force (a pending entry read after a restart) only says who left not long ago.
        `listed`: the swaps of the exchange, each with the time of its listing; empty where that is not known.
        """
        newer = self._ranked_time is None or ranking.ranked_time > self._ranked_time
        joined: list[Symbol] = []
        if newer:
            self._ranking = ranking
            self._ranked_time, self._members = ranking.ranked_time, frozenset(ranking.members)
        for symbol in ranking.members if newer else ():
            known = self.symbols.get(symbol)
            if known is None or known.only_healed:
                # One that is only being healed begins again, like one that is not followed.
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
        for symbol in {Symbol(symbol) for symbols in self._collected.days.values() for symbol in symbols}:
            last = self._collected.last_collected(symbol)
            if last is not None and symbol in listed and symbol not in self._members:
                found[symbol] = min(last, exchange_now)
        return found

    def _new(
        self, symbol: Symbol, ranking: Ranking, exchange_now: datetime, listed: Mapping[str, datetime | None]
    ) -> TrackedInstrument:
        begin = history_begin(exchange_now, self._reach.backfill_days)
        kept_from = history_begin(exchange_now, self._reach.retention_days)
        last, since = self._collected.last_collected(symbol), self._collected.since(symbol)
        away = timedelta(0) if last is None else ranking.ranked_time - last
        returned = symbol in ranking.added and away > self._reach.leaver_grace
        if since is not None and (self._reach.fill_absence or not returned):
            # Collected before: what lies between is wanted, as far back as raw data is kept.
            begin = min(begin, max(since, kept_from))
        hole = self._ledger.first_missing(symbol, kept_from)
        begin_again, begin = begin, min(begin, hole or begin)
        if (list_time := listed.get(symbol)) is not None:
            begin = max(begin, floor_minute(list_time))
        wanted = self._known(symbol, begin)
        wanted.listed = list_time
        self._leave_out(wanted, begin_again)
        if last is not None and returned and not (self._reach.fill_absence or self._by_instants):
            wanted.unwanted.add_span(last + MINUTE, floor_minute(ranking.ranked_time))
        return wanted

    def _known(self, symbol: Symbol, begin: datetime) -> TrackedInstrument:
        """Return a symbol with what the ledger knows about it."""
        due = Coverage() if self._by_instants else None
        wanted = TrackedInstrument(symbol, begin, due=due, asked=not self._by_instants)
        for day, symbols in self._ledger.days.items():
            if symbol in symbols and day >= begin.date():
                wanted.seen.add_mask(day, symbols[symbol].stored)
                wanted.absent.add_mask(day, symbols[symbol].absent)
                wanted.halted.add_mask(day, symbols[symbol].halted)
                wanted.refused.add_mask(day, symbols[symbol].refused)
                if wanted.due is not None:
                    wanted.due.add_mask(day, symbols[symbol].wanted)
        return wanted

    def _leave_out(self, wanted: TrackedInstrument, end: datetime) -> None:
        """Leave out what was never wanted between the begin and `end`; what is due is wanted whenever it was."""
        for day in () if self._by_instants else days_between(wanted.begin, end):
            never = day_mask(day, wanted.begin, end) & ~self._ledger.of(wanted.symbol, day).wanted
            wanted.unwanted.add_mask(day, never)

    def adopt(self, exchange_now: datetime) -> list[Symbol]:
        """Take up what the ledger lacks of symbols that are not followed any more; return them.

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

        A collector reported what it wants and died; it was taken in only after its successor had read the ledger.
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
                wanted.unwanted.discard_mask(day, missing)
        return reached

    def _begin_earlier(self, wanted: TrackedInstrument, begin: datetime) -> None:
        earlier = self._known(wanted.symbol, begin)
        self._leave_out(earlier, wanted.begin)
        wanted.begin, wanted.asked = begin, earlier.asked
        for name in ("seen", "absent", "halted", "refused", "unwanted"):
            getattr(wanted, name).add_masks(getattr(earlier, name).days.items())
        if wanted.due is not None and earlier.due is not None:
            wanted.due.add_masks(earlier.due.days.items())

    def followed(self, exchange_now: datetime) -> list[Symbol]:
        """Return the symbols whose live data is wanted: members, and leavers in their grace time."""
        return sorted(
            symbol
            for symbol, wanted in self.symbols.items()
            if wanted.last is None or exchange_now < ceil_minute(wanted.last) + GRACE
        )

    def first_sighting(self, symbol: Symbol) -> bool:
        """Return True the first time that a symbol shows up which was never asked for."""
        is_new = symbol not in self._ever and symbol not in self.symbols
        self._ever.add(symbol)
        return is_new

    def end(self, symbol: Symbol, at: datetime, exchange_now: datetime) -> None:
        """Note that an instrument is no more: nothing is wanted of it after that.

        What the ledger was asked to want since then, while the end was in doubt, does not exist.
        """
        if (wanted := self.symbols.get(symbol)) is not None and (wanted.ended is None or at < wanted.ended):
            if wanted.due is None:
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
    def _take_back_end(wanted: TrackedInstrument) -> None:
        """Want again what was called absent for an end that was none."""
        if wanted.ended is not None:
            for day in [day for day in wanted.absent.days if day >= wanted.ended.date()]:
                wanted.absent.discard_mask(day, day_mask(day, wanted.ended, day_start(day) + DAY))
        wanted.ended = None

    def take_over(self, days: Iterable[date]) -> None:
        """Count as seen what the ledger says is stored on some days: somebody else may have brought it."""
        for day in days:
            for symbol, known in self._ledger.days.get(day, {}).items():
                wanted = self.symbols.get(Symbol(symbol))
                if wanted is not None and day >= wanted.begin.date() and known.stored:
                    wanted.seen.add_mask(day, known.stored)

    def published(self) -> dict[Symbol, dict[date, int]]:
        """Return what was published so far and may not be stored: symbol → day → minutes."""
        return {symbol: books.published() for symbol, books in self._all_books().items()}

    def take_back_lost(self, published: Mapping[Symbol, Mapping[date, int]]) -> int:
        """Count as missing again what was published and is not stored, once it had to be; return how many minutes.

        A Redis that came back empty, a stream cut at its cap, or a file that was damaged later loses rows that no one
        else would ask for again.
        """
        books = self._all_books()
        return sum(books[symbol].take_back_lost(days) for symbol, days in published.items() if symbol in books)

    def _all_books(self) -> Mapping[Symbol, Books]:
        """Return the books of every symbol, each of which knows what has changed in the ledger."""
        for symbol in self._books.keys() - self.symbols.keys():
            del self._books[symbol]
        for symbol, wanted in self.symbols.items():
            books = self._books.get(symbol)
            if books is None or books.wanted is not wanted:
                self._books[symbol] = Books(wanted, self._ledger)
            elif self._ledger_changed:
                books.note_ledger(self._ledger_changed)
        self._ledger_changed.clear()
        return self._books

    def pending_verdicts(self, exchange: str, exchange_now: datetime) -> list[Verdict]:
        """Return what the ledger does not know yet: wanted minutes, and those of which the exchange has no candle.

        Reported again until it is there, so a Redis that forgets costs nothing. Equal spans of many symbols are one
        event.
        """
        spans: dict[tuple[Finding, Gap], list[Symbol]] = defaultdict(list)
        for symbol, books in self._all_books().items():
            for finding, gap in books.pending(exchange_now):
                spans[finding, gap].append(symbol)
        return [
            Verdict(
                exchange=exchange,
                verdict=finding,
                about=self.dataset,
                symbols=tuple(symbols),
                begin=gap.begin,
                end=gap.end,
                known_time=exchange_now,
            )
            for (finding, gap), symbols in spans.items()
        ]

    def note_due(self, symbol: Symbol, at: datetime) -> None:
        """Note that a row was due at an instant."""
        wanted = self.symbols.get(symbol)
        if wanted is not None and wanted.due is not None and at >= wanted.begin:
            wanted.due.add(floor_minute(at))

    def note_published(self, symbol: Symbol, at: datetime) -> None:
        """Note that a row is on its way."""
        if (wanted := self.symbols.get(symbol)) is not None:
            wanted.seen.add(floor_minute(at))

    def forget(self, symbol: Symbol, at: datetime) -> None:
        """Count a row as missing again: it was dropped on its way."""
        if (wanted := self.symbols.get(symbol)) is not None:
            wanted.seen.discard(floor_minute(at))

    def is_known(self, symbol: Symbol, at: datetime) -> bool:
        """Return whether the row of an instant is stored, or on its way."""
        wanted, minute = self.symbols.get(symbol), floor_minute(at)
        if wanted is not None and minute in wanted.seen:
            return True
        return minute in Coverage({at.date(): self._ledger.of(symbol, at.date()).stored})

    def first_wanted(self, symbol: Symbol) -> datetime | None:
        """Return the first minute that was ever to be collected of a symbol; None where none was."""
        return self._ledger.first_wanted(symbol)

    def slide(self, exchange_now: datetime) -> None:
        """Let the windows move with time, but over no minute that the ledger cannot account for yet."""
        days = self._reach.backfill_days or self._reach.retention_days
        begin = history_begin(exchange_now, days)
        kept_from = history_begin(exchange_now, self._reach.retention_days)
        for wanted in self.symbols.values():
            wanted.forget_before(max(kept_from, self._accounted_until(wanted, begin)))

    def _accounted_until(self, wanted: TrackedInstrument, end: datetime) -> datetime:
        """Return the first minute before `end` that is wanted and without a verdict in the ledger, else `end`."""

        def accounted(day: date) -> int:
            known = self._ledger.of(wanted.symbol, day)
            if wanted.due is not None:
                return FULL_DAY & ~known.missing(FULL_DAY)
            return (known.wanted & ~known.missing(FULL_DAY)) | wanted.unwanted.days.get(day, 0)

        holes = gaps_of(wanted.begin, end, accounted)
        return holes[0].begin if holes else end

    def drop_done(self, exchange_now: datetime) -> list[Symbol]:
        """Let go of the symbols that left, have nothing more to come, and of which the ledger knows all; return them.

        What is found out and not reported yet would be forgotten, found missing in the ledger and asked for again.
        """
        over = [symbol for symbol, wanted in self.symbols.items() if wanted.is_done(exchange_now)]
        books = self._all_books() if over else {}
        done = [symbol for symbol in over if not any(books[symbol].pending(exchange_now))]
        self._ever.update(done)
        for symbol in done:
            wanted = self.symbols.pop(symbol)
            if wanted.ended is not None and wanted.until is not None and not wanted.only_healed:
                self._ended_early[symbol] = wanted.until
        return done
