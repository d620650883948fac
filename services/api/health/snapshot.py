"""The state of the bus and of the exchange's clock at one moment, read in bounded time. I/O."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import RedisDsn

from services.api.completeness.days import LedgerView, arrived_until
from services.api.completeness.reader import LedgerReader
from services.api.health.cadence import cadence_of
from services.api.health.clock import ClockReading, read_clock
from shared.bus.bus import Bus
from shared.bus.connection import BusError, Memory, failure_of
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import GroupLag
from shared.clock import ExchangeClock
from shared.datasets.universe import Ranking
from shared.runtime.service import Health

SERVICES = ("ranker", "collector", "writer", "converter")
"""The services that must run for the system to work, in the order of the data flow."""
API = "api"

REDIS_TIMEOUT_SECONDS = 2.5
"""How long one request waits for Redis: longer than a hiccup of a local one, shorter than a probe's usual 3 s."""

RECENT_SECONDS = 600.0
"""A dead letter younger than this means that something is wrong now."""

_NEWEST = "newest:"
"""Watermarks of this name hold the open time of a symbol's newest stored candle."""


class BusSilentError(Exception):
    """Redis did not answer; the text is a sentence for a person, and holds no password."""


@dataclass(frozen=True)
class Sources:
    """Where the answers come from."""

    bus: Bus
    redis_name: str
    """host:port, for sentences: the URL itself may hold a password."""
    clock: ExchangeClock
    health: Health
    """The api's own."""
    data_dir: Path
    qlib_dir: Path
    ledger: LedgerReader

    async def ask[T](self, answer: Awaitable[T]) -> T:
        """Wait for an answer of the bus, at most `REDIS_TIMEOUT_SECONDS`. Raises `BusSilentError`."""
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                return await answer
        except TimeoutError as error:
            raise BusSilentError(
                f"Redis at {self.redis_name} does not answer within {REDIS_TIMEOUT_SECONDS:g} s"
            ) from error
        except (BusError, OSError) as error:
            raise BusSilentError(f"Redis at {self.redis_name} {failure_of(error)}") from error


def redis_name(url: RedisDsn) -> str:
    """Return host:port of a Redis, without its password."""
    return f"{url.host or '127.0.0.1'}:{url.port or 6379}"


@dataclass(frozen=True)
class Snapshot:
    """Everything that states and alerts depend on, at one moment."""

    clock: ClockReading
    problems: Mapping[str, str] = field(default_factory=dict)
    """The api's own open causes."""
    redis_problem: str | None = None
    """Why nothing below is known."""
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    """Services that have a heartbeat which cannot be read."""
    lags: tuple[GroupLag, ...] = ()
    watermarks: Mapping[str, datetime] = field(default_factory=dict)
    universe: Ranking | None = None
    dead_letters: int = 0
    recent_dead_letters: Mapping[str, int] = field(default_factory=dict)
    """Origin → how many inputs were set aside within the last `RECENT_SECONDS`."""
    memory: Memory | None = None
    """Of Redis."""
    ledger: LedgerView | None = None
    """The ledger of every day on the bus; None: not known (yet)."""

    @property
    def arrived_until(self) -> datetime:
        """Minutes that open from here on are still on their way to the disk."""
        return _arrived_until(self.clock, self.heartbeats)

    @property
    def stage_marks(self) -> dict[str, datetime]:
        """Watermarks of stages, such as `written_until`: up to when each is complete."""
        return {name: mark for name, mark in self.watermarks.items() if not name.startswith(_NEWEST)}

    @property
    def newest_candles(self) -> dict[str, datetime]:
        """Symbol → open time of its newest stored candle."""
        marks = self.watermarks.items()
        return {name.removeprefix(_NEWEST): mark for name, mark in marks if name.startswith(_NEWEST)}

    def age_seconds(self, at: datetime) -> float:
        """Return the seconds of the exchange's clock since an instant."""
        return (self.clock.exchange_time - at).total_seconds()


async def read_snapshot(sources: Sources) -> Snapshot:
    """Read the bus once. With Redis down the snapshot has the reason in `redis_problem`."""
    try:
        return await sources.ask(_read(sources))
    except BusSilentError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"Redis at {sources.redis_name} holds data that this api cannot read: {error}"
    return Snapshot(clock=read_clock(sources.clock), problems=dict(sources.health.problems), redis_problem=problem)


async def _read(sources: Sources) -> Snapshot:
    bus = sources.bus
    heartbeats, unreadable = await _heartbeats(bus)
    dead_letters, _ = await bus.dead_letters(1)
    ledger = await _ledger(sources, heartbeats)  # it may open or close a problem of the api's own
    return Snapshot(
        clock=read_clock(sources.clock),
        problems=dict(sources.health.problems),
        heartbeats=heartbeats,
        unreadable=unreadable,
        lags=tuple(await bus.lags()),
        watermarks=await bus.watermarks(),
        universe=await bus.universe(),
        dead_letters=dead_letters,
        recent_dead_letters=await bus.recent_dead_letters(RECENT_SECONDS),
        memory=await bus.memory(),
        ledger=ledger,
    )


async def _ledger(sources: Sources, heartbeats: Mapping[str, Heartbeat]) -> LedgerView | None:
    """Read the ledger as far as the bus has it. An unreadable one leaves everything else readable."""
    try:
        days = await sources.ledger.on_bus(sources.bus)
    except ValueError as error:
        sources.health.problem("ledger", str(error))
        return None
    sources.health.resolve("ledger")
    return None if days is None else LedgerView(days, _arrived_until(read_clock(sources.clock), heartbeats))


def _arrived_until(clock: ClockReading, heartbeats: Mapping[str, Heartbeat]) -> datetime:
    return arrived_until(clock.exchange_time, clock.rate, cadence_of("writer", heartbeats).every_seconds)


async def _heartbeats(bus: Bus) -> tuple[dict[str, Heartbeat], frozenset[str]]:
    found, unreadable = {}, set()
    for service in (*SERVICES, API):
        try:
            beat = await bus.heartbeat(service)
        except ValueError:
            unreadable.add(service)
            continue
        if beat is not None:
            found[service] = beat
    return found, frozenset(unreadable)
