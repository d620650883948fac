"""What the bus and the exchange's clock say at one moment, read in bounded time. I/O."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import RedisDsn

from services.api.completeness.days import Books, arrived_until
from services.api.completeness.reader import LedgerReader
from services.api.health.cadence import cadence_of
from shared.bus.bus import Bus
from shared.bus.connection import BusError, Memory, failure_of
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import GroupLag
from shared.clock import ExchangeClock
from shared.datasets.universe import Ranking
from shared.runtime.service import Health

SERVICES = ("ranker", "collector", "writer", "converter")
"""Who must beat for the system to work, in the order of the data's way."""
API = "api"

PATIENCE_SECONDS = 2.5
"""How long one request waits for Redis: longer than any hiccup of a local one, shorter than a probe's usual 3 s."""

RECENT_SECONDS = 600.0
"""A dead letter younger than this says that something is wrong now."""


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
        """Wait for an answer of the bus, but not for long. Raises `BusSilentError`."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        except TimeoutError as error:
            raise BusSilentError(f"Redis at {self.redis_name} does not answer within {PATIENCE_SECONDS:g} s") from error
        except (BusError, OSError) as error:
            raise BusSilentError(f"Redis at {self.redis_name} {failure_of(error)}") from error


def redis_name(url: RedisDsn) -> str:
    """Name a Redis without its password."""
    return f"{url.host or '127.0.0.1'}:{url.port or 6379}"


@dataclass(frozen=True)
class ClockReading:
    """What the exchange's clock shows."""

    exchange_time: datetime
    offset_seconds: float
    """How far the exchange's clock is ahead of the host's."""
    rate: float
    """Seconds that pass at the exchange in one of ours; 1, but for a simulator in a hurry."""
    measured: bool
    """False: nobody could ask the exchange yet, and this is the host's clock."""


@dataclass(frozen=True)
class Snapshot:
    """Everything the verdicts depend on, at one moment."""

    clock: ClockReading
    problems: Mapping[str, str] = field(default_factory=dict)
    """The api's own open causes."""
    redis_problem: str | None = None
    """Why nothing below is known."""
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    """Services whose heartbeat is there and makes no sense."""
    lags: tuple[GroupLag, ...] = ()
    watermarks: Mapping[str, datetime] = field(default_factory=dict)
    universe: Ranking | None = None
    dead_letters: int = 0
    recent_dead_letters: Mapping[str, int] = field(default_factory=dict)
    """Origin → how many inputs were set aside within the last `RECENT_SECONDS`."""
    memory: Memory | None = None
    """Of Redis."""
    books: Books | None = None
    """What the ledger says; None: nobody can tell (yet)."""

    @property
    def arrived_until(self) -> datetime:
        """Minutes that open from here on are still on their way to the disk."""
        return _arrived_until(self.clock, self.heartbeats)


async def read_snapshot(sources: Sources) -> Snapshot:
    """Read the bus once. It answers with Redis down, too, and says so in `redis_problem`."""
    try:
        return await sources.ask(_read(sources))
    except BusSilentError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"Redis at {sources.redis_name} holds what makes no sense here: {error}"
    return Snapshot(clock=read_clock(sources.clock), problems=dict(sources.health.problems), redis_problem=problem)


async def _read(sources: Sources) -> Snapshot:
    bus = sources.bus
    heartbeats, unreadable = await _heartbeats(bus)
    dead_letters, _ = await bus.dead_letters(1)
    books = await _books(sources, heartbeats)  # it may open or close a problem of the api's own
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
        books=books,
    )


async def _books(sources: Sources, heartbeats: Mapping[str, Heartbeat]) -> Books | None:
    """Read the ledger as far as the bus has it. One that makes no sense leaves everything else readable."""
    try:
        days = await sources.ledger.on_bus(sources.bus)
    except ValueError as error:
        sources.health.problem("ledger", str(error))
        return None
    sources.health.solved("ledger")
    return None if days is None else Books(days, _arrived_until(read_clock(sources.clock), heartbeats))


def _arrived_until(clock: ClockReading, heartbeats: Mapping[str, Heartbeat]) -> datetime:
    return arrived_until(clock.exchange_time, clock.rate, cadence_of("writer", heartbeats).every_seconds)


async def _heartbeats(bus: Bus) -> tuple[dict[str, Heartbeat], frozenset[str]]:
    heard, unreadable = {}, set()
    for service in (*SERVICES, API):
        try:
            beat = await bus.heartbeat(service)
        except ValueError:
            unreadable.add(service)
            continue
        if beat is not None:
            heard[service] = beat
    return heard, frozenset(unreadable)


def read_clock(clock: ExchangeClock) -> ClockReading:
    """Read the exchange's clock."""
    return ClockReading(clock.now(), clock.offset_seconds, clock.rate, clock.measured)
