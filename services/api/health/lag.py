"""Consumer lag per group, data age per symbol and channel. Pure."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from services.api.health.clock import ClockStatus, clock_status
from services.api.health.snapshot import Snapshot
from shared.bus.heartbeat import Heartbeat
from shared.grid import MINUTE


class StreamLag(BaseModel):
    """How far one group is behind on one stream."""

    stream: str
    group: str
    length: int = Field(description="Entries in the stream, finished ones that are not trimmed yet included")
    lag: int = Field(description="Entries not yet delivered to the group")
    pending: int = Field(description="Entries delivered and not acknowledged")
    oldest_age_seconds: float = Field(description="Age of the oldest entry that is lagging or pending; 0: none is")
    consumers: int


class SymbolAge(BaseModel):
    """How old the newest stored candle of a symbol is."""

    symbol: str
    member: bool = Field(description="Whether the symbol is in the universe now")
    last_candle: datetime | None = Field(description="Open time of its newest stored candle; null: none yet")
    age_seconds: float | None = Field(
        description="Seconds of the exchange's clock since the END of that candle; up to 75 is usual"
    )


class ChannelAge(BaseModel):
    """How a channel of the collector is, as its last heartbeat (at most 20 s ago) has it."""

    channel: str
    data_age_seconds: float | None = Field(description="Seconds since its newest row; null: none since the start")
    subscribed: int = Field(description="Subscriptions that the exchange acknowledged on the live connection")
    connections: int = Field(description="Connections opened since the start")
    rejected: dict[str, str] = Field(description="Instrument → the exchange's code")


class Lag(BaseModel):
    """How far behind everything is."""

    clock: ClockStatus
    groups: list[StreamLag]
    symbols: list[SymbolAge] = Field(description="Oldest first; a symbol without any candle comes before all")
    channels: list[ChannelAge]
    missing_minutes: int | None = Field(
        description="Minutes that should be there and are not, and are being fetched; null: not known"
    )
    dead_letters: int


def lag_of(snapshot: Snapshot, *, all_symbols: bool = False) -> Lag:
    """Return the lags of a snapshot that was read with Redis up."""
    return Lag(
        clock=clock_status(snapshot.clock),
        groups=[
            StreamLag(
                stream=lag.stream,
                group=lag.group,
                length=lag.length,
                lag=lag.lag,
                pending=lag.pending,
                oldest_age_seconds=lag.oldest_age_seconds,
                consumers=lag.consumers,
            )
            for lag in snapshot.lags
        ],
        symbols=symbol_ages(snapshot, all_symbols=all_symbols),
        channels=_channel_ages(snapshot),
        missing_minutes=missing_minutes(snapshot),
        dead_letters=snapshot.dead_letters,
    )


def symbol_ages(snapshot: Snapshot, *, all_symbols: bool = False) -> list[SymbolAge]:
    """Return the age of each member's newest candle, oldest first; with `all_symbols` also of those that left."""
    newest = snapshot.newest_candles
    members = set(snapshot.universe.members) if snapshot.universe else set()
    symbols = members | set(newest) if all_symbols or not members else members
    ages = [_symbol_age(symbol, newest.get(symbol), snapshot, member=symbol in members) for symbol in sorted(symbols)]
    return sorted(ages, key=lambda age: float("inf") if age.age_seconds is None else age.age_seconds, reverse=True)


def _symbol_age(symbol: str, opened: datetime | None, snapshot: Snapshot, *, member: bool) -> SymbolAge:
    age = None
    if opened is not None:
        age = max(0.0, snapshot.age_seconds(opened + MINUTE))
    return SymbolAge(symbol=symbol, member=member, last_candle=opened, age_seconds=age)


def summary(snapshot: Snapshot) -> dict[str, Any]:
    """Return lag and missing points as the few numbers of a log line; what is not known is left out."""
    if snapshot.redis_problem is not None:
        return {"redis": snapshot.redis_problem}
    ages = [age.age_seconds for age in symbol_ages(snapshot) if age.age_seconds is not None and age.member]
    behind = {
        f"{name.removesuffix('_until')}_behind_seconds": round(snapshot.age_seconds(mark))
        for name, mark in snapshot.stage_marks.items()
    }
    return {
        "missing_minutes": missing_minutes(snapshot),
        "oldest_candle_seconds": round(max(ages)) if ages else None,
        **behind,
        "unfinished_entries": {f"{lag.stream}/{lag.group}": lag.lag + lag.pending for lag in snapshot.lags},
        "oldest_entry_seconds": round(max((lag.oldest_age_seconds for lag in snapshot.lags), default=0.0)),
        "dead_letters": snapshot.dead_letters,
    }


def missing_minutes(snapshot: Snapshot) -> int | None:
    """Return how many minutes are missing by the ledger. None: not known."""
    return snapshot.ledger.open_gaps.minutes if snapshot.ledger else None


def channels(beat: Heartbeat) -> dict[str, dict[str, Any]]:
    """Return what the collector reports about each of its channels."""
    return {
        name: detail
        for name, detail in beat.details.items()
        if isinstance(detail, dict) and "data_age_seconds" in detail
    }


def _channel_ages(snapshot: Snapshot) -> list[ChannelAge]:
    beat = snapshot.heartbeats.get("collector")
    return [
        ChannelAge(
            channel=name,
            data_age_seconds=detail["data_age_seconds"],
            subscribed=detail.get("subscribed", 0),
            connections=detail.get("connections", 0),
            rejected=detail.get("rejected", {}),
        )
        for name, detail in sorted(channels(beat).items() if beat else ())
    ]
