"""Redis Streams: publish, consume, acknowledge, trim, lag. I/O.

Delivery is at least once: an entry stays pending until its consumer acknowledges it, and a consumer first reads its
own pending entries, then new ones, then claims what a dead consumer left behind. Rows are unique by identity on disk,
so each is stored exactly once. Groups are created at `0`: whoever starts last misses nothing.
"""

import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from redis.exceptions import ResponseError

from shared.bus.connection import Connection
from shared.datasets.channels import CHANNELS
from shared.datasets.registry import AnyEvent, decode, encode
from shared.metrics import PUBLISHED

DEAD_LETTER = "dead-letter"

#: Stream → the groups that must have seen an entry before it may be trimmed.
GROUPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CHANNELS, ("writer",)),
    "ledger": ("writer",),
    "universe": ("writer", "collector"),
    "instruments": ("writer",),
}

#: Hard cap per stream, in entries; about 300 bytes each, so 150 MB for `candles` in the worst case.
CAPS = {
    **{name: channel.cap for name, channel in CHANNELS.items()},
    "ledger": 50_000,
    "universe": 200,
    "instruments": 20_000,
    DEAD_LETTER: 10_000,
}

#: An entry that its consumer holds for this long without acknowledging it is claimed by another.
CLAIM_IDLE_MS = 300_000


@dataclass(frozen=True)
class Entry:
    """One entry of a stream as delivered: undecoded, so that a bad one does not stop its neighbours."""

    stream: str
    id: str
    fields: dict[str, str]

    def event(self) -> AnyEvent:
        """Decode it; raises `UndecodableError`."""
        return decode(self.fields)


@dataclass(frozen=True)
class GroupLag:
    """How far a group is behind on a stream. Times are of the Redis host's clock, Unix milliseconds."""

    stream: str
    group: str
    length: int
    lag: int
    """Entries not yet delivered to the group."""
    pending: int
    """Delivered, not acknowledged."""
    oldest_ms: int | None
    """When the oldest entry that is lagging or pending was appended."""
    now_ms: int
    consumers: int

    @property
    def oldest_age_seconds(self) -> float:
        """Return how old the oldest unfinished entry is; 0 where nothing is unfinished."""
        return 0.0 if self.oldest_ms is None else max(0.0, (self.now_ms - self.oldest_ms) / 1000)


class Streams(Connection):
    """What travels."""

    async def create_groups(self, also: Mapping[str, str] = MappingProxyType({})) -> None:
        """Create every declared group at 0, so that no entry is missed, whoever starts first.

        also: stream → a group that is not declared, such as that of another exchange's collector.

        Those that exist are left alone: a Redis at its memory ceiling refuses even to create what is there.
        """
        for stream, groups in GROUPS.items():
            known = await self._redis.xinfo_groups(stream) if await self._redis.exists(stream) else []
            for group in {*groups, *filter(None, [also.get(stream)])} - {info["name"] for info in known}:
                try:
                    await self._redis.xgroup_create(stream, group, id="0", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):  # another service was quicker
                        raise

    async def publish(self, events: Sequence[AnyEvent]) -> None:
        """Append events in order, in one round trip. Raises `BusError`; the caller retries, copies do no harm."""
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(event.stream, encode(event), maxlen=CAPS[event.stream], approximate=True)
        await pipeline.execute()
        for event in events:
            PUBLISHED.labels(event.stream).inc()

    async def consume(
        self, streams: Sequence[str], group: str, *, consumer: str, count: int, block_ms: int
    ) -> AsyncIterator[list[Entry]]:
        """Yield entries for ever: own pending first, then new, then abandoned ones; an empty list when it is quiet.

        The order matters: what this consumer read before a crash comes again before anything newer, and nothing that
        a dead consumer held is forgotten.
        """
        await self.create_groups(dict.fromkeys(streams, group))
        for stream in streams:
            async for entries in self._own_pending(stream, group, consumer, count):
                yield entries
        while True:
            for stream in streams:
                async for entries in self._claim(stream, group, consumer, count):
                    yield entries
            for _ in range(_READS_BETWEEN_CLAIMS):
                yield await self._read(dict.fromkeys(streams, ">"), group, consumer, count, block_ms)

    async def _own_pending(self, stream: str, group: str, consumer: str, count: int) -> AsyncIterator[list[Entry]]:
        position = "0"
        while entries := await self._read({stream: position}, group, consumer, count, None):
            position = entries[-1].id
            yield entries

    async def _read(
        self, positions: Mapping[str, str], group: str, consumer: str, count: int, block_ms: int | None
    ) -> list[Entry]:
        answer = await self._redis.xreadgroup(group, consumer, dict(positions), count=count, block=block_ms)
        pairs = answer.items() if isinstance(answer, dict) else answer
        return [
            Entry(stream, entry_id, fields or {}) for stream, batches in pairs for entry_id, fields in _flatten(batches)
        ]

    async def _claim(self, stream: str, group: str, consumer: str, count: int) -> AsyncIterator[list[Entry]]:
        position = "0-0"
        while True:
            position, claimed, *_ = await self._redis.xautoclaim(
                stream, group, consumer, min_idle_time=CLAIM_IDLE_MS, start_id=position, count=count
            )
            if claimed:
                yield [Entry(stream, entry_id, fields or {}) for entry_id, fields in claimed]
            if position == "0-0":
                return

    async def acknowledge(self, group: str, entries: Iterable[Entry]) -> None:
        """Acknowledge that these entries are done: durable, for whoever stores them."""
        ids: dict[str, list[str]] = {}
        for entry in entries:
            ids.setdefault(entry.stream, []).append(entry.id)
        pipeline = self._redis.pipeline(transaction=False)
        for stream, stream_ids in ids.items():
            for start in range(0, len(stream_ids), 1000):
                pipeline.xack(stream, group, *stream_ids[start : start + 1000])
        await pipeline.execute()

    async def trim(self, stream: str) -> None:
        """Drop what every group has acknowledged. Trimming behind the slowest group loses nothing."""
        floors = []
        for info in await self._redis.xinfo_groups(stream):
            pending = await self._redis.xpending(stream, info["name"])
            floors.append(_id_key(pending["min"]) if pending["pending"] else _id_key(info["last-delivered-id"]))
        if floors:
            milliseconds, sequence = min(floors)
            await self._redis.xtrim(stream, minid=f"{milliseconds}-{sequence}", approximate=True)

    async def stream_length(self, stream: str) -> int:
        """Return the number of entries in a stream."""
        return int(await self._redis.xlen(stream))

    async def lags(self) -> list[GroupLag]:
        """Return how far every group is behind on every stream."""
        seconds, micros = await self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        found = []
        for stream in GROUPS:
            if not await self._redis.exists(stream):
                continue
            length = await self.stream_length(stream)
            found += [
                await self._group_lag(stream, length, info, now_ms) for info in await self._redis.xinfo_groups(stream)
            ]
        return found

    async def unfinished_since(self, stream: str, group: str) -> tuple[int | None, int]:
        """Return when the oldest entry was appended that a group has not acknowledged (None: all are), and now.

        Both in Unix milliseconds of the Redis host's clock.
        """
        seconds, micros = await self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        infos = await self._redis.xinfo_groups(stream) if await self._redis.exists(stream) else []
        for info in infos:
            if info["name"] == group:
                return (await self._group_lag(stream, 0, info, now_ms)).oldest_ms, now_ms
        return None, now_ms

    async def _group_lag(self, stream: str, length: int, info: Mapping[str, Any], now_ms: int) -> GroupLag:
        pending = await self._redis.xpending(stream, info["name"])
        fresh = await self._redis.xrange(stream, min=f"({info['last-delivered-id']}", count=1)
        oldest = [pending["min"]] if pending["pending"] else []
        oldest += [entry_id for entry_id, _ in fresh]
        lag = info.get("lag")
        if lag is None:  # Redis does not know after a deletion inside the stream; then count
            lag = len(await self._redis.xrange(stream, min=f"({info['last-delivered-id']}"))
        return GroupLag(
            stream=stream,
            group=info["name"],
            length=length,
            lag=int(lag),
            pending=int(pending["pending"]),
            oldest_ms=min((_id_key(entry_id)[0] for entry_id in oldest), default=None),
            now_ms=now_ms,
            consumers=int(info["consumers"]),
        )


#: Claiming looks through the pending list, so it is done once in so many reads.
_READS_BETWEEN_CLAIMS = 50


def consumer_name(service: str) -> str:
    """Name a consumer so that a restarted process on the same host finds its own pending entries again."""
    return f"{service}-{os.environ.get('HOSTNAME') or socket.gethostname()}"


def _id_key(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _flatten(batches: Any) -> Iterable[tuple[str, dict[str, str] | None]]:
    # RESP2 gives [(id, fields), ...]; RESP3 wraps it once more.
    for item in batches:
        if isinstance(item, list) and item and isinstance(item[0], (list, tuple)):
            yield from item
        else:
            yield item
