"""What the exchange says of its instruments, on its way to the store: a row each time that it changes. Pure.

The writer says what is stored. Whatever differs from that waits here, and is published again until it is there. One odd
answer is no change: it would end the life of an instrument for good. What two looks in a row say counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from shared.datasets.instrument import ENDED_STATE, InstrumentDefinition
from shared.symbol import Symbol

AGAIN_SECONDS = 600.0
"""How long a row that was published has time to be stored before it is published again."""

type Stored = Mapping[Symbol, InstrumentDefinition]


@dataclass
class _Waiting:
    definition: InstrumentDefinition
    published: float = float("-inf")
    """Our monotonic seconds."""


@dataclass
class Definitions:
    """The newest definition of every instrument, and those that are not stored yet."""

    _stored: dict[Symbol, InstrumentDefinition] | None = None
    _waiting: dict[Symbol, list[_Waiting]] = field(default_factory=dict)
    """Those that are not stored, oldest first."""
    _seen_once: dict[Symbol, InstrumentDefinition] = field(default_factory=dict)

    def note_stored(self, stored: Stored | None) -> None:
        """Take in what the writer says is stored; None: it has not said yet."""
        if stored is None:
            return
        self._stored = dict(stored)
        for symbol, waiting in list(self._waiting.items()):
            known = stored.get(symbol)
            left = [one for one in waiting if known is None or not _holds(known, one.definition)]
            if left:
                self._waiting[symbol] = left
            else:
                del self._waiting[symbol]

    def note(self, listed: Iterable[InstrumentDefinition], gone: Mapping[str, datetime], now: datetime) -> None:
        """Take in what the exchange lists now, and which instruments ended when. now: the exchange's clock."""
        once, self._seen_once = self._seen_once, {}
        names = set()
        for fresh in listed:
            names.add(fresh.symbol)
            before = self.newest(fresh.symbol)
            if before is not None and _same(before, fresh):
                continue
            first = once.get(fresh.symbol)
            if first is not None and _same(first, fresh):
                self._note(first)
            else:
                self._seen_once[fresh.symbol] = fresh
        for name, at in gone.items():
            before = self.newest(Symbol(name)) if name not in names else None  # what is listed speaks for itself
            if before is not None and before.state != ENDED_STATE:
                self._note(msgspec.structs.replace(before, state=ENDED_STATE, end_time=at, known_time=now))

    def _note(self, fresh: InstrumentDefinition) -> None:
        before = self.newest(fresh.symbol)
        if before is None or (not _same(before, fresh) and fresh.known_time > before.known_time):
            self._waiting.setdefault(fresh.symbol, []).append(_Waiting(fresh))

    @property
    def doubtful(self) -> bool:
        """Whether something was seen once that should be looked at again soon."""
        return bool(self._seen_once)

    def newest(self, symbol: Symbol) -> InstrumentDefinition | None:
        """Return what is known of an instrument by now."""
        if waiting := self._waiting.get(symbol):
            return waiting[-1].definition
        return (self._stored or {}).get(symbol)

    def listed(self) -> dict[Symbol, datetime | None]:
        """Return the instruments that were there when they were looked at last, and the announced end of each."""
        return {symbol: one.end_time for symbol, one in (self._stored or {}).items() if one.state != ENDED_STATE}

    def due(self, seconds: float) -> list[InstrumentDefinition]:
        """Return what is to be published now: nothing before it is known what is stored. `seconds`: monotonic."""
        if self._stored is None:
            return []
        chosen = [
            one for waiting in self._waiting.values() for one in waiting if seconds - one.published >= AGAIN_SECONDS
        ]
        for one in chosen:
            one.published = seconds
        return [one.definition for one in chosen]


def _holds(stored: InstrumentDefinition, waiting: InstrumentDefinition) -> bool:
    """Return whether a definition needs no storing: it is there, a later one is, or it says nothing new."""
    return stored.known_time >= waiting.known_time or _same(stored, waiting)


def _same(one: InstrumentDefinition, other: InstrumentDefinition) -> bool:
    """Return whether two definitions say the same, whenever it was seen."""
    return msgspec.structs.replace(other, known_time=one.known_time, receive_time=one.receive_time) == one
