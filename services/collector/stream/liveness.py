"""Is every subscription alive? Acks, rejections and rows, matched against what was asked. Pure: time is an argument.

All times are monotonic wall seconds: with an exchange clock that runs faster, rows only come sooner. A subscription is
judged by rows of its own instrument; pongs and the rows of others prove nothing about it.

A spell is the time in which an instrument is in trouble. It outlives the connection, so that what was tried is known:
the subscription is renewed with growing waits; after some renewals that did not help, it gets a new connection once;
from then on it is only renewed slowly. The spell is over when the instrument has been giving rows for longer than its
silence limit, or the longest wait: a renewed subscription may be answered by the last row of an instrument that is not
traded.

Where an exchange rejects a request as a whole, the ones at fault are isolated by halves: each rejection halves the size
of the next requests for its symbols.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import batched, groupby

from shared.backoff import backoff_seconds
from shared.symbol import Symbol


class State(StrEnum):
    """The state of a subscription on its connection."""

    ASKED = "asked"
    LIVE = "live"
    SILENT = "silent"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why an instrument is in trouble."""

    UNACKNOWLEDGED = "unacknowledged"
    REJECTED = "rejected"
    SILENT = "silent"


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer or a row, and before the next try. In seconds of wall time."""

    silence_seconds: float
    """Without a row of an instrument for this long its subscription is silent. Infinite where silence proves nothing,
    since an instrument that is not traded has no rows: then acks and the connection as a whole have to do."""
    connection_seconds: float
    """Without any row for this long a connection of many is dead, one of a few after `silence_seconds`: of a few, none
    may be traded for a minute. Doubled for each connection before it that brought none either."""
    many: int = 10
    """From so many instruments on a connection holds many."""
    ack_seconds: float = 10.0
    """An ack takes a round trip, also where hundreds are asked for at once."""
    renew_first_seconds: float = 20.0
    """The wait after the first renewal; where it helped, the partial candle or the current rate comes at once."""
    renew_cap_seconds: float = 900.0
    """The longest wait: a suspension may last for days."""
    rejected_cap_seconds: float = 60.0
    """The longest wait after a rejection: a new listing takes subscriptions from five minutes before it on."""
    renewals_before_new_connection: int = 3
    batch_seconds: float = 20.0
    """Between two rounds of renewals on one connection. A round is at most two requests, so renewals take at most 360
    an hour; of more (`Stream.requests_per_hour`), the rest is left for changes of the set."""
    new_connection_seconds: float = 300.0
    """The least age at which a connection is replaced for the sake of single instruments."""
    connection_cap: float = 16.0
    """The largest factor by which `connection_seconds` grows."""


@dataclass
class _Subscription:
    asked: float
    acked: float | None = None
    row: float | None = None
    code: str | None = None
    """The exchange's code, where it was rejected."""

    @property
    def answered(self) -> bool:
        """A row proves more than an ack, which may be lost."""
        return self.acked is not None or self.row is not None

    @property
    def newest(self) -> float:
        return max(self.asked, self.acked or self.asked, self.row or self.asked)


@dataclass
class Spell:
    """An instrument in trouble: why, since when, and what was tried."""

    reason: Reason
    code: str | None
    since: float
    not_before: float
    """No renewal before this."""
    renewals: int = 0
    moved: bool = False
    """Whether it had its new connection."""
    healed: float | None = None
    """When it answered again; it still has to show that it lasts."""
    most: int | None = None
    """The size of a request that may hold it, while the ones at fault in a rejected request are isolated."""

    def open(self) -> bool:
        """Return whether the trouble is there now."""
        return self.healed is None

    def halve(self, size: int, now: float) -> None:
        """Note that it was rejected with its whole request of `size`; a half is a new question and need not wait."""
        self.most = (size + 1) // 2
        if size > 1:
            self.not_before = now


class Liveness:
    """The subscriptions of one channel on one connection; the next connection takes the spells over."""

    def __init__(self, patience: Patience, spells: dict[Symbol, Spell]) -> None:
        self._patience = patience
        self._subscriptions: dict[Symbol, _Subscription] = {}
        self.spells = spells
        self.last_row: float | None = None

    @property
    def asked_for(self) -> set[Symbol]:
        """Return the instruments that a subscription was sent for."""
        return set(self._subscriptions)

    def answered(self) -> int:
        """Return how many subscriptions were acknowledged, by an ack or by a row."""
        return sum(subscription.answered for subscription in self._subscriptions.values())

    def settled(self, now: float) -> bool:
        """Return whether every request was answered, or had its time."""
        return all(
            asked.answered or asked.code is not None or now - asked.asked > self._patience.ack_seconds
            for asked in self._subscriptions.values()
        )

    def ask(self, symbols: Iterable[Symbol], now: float) -> None:
        """Note that subscriptions were sent."""
        for symbol in symbols:
            self._subscriptions[symbol] = _Subscription(now)

    def forget(self, symbols: Iterable[Symbol]) -> None:
        """Forget instruments that are not wanted any more."""
        for symbol in symbols:
            self._subscriptions.pop(symbol, None)
            self.spells.pop(symbol, None)

    def forget_unanswered(self) -> list[Symbol]:
        """Forget what was asked and not answered: the exchange refused the request as a whole; return it."""
        unanswered = [
            symbol for symbol, asked in self._subscriptions.items() if not asked.answered and asked.code is None
        ]
        for symbol in unanswered:
            del self._subscriptions[symbol]
        return unanswered

    def acknowledge(self, symbol: Symbol, now: float) -> None:
        """Take an ack. It ends the trouble of a missing ack or a rejection; only rows end silence."""
        if (subscription := self._subscriptions.get(symbol)) is None:
            return
        subscription.acked, subscription.code = now, None
        spell = self.spells.get(symbol)
        if spell is not None and spell.reason is not Reason.SILENT:
            self._heal(symbol, spell, now)

    def row(self, symbol: Symbol, now: float) -> None:
        """Take a row that was a sign of life."""
        if (subscription := self._subscriptions.get(symbol)) is None:
            return  # one of the last rows after an unsubscription
        self.last_row = subscription.row = now
        subscription.code = None
        if (spell := self.spells.get(symbol)) is not None:
            self._heal(symbol, spell, now)

    def _heal(self, symbol: Symbol, spell: Spell, now: float) -> None:
        if spell.healed is None:
            spell.healed = now
        elif now - spell.healed > min(self._patience.silence_seconds, self._patience.renew_cap_seconds):
            del self.spells[symbol]

    def reject(
        self, symbols: Collection[Symbol], code: str, now: float, *, together: bool = False, roll: float | None = None
    ) -> list[Symbol]:
        """Take a rejection; return those that it concerns: asked for, and not answered yet.

        together: these are a whole request, rejected because of some of them.
        """
        concerned = []
        for symbol in sorted(symbols):
            subscription = self._subscriptions.get(symbol)
            if subscription is None or subscription.answered:
                continue
            subscription.code = code
            concerned.append(symbol)
            self._trouble(symbol, Reason.REJECTED, now, roll=roll)
            if together:
                self.spells[symbol].halve(len(symbols), now)
        return concerned

    def state(self, symbol: Symbol, now: float) -> State | None:
        """Return the state of a subscription, None where none was asked for."""
        if (subscription := self._subscriptions.get(symbol)) is None:
            return None
        if subscription.code is not None:
            return State.REJECTED
        spell = self.spells.get(symbol)
        if spell is not None and spell.open() and spell.reason is Reason.SILENT:
            return State.SILENT
        if not subscription.answered:
            return State.ASKED
        return State.SILENT if now - subscription.newest > self._patience.silence_seconds else State.LIVE

    def scan(self, now: float, *, roll: float | None = None) -> None:
        """Find missing acks and silence."""
        for symbol, subscription in self._subscriptions.items():
            if subscription.code is not None:
                continue
            if not subscription.answered:
                if now - subscription.asked > self._patience.ack_seconds:
                    self._trouble(symbol, Reason.UNACKNOWLEDGED, now, roll=roll)
            elif now - subscription.newest > self._patience.silence_seconds:
                self._trouble(symbol, Reason.SILENT, now, roll=roll)

    def _trouble(self, symbol: Symbol, reason: Reason, now: float, *, roll: float | None) -> None:
        code = self._subscriptions[symbol].code
        spell = self.spells.get(symbol)
        if spell is None:
            wait = self._wait(reason, 0, roll) if reason is Reason.REJECTED else 0.0
            self.spells[symbol] = Spell(reason, code, now, now + wait)
            return
        if not spell.open():  # the recovery did not last: continue the spell
            spell.healed = None
            spell.not_before = max(spell.not_before, now + self._wait(reason, spell.renewals, roll))
        if reason is Reason.REJECTED:
            spell.not_before = min(spell.not_before, now + self._wait(reason, spell.renewals, roll))
        if not (spell.reason is Reason.SILENT and reason is Reason.UNACKNOWLEDGED):  # silent says more
            spell.reason, spell.code = reason, code

    def _wait(self, reason: Reason, renewals: int, roll: float | None) -> float:
        patience = self._patience
        cap = patience.rejected_cap_seconds if reason is Reason.REJECTED else patience.renew_cap_seconds
        return backoff_seconds(renewals, first=patience.renew_first_seconds, cap=cap, roll=roll)

    def requests(self, symbols: Iterable[Symbol], most: int) -> Iterator[tuple[Symbol, ...]]:
        """Cut symbols into requests of at most `most`, and of less while the ones at fault are isolated."""
        sized = sorted((self._most(symbol, most), symbol) for symbol in symbols)
        for size, group in groupby(sized, key=lambda one: one[0]):
            yield from batched((symbol for _, symbol in group), size, strict=False)

    def _most(self, symbol: Symbol, most: int) -> int:
        spell = self.spells.get(symbol)
        return most if spell is None or spell.most is None else min(most, spell.most)

    def due(self, now: float, is_expected_silent: Callable[[Symbol], bool], most: int) -> dict[Symbol, Reason]:
        """Return up to `most` instruments due for resubscription and why, longest waiting first: one request."""
        waiting = sorted(
            (spell.not_before, symbol)
            for symbol, spell in self.spells.items()
            if spell.open() and spell.not_before <= now and symbol in self._subscriptions
        )
        due: dict[Symbol, Reason] = {}
        for _, symbol in waiting:
            if is_expected_silent(symbol):
                continue
            most = self._most(symbol, most)
            if len(due) >= most:
                break
            due[symbol] = self.spells[symbol].reason
        return due

    def renewed(self, symbols: Iterable[Symbol], now: float, *, roll: float | None = None) -> None:
        """Note that subscriptions were sent again; the next renewal waits longer."""
        for symbol in symbols:
            spell = self.spells[symbol]
            spell.not_before = now + self._wait(spell.reason, spell.renewals, roll)
            spell.renewals += 1
            self._subscriptions[symbol] = _Subscription(now)

    def to_move(self, now: float, is_expected_silent: Callable[[Symbol], bool]) -> list[Symbol]:
        """Return those that need a new connection, since renewals did not help; against a rejection it would not."""
        return sorted(
            symbol
            for symbol, spell in self.spells.items()
            if spell.open()
            and not spell.moved
            and spell.reason is not Reason.REJECTED
            and spell.renewals >= self._patience.renewals_before_new_connection
            and spell.not_before <= now
            and not is_expected_silent(symbol)
        )

    def moved(self, now: float, *, roll: float | None = None) -> None:
        """Note that all get a new connection. For those in trouble it was the only one: now they are renewed slowly."""
        for spell in self.spells.values():
            if spell.open() and spell.reason is not Reason.REJECTED:
                spell.moved = True
                many = self._patience.renewals_before_new_connection + spell.renewals
                spell.not_before = now + self._wait(spell.reason, many, roll)

    def dead(self, now: float, fruitless: int, is_expected_silent: Callable[[Symbol], bool]) -> str | None:
        """Return why the connection as a whole is dead, None while it is alive.

        fruitless: how many connections before it brought no row. A connection that holds only instruments of which
        nothing is expected is never dead.
        """
        expected = [
            subscription
            for symbol, subscription in self._subscriptions.items()
            if subscription.code is None and not is_expected_silent(symbol)
        ]
        if not expected:
            return None
        oldest = min(subscription.asked for subscription in expected)
        if self.last_row is None and not any(subscription.answered for subscription in self._subscriptions.values()):
            waited = now - oldest
            return f"nothing answered for {waited:.0f} s" if waited > self._patience.ack_seconds * 1.5 else None
        quiet = now - (self.last_row or oldest)
        patience = self._patience
        limit = patience.connection_seconds if len(expected) >= patience.many else patience.silence_seconds
        limit *= min(2.0**fruitless, patience.connection_cap)
        return f"no data for {quiet:.0f} s" if quiet > limit else None


class Budget:
    """At most `limit` operations within `seconds`, counted as a sliding window, as exchanges do."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Count an operation and return True, or return False where there is no room."""
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if len(self._taken) >= self._limit:
            return False
        self._taken.append(now)
        return True
