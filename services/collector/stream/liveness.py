"""Does every subscription live? Acks, rejections and rows, matched against what was asked. Pure: time is an argument.

All times are monotonic wall seconds: with an exchange clock that runs faster, rows only come sooner. A subscription is
judged by rows of its own instrument; pongs and the rows of others prove nothing about it.

A spell is the time in which an instrument is in trouble. It outlives the connection, so that what was tried is known:
renewed again and again with growing waits; after some renewals that did not help, moved once to a new connection; from
then on only renewed slowly. It is over when the instrument has been giving rows for longer than its silence limit: a
subscription that is renewed may be answered by the last row of an instrument that is not traded.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from shared.backoff import backoff_seconds

_WORD = re.compile(r"[A-Za-z0-9_-]+")


class State(StrEnum):
    """What is known of a subscription on its connection."""

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
class Limits:
    """When patience ends, in seconds of wall time, and how long to wait before the next try."""

    silence_seconds: float
    """Without a row of an instrument for this long its subscription is silent."""
    connection_seconds: float
    """Without any row for this long a connection of many is dead, one of a few after `silence_seconds`: of a few, none
    may be traded for a minute. Doubled for each connection before it that brought none either."""
    many: int = 10
    ack_seconds: float = 10.0
    """An ack takes a round trip, also where hundreds are asked for at once."""
    renew_first_seconds: float = 20.0
    """The wait after the first renewal; the forming candle and the current rate come at once where it helped."""
    renew_cap_seconds: float = 900.0
    """The longest wait: a suspension may last for days."""
    rejected_cap_seconds: float = 60.0
    """The longest wait after a rejection: a new listing takes subscriptions from five minutes before it on."""
    renewals_before_new_connection: int = 3
    batch_seconds: float = 20.0
    """Between two rounds of renewals on one connection. A round is at most two frames, so renewals take at most 360 of
    the 480 operations that an hour has, and changes of the set find room."""
    new_connection_seconds: float = 300.0
    """The least age at which a connection is replaced for the sake of single instruments."""
    connection_cap: float = 16.0
    """The most by which that patience is multiplied."""


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

    def open(self) -> bool:
        """Return whether the trouble is there now."""
        return self.healed is None


class Liveness:
    """The subscriptions of one channel on one connection; the spells are handed on from connection to connection."""

    def __init__(self, limits: Limits, spells: dict[str, Spell]) -> None:
        self._limits = limits
        self._subscriptions: dict[str, _Subscription] = {}
        self.spells = spells
        self.last_row: float | None = None

    @property
    def asked_for(self) -> set[str]:
        """Return the instruments that a subscription was sent for."""
        return set(self._subscriptions)

    def answered(self) -> int:
        """Return how many subscriptions were acknowledged, by an ack or by a row."""
        return sum(subscription.answered for subscription in self._subscriptions.values())

    def settled(self, now: float) -> bool:
        """Return whether everything that was asked has an answer, or had its time."""
        return all(
            asked.answered or asked.code is not None or now - asked.asked > self._limits.ack_seconds
            for asked in self._subscriptions.values()
        )

    def ask(self, inst_ids: Iterable[str], now: float) -> None:
        """Note that subscriptions were sent."""
        for inst_id in inst_ids:
            self._subscriptions[inst_id] = _Subscription(now)

    def let_go(self, inst_ids: Iterable[str]) -> None:
        """Forget instruments that are not wanted any more."""
        for inst_id in inst_ids:
            self._subscriptions.pop(inst_id, None)
            self.spells.pop(inst_id, None)

    def forget_unanswered(self) -> list[str]:
        """Forget what was asked and not answered: the exchange refused the request as a whole; return it."""
        unanswered = [
            inst_id for inst_id, asked in self._subscriptions.items() if not asked.answered and asked.code is None
        ]
        for inst_id in unanswered:
            del self._subscriptions[inst_id]
        return unanswered

    def acknowledge(self, inst_id: str, now: float) -> None:
        """Take an ack. It ends what a missing ack or a rejection began; silence is ended by rows alone."""
        if (subscription := self._subscriptions.get(inst_id)) is None:
            return
        subscription.acked, subscription.code = now, None
        spell = self.spells.get(inst_id)
        if spell is not None and spell.reason is not Reason.SILENT:
            self._heal(inst_id, spell, now)

    def row(self, inst_id: str, now: float) -> None:
        """Take a row, forming or closed."""
        if (subscription := self._subscriptions.get(inst_id)) is None:
            return  # the last rows of a subscription that was just given up
        self.last_row = subscription.row = now
        subscription.code = None
        if (spell := self.spells.get(inst_id)) is not None:
            self._heal(inst_id, spell, now)

    def _heal(self, inst_id: str, spell: Spell, now: float) -> None:
        if spell.healed is None:
            spell.healed = now
        elif now - spell.healed > self._limits.silence_seconds:
            del self.spells[inst_id]

    def reject(self, code: str, text: str, now: float, *, roll: float | None = None) -> list[str]:
        """Take a rejection, which names its instrument only inside its text; return whom it concerns.

        Names are matched as whole words: SATS-USDT-SWAP is not in 1000SATS-USDT-SWAP.
        """
        concerned = []
        for inst_id in sorted(set(_WORD.findall(text)) & self._subscriptions.keys()):
            subscription = self._subscriptions[inst_id]
            if not subscription.answered:
                subscription.code = code
                concerned.append(inst_id)
                self._trouble(inst_id, Reason.REJECTED, now, roll=roll)
        return concerned

    def state(self, inst_id: str, now: float) -> State | None:
        """Return the state of a subscription, None where none was asked for."""
        if (subscription := self._subscriptions.get(inst_id)) is None:
            return None
        if subscription.code is not None:
            return State.REJECTED
        spell = self.spells.get(inst_id)
        if spell is not None and spell.open() and spell.reason is Reason.SILENT:
            return State.SILENT
        if not subscription.answered:
            return State.ASKED
        return State.SILENT if now - subscription.newest > self._limits.silence_seconds else State.LIVE

    def look(self, now: float, *, roll: float | None = None) -> None:
        """Find missing acks and silence."""
        for inst_id, subscription in self._subscriptions.items():
            if subscription.code is not None:
                continue
            if not subscription.answered:
                if now - subscription.asked > self._limits.ack_seconds:
                    self._trouble(inst_id, Reason.UNACKNOWLEDGED, now, roll=roll)
            elif now - subscription.newest > self._limits.silence_seconds:
                self._trouble(inst_id, Reason.SILENT, now, roll=roll)

    def _trouble(self, inst_id: str, reason: Reason, now: float, *, roll: float | None) -> None:
        code = self._subscriptions[inst_id].code
        spell = self.spells.get(inst_id)
        if spell is None:
            wait = self._wait(reason, 0, roll) if reason is Reason.REJECTED else 0.0
            self.spells[inst_id] = Spell(reason, code, now, now + wait)
            return
        if not spell.open():  # it did not last: go on where it was left
            spell.healed = None
            spell.not_before = max(spell.not_before, now + self._wait(reason, spell.renewals, roll))
        if reason is Reason.REJECTED:
            spell.not_before = min(spell.not_before, now + self._wait(reason, spell.renewals, roll))
        if not (spell.reason is Reason.SILENT and reason is Reason.UNACKNOWLEDGED):  # silent says more
            spell.reason, spell.code = reason, code

    def _wait(self, reason: Reason, renewals: int, roll: float | None) -> float:
        limits = self._limits
        cap = limits.rejected_cap_seconds if reason is Reason.REJECTED else limits.renew_cap_seconds
        return backoff_seconds(renewals, first=limits.renew_first_seconds, cap=cap, roll=roll)

    def due(self, now: float, is_expected_silent: Callable[[str], bool], most: int) -> dict[str, Reason]:
        """Return whom to subscribe anew now and why, those that wait longest first, at most so many."""
        due = sorted(
            (spell.not_before, inst_id)
            for inst_id, spell in self.spells.items()
            if spell.open() and spell.not_before <= now and inst_id in self._subscriptions
        )
        found = (inst_id for _, inst_id in due if not is_expected_silent(inst_id))
        return {inst_id: self.spells[inst_id].reason for inst_id, _ in zip(found, range(most), strict=False)}

    def renewed(self, inst_ids: Iterable[str], now: float, *, roll: float | None = None) -> None:
        """Note that subscriptions were sent again; the next time is later."""
        for inst_id in inst_ids:
            spell = self.spells[inst_id]
            spell.not_before = now + self._wait(spell.reason, spell.renewals, roll)
            spell.renewals += 1
            self._subscriptions[inst_id] = _Subscription(now)

    def to_move(self, now: float, is_expected_silent: Callable[[str], bool]) -> list[str]:
        """Return who needs a new connection, since renewing did not help; a rejection is no matter of connections."""
        return sorted(
            inst_id
            for inst_id, spell in self.spells.items()
            if spell.open()
            and not spell.moved
            and spell.reason is not Reason.REJECTED
            and spell.renewals >= self._limits.renewals_before_new_connection
            and spell.not_before <= now
            and not is_expected_silent(inst_id)
        )

    def moved(self, now: float, *, roll: float | None = None) -> None:
        """Note that all get a new connection. Whoever is in trouble had his: from now on he is renewed slowly."""
        for spell in self.spells.values():
            if spell.open() and spell.reason is not Reason.REJECTED:
                spell.moved = True
                many = self._limits.renewals_before_new_connection + spell.renewals
                spell.not_before = now + self._wait(spell.reason, many, roll)

    def dead(self, now: float, fruitless: int, is_expected_silent: Callable[[str], bool]) -> str | None:
        """Return why the connection as a whole is dead, None where it lives.

        `fruitless`: how many connections before it brought no row. One that holds only instruments of which nothing is
        expected is never dead.
        """
        expected = [
            subscription
            for inst_id, subscription in self._subscriptions.items()
            if subscription.code is None and not is_expected_silent(inst_id)
        ]
        if not expected:
            return None
        oldest = min(subscription.asked for subscription in expected)
        if self.last_row is None and not any(subscription.answered for subscription in self._subscriptions.values()):
            waited = now - oldest
            return f"nothing answered for {waited:.0f} s" if waited > self._limits.ack_seconds * 1.5 else None
        quiet = now - (self.last_row or oldest)
        limits = self._limits
        limit = limits.connection_seconds if len(expected) >= limits.many else limits.silence_seconds
        limit *= min(2.0**fruitless, limits.connection_cap)
        return f"no data for {quiet:.0f} s" if quiet > limit else None


class Budget:
    """At most so many operations within so many seconds, counted as a sliding window, as the exchange does."""

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
