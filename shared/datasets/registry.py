"""Which datasets and events there are, and how an event is encoded and decoded."""

import types
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from shared.datasets.channel import Completeness
from shared.datasets.channels import CHANNELS
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow, Verdict
from shared.datasets.row import Event, Row
from shared.datasets.universe import Rank, Ranking
from shared.symbol import Symbol, parse_symbol

type AnyEvent = Event | Verdict | Ranking


_OF_CHANNELS: tuple[type[Event], ...] = tuple(kind for channel in CHANNELS.values() for kind in channel.events)


EVENTS: tuple[type[AnyEvent], ...] = (*_OF_CHANNELS, InstrumentDefinition, Verdict, Ranking)


BY_NAME: dict[str, type[AnyEvent]] = {event.name: event for event in EVENTS}


ROWS: tuple[type[Row], ...] = (*_OF_CHANNELS, Rank, InstrumentDefinition, LedgerRow)


COMPLETENESS: dict[str, Completeness] = {
    kind.dataset: rule for channel in CHANNELS.values() for kind, rule in channel.events.items() if rule is not None
}
"""Dataset → when it is complete, of those that the ledger keeps account of."""


BY_DATASET: dict[str, type[Row]] = {row.dataset: row for row in ROWS}


class UndecodableError(ValueError):
    """An entry that is no event: the text says which field is wrong and why."""


def rows_of(event: AnyEvent) -> tuple[Row, ...]:
    """Return the rows that an event leaves on disk. A verdict leaves none of its own: it changes rows of the ledger."""
    if isinstance(event, Ranking):
        return event.ranks
    return () if isinstance(event, Verdict) else (event,)


def symbols_of(event: AnyEvent) -> tuple[Symbol, ...]:
    """Return every symbol that an event names."""
    if isinstance(event, Ranking):
        return (*event.members, *event.added, *event.removed, *(place.symbol for place in event.ranks))
    return event.symbols if isinstance(event, Verdict) else (event.symbol,)


@cache
def columns_of(kind: type[Row]) -> dict[str, tuple[type, bool]]:
    """Return the columns of a dataset in the declared order: name → (plain Python type, whether it may be absent)."""
    hints = get_type_hints(kind)
    return {name: _plain_type(hints[name]) for name in kind.__struct_fields__}


def _plain_type(hint: Any) -> tuple[type, bool]:
    hint = getattr(hint, "__supertype__", hint)  # Symbol is a str
    if get_origin(hint) in {Union, types.UnionType}:
        (inner,) = (argument for argument in get_args(hint) if argument is not type(None))
        return inner, True
    return (type(get_args(hint)[0]) if get_origin(hint) is Literal else hint), False


def encode(event: AnyEvent) -> dict[str, str]:
    """Spell an event as flat text fields, readable in redis-cli. Absent values are left out; floats round-trip."""
    if (flat := _flat(type(event))) is not None:
        return flat.encode(event)
    fields = {"event": event.name}
    for name, value in msgspec.to_builtins(event).items():
        if value is not None:
            fields[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return fields


class _Flat:
    """Spells events of a kind whose every field is there and holds one value: candles, of which there are most."""

    def __init__(self, kind: type[AnyEvent], texts: Sequence[str], others: Sequence[str]) -> None:
        self._empty = {"event": kind.name} | dict.fromkeys(kind.__struct_fields__, "")
        self._texts, self._others = texts, others
        self._texts_of, self._others_of = attrgetter(*texts), attrgetter(*others)

    def encode(self, event: AnyEvent) -> dict[str, str]:
        """Spell an event. Numbers and times are spelled at once: neither has a comma, nor a quote inside."""
        fields = self._empty.copy()
        fields.update(zip(self._texts, self._texts_of(event), strict=True))
        spelled = _encode_json(self._others_of(event)).decode()[1:-1].replace('"', "")
        fields.update(zip(self._others, spelled.split(","), strict=True))
        return fields


_encode_json = msgspec.json.Encoder().encode


@cache
def _flat(kind: type[AnyEvent]) -> _Flat | None:
    """Return how events of a kind are spelled at once; None where a field may be absent, or holds more than a value."""
    if not issubclass(kind, Event):
        return None
    columns = columns_of(kind)
    texts = [name for name, (plain, _) in columns.items() if plain is str]
    others = [name for name, (plain, _) in columns.items() if plain in {int, float, datetime}]
    whole = len(texts) + len(others) == len(columns) and not any(absent for _, absent in columns.values())
    return _Flat(kind, texts, others) if whole and min(len(texts), len(others)) > 1 else None


def decode(fields: dict[str, str]) -> AnyEvent:
    """Read an event back, checking every field against its declaration.

    Raises:
        UndecodableError: no such event, or a field is missing, of the wrong type, no symbol, or a time without a zone.

    """
    kind = BY_NAME.get(fields.get("event", ""))
    if kind is None:
        raise UndecodableError(f"event: {fields.get('event')!r} is none of {', '.join(BY_NAME)}")
    nested = _nested_fields(kind)
    try:
        values: dict[str, Any] = {
            name: msgspec.json.decode(value) if name in nested else value
            for name, value in fields.items()
            if name != "event"
        }
        event = msgspec.convert(values, kind, strict=False)
        for symbol in symbols_of(event):
            parse_symbol(symbol)
        if isinstance(event, Ranking):
            event = msgspec.structs.replace(event, ranks=tuple(_in_utc(rank) for rank in event.ranks))
        return _in_utc(event)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"{kind.name}: {error}") from error


class _ZoneError(ValueError):
    """A time that is no instant."""


def _in_utc[S: msgspec.Struct](declared: S) -> S:
    """Bring every time to UTC. Raises `_ZoneError` for one without a zone: it could mean any of some 24 instants."""
    changes = {}
    for name in _times(type(declared)):
        instant = getattr(declared, name)
        if instant is None or instant.tzinfo is UTC:
            continue
        if instant.tzinfo is None:
            raise _ZoneError(f"{name}: {instant.isoformat()} has no time zone")
        try:
            changes[name] = instant.astimezone(UTC)
        except OverflowError as error:
            raise _ZoneError(f"{name}: {instant.isoformat()} is out of range in UTC") from error
    return msgspec.structs.replace(declared, **changes) if changes else declared


@cache
def _times(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields that hold an instant."""
    return tuple(name for name, hint in get_type_hints(kind).items() if hint in (datetime, datetime | None))


@cache
def _nested_fields(kind: type[AnyEvent]) -> frozenset[str]:
    """Return the fields that hold more than one value: they travel as JSON."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if get_origin(hint) is tuple)
