"""The bus: Redis Streams and a few keys. The only file that knows Redis commands and key names.

Delivery is at least once: an entry stays pending until its consumer acknowledges it, and a consumer first reads its
own pending entries, then new ones, then claims what a dead consumer left behind. Rows are unique by identity on disk,
so each is stored exactly once. Groups are created at `0`: whoever starts last misses nothing.
"""

import hashlib
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError, ResponseError

from shared.events import AnyEvent, InstrumentDefinition, Ranking, decode, encode
from shared.grid import FIRST_DAY, LAST_DAY
from shared.metrics import DEAD_LETTERS, PUBLISHED
from shared.symbol import Symbol

log = structlog.get_logger()

BusError = RedisError

_MOST_REASON = 200


def failure_of(error: BusError | OSError) -> str:
    """Return why the bus failed, to stand behind "Redis": what Redis refuses in its words, else only the kind.

    Other texts may hold an address with a password.
    """
    if isinstance(error, ResponseError):
        return f"refuses: {str(error)[:_MOST_REASON]}"
    return f"does not answer ({type(error).__name__})"


#: Stream → the groups that must have seen an entry before it may be trimmed.
GROUPS: dict[str, tuple[str, ...]] = {
    "candles": ("writer",),
    "funding": ("writer",),
    "ledger": ("writer",),
    "universe": ("writer", "collector"),
    "instruments": ("writer",),
}
DEAD_LETTER = "dead-letter"
#: Hard cap per stream, in entries; about 300 bytes each, so 150 MB for `candles` in the worst case.
CAPS = {
    "candles": 500_000,
    "funding": 200_000,
    "ledger": 50_000,
    "universe": 200,
    "instruments": 20_000,
    DEAD_LETTER: 10_000,
}

MOST_PAYLOAD = 4_000
"""Bytes of an input that its dead letter keeps."""
MOST_ERROR = 1_000

#: An entry that its consumer holds for this long without acknowledging it is claimed by another.
CLAIM_IDLE_MS = 300_000

_UNIVERSE = "universe:current"
_LEFT = "universe:left"
_STORED_RANKINGS = "universe:stored"
_KEPT_MARKS = 100
"""Stored rankings that are remembered; a ranker keeps fewer."""
_DEFINITIONS = "instruments:stored"
_CONVERTED = "converted:days"
_WATERMARKS = "watermarks"
_ALERTS = "alerts:open"


def _heartbeat_key(service: str) -> str:
    return f"heartbeat:{service}"


def _ledger_key(day: date) -> str:
    return f"ledger:{day:%Y-%m-%d}"


_LEDGER_READY = "ledger:ready"
_LEDGER_VERSIONS = "ledger:versions"


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


@dataclass(frozen=True)
class DeadLetter:
    """An input that was set aside."""

    id: str
    at: str
    """When, on the clock of the host that did it, ISO 8601."""
    origin: str
    """Who met it, and where: "service:where", for an entry of a stream with the entry's id behind."""
    error: str
    payload: str
    """The input as text; JSON where it was more than a text."""
    cut: str = ""
    """Length and SHA-256 of the whole payload, where only its beginning was kept."""


_LETTER_FIELDS = ("at", "origin", "error", "payload", "cut")


@dataclass(frozen=True)
class Memory:
    """How much memory Redis uses, in bytes."""

    used: int
    limit: int
    """0: none."""


class Heartbeat(msgspec.Struct, kw_only=True):
    """What a service says about itself; its absence is the alarm."""

    service: str
    state: str
    """`starting`, `ok` or `degraded`."""
    reason: str
    ready: bool = True
    """Whether it has done its first work; a problem may be open all the same."""
    host: str
    pid: int
    started: datetime
    beaten: datetime
    exchange_time: datetime | None = None
    details: dict[str, Any] = {}
    problems: dict[str, str] = {}
    """The open causes behind `reason`, each with its sentence."""


class Bus:
    """A connection to the bus."""

    def __init__(self, url: str, *, timeout_seconds: float = 10.0) -> None:
        self._redis: Any = redis.Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="backslashreplace",  # bytes of others that are no text are seen, and refused, as one
            socket_timeout=timeout_seconds + 5,
            socket_connect_timeout=timeout_seconds,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise `BusError` where Redis does not answer."""
        await self._redis.ping()

    async def _read_key[T](self, key: str, answer: Awaitable[T]) -> T:
        """Wait for what Redis has under a key, and name the key where it refuses: its own words do not."""
        try:
            return await answer
        except ResponseError as error:
            raise ResponseError(f"{key}: {error}") from error

    async def _read_hash[N, T](
        self, key: str, read: Callable[[str], T], name_of: Callable[[str], N]
    ) -> dict[N, T] | None:
        """Return the fields of a hash; None where there is none. What cannot be read is forgotten, and said."""
        texts: dict[str, str] = await self._read_key(key, self._redis.hgetall(key))
        found: dict[N, T] = {}
        for name, text in texts.items():
            try:
                if name:
                    found[name_of(name)] = read(text)
            except ValueError as error:
                await self._forget(key, name, error, self._redis.hdel(key, name))
        return found if texts else None

    async def _forget(self, key: str, name: str, error: ValueError, removal: Awaitable[int]) -> None:
        """Remove what makes no sense under a key of ours: whoever owns it makes it again, as after a loss of Redis."""
        log.warning("made no sense in Redis, removed", key=key, name=name, error=str(error))
        await removal
        if key == _LEDGER_VERSIONS:
            await self.set_ledger_ready(ready=False)  # the writer says everything again

    # --- streams

    async def create_groups(self) -> None:
        """Create every declared group at 0, so that no entry is missed, whoever starts first.

        Those that exist are left alone: a Redis at its memory ceiling refuses even to create what is there.
        """
        for stream, groups in GROUPS.items():
            known = await self._redis.xinfo_groups(stream) if await self._redis.exists(stream) else []
            for group in set(groups) - {info["name"] for info in known}:
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

    async def dead_letter(self, origin: str, payload: object, error: str) -> None:
        """Set bad input aside with its origin and its error: it stops neither the socket nor the stream.

        A long one is cut: 10,000 letters of the largest size fit into Redis beside everything else.
        """
        text = payload_text(payload)
        fields = {"origin": origin, "payload": text, "error": error[:MOST_ERROR], "at": datetime.now(UTC).isoformat()}
        whole = text.encode("utf-8", "backslashreplace")
        if len(whole) > MOST_PAYLOAD:
            fields["payload"] = whole[:MOST_PAYLOAD].decode("utf-8", "ignore")
            fields["cut"] = f"{len(whole)} bytes, sha256 {hashlib.sha256(whole).hexdigest()}"
        await self._redis.xadd(DEAD_LETTER, fields, maxlen=CAPS[DEAD_LETTER], approximate=True)
        DEAD_LETTERS.labels(":".join(origin.split(":")[:2])).inc()  # without the id of the entry: one series per place

    async def consume(
        self, streams: Sequence[str], group: str, *, consumer: str, count: int, block_ms: int
    ) -> AsyncIterator[list[Entry]]:
        """Yield entries for ever: own pending first, then new, then abandoned ones; an empty list when it is quiet.

        The order matters: what this consumer read before a crash comes again before anything newer, and nothing that
        a dead consumer held is forgotten.
        """
        await self.create_groups()
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
        """Tell that these entries are done: durable, for whoever stores them."""
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
        if lag is None:  # Redis cannot tell after a deletion inside the stream; then count
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

    async def dead_letters(self, count: int = 100) -> tuple[int, list[dict[str, str]]]:
        """Return how many inputs were set aside, and the newest of them."""
        newest = await self._redis.xrevrange(DEAD_LETTER, count=count)
        return await self.stream_length(DEAD_LETTER), [fields | {"id": entry_id} for entry_id, fields in newest]

    async def all_dead_letters(self, page: int = 500) -> AsyncIterator[DeadLetter]:
        """Yield everything that was set aside and is there now, oldest first."""
        position, last = "-", await self._redis.xrevrange(DEAD_LETTER, count=1)
        while last and (found := await self._redis.xrange(DEAD_LETTER, position, last[0][0], count=page)):
            for entry_id, fields in found:
                yield DeadLetter(id=entry_id, **{name: fields.get(name, "") for name in _LETTER_FIELDS})
            position = f"({found[-1][0]}"

    async def replay_dead_letters(self, events_by_id: Mapping[str, Sequence[AnyEvent]]) -> None:
        """Publish what dead letters turned out to be and remove them, in one transaction: neither without the other."""
        if not events_by_id:
            return
        pipeline = self._redis.pipeline(transaction=True)
        events = [event for found in events_by_id.values() for event in found]
        for event in events:
            pipeline.xadd(event.stream, encode(event), maxlen=CAPS[event.stream], approximate=True)
        pipeline.xdel(DEAD_LETTER, *events_by_id)
        await pipeline.execute()
        for event in events:
            PUBLISHED.labels(event.stream).inc()

    async def drop_dead_letters(self, ids: Sequence[str]) -> int:
        """Delete some of what was set aside; return how many of them were still there."""
        return int(await self._redis.xdel(DEAD_LETTER, *ids)) if ids else 0

    async def recent_dead_letters(self, seconds: float, at_most: int = 1000) -> dict[str, int]:
        """Return how many inputs were set aside within the last seconds of Redis' clock: "service:where" → count."""
        now, _ = await self._redis.time()
        found = await self._redis.xrange(DEAD_LETTER, min=int((now - seconds) * 1000), count=at_most)
        return dict(Counter(":".join(fields.get("origin", "").split(":")[:2]) for _, fields in found))

    # --- the universe

    async def set_universe(self, ranking: Ranking) -> None:
        """Publish a ranking whole and make it the current universe, in one transaction."""
        current = msgspec.json.encode(msgspec.structs.replace(ranking, ranks=())).decode()
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xadd(Ranking.stream, encode(ranking), maxlen=CAPS[Ranking.stream], approximate=True)
        pipeline.set(_UNIVERSE, current)
        await pipeline.execute()
        PUBLISHED.labels(Ranking.stream).inc()

    async def universe(self) -> Ranking | None:
        """Return the current universe, without the places of the others; None before the first ranking."""
        text = await self._read_key(_UNIVERSE, self._redis.get(_UNIVERSE))
        try:
            return None if text is None else msgspec.json.decode(text, type=Ranking)
        except ValueError as error:
            await self._forget(_UNIVERSE, "", error, self._redis.delete(_UNIVERSE))  # the ranker looks every 2 s
            return None

    async def mark_stored(self, ranked_times: Iterable[datetime]) -> None:
        """Record that some rankings are on disk; a Redis that goes back in time forgets this with the rankings."""
        await self._mark_stored(ranked_times, all_of_them=False)

    async def set_stored(self, ranked_times: Iterable[datetime]) -> None:
        """Record which rankings are on disk, and that no others are."""
        await self._mark_stored(ranked_times, all_of_them=True)

    async def _mark_stored(self, ranked_times: Iterable[datetime], *, all_of_them: bool) -> None:
        marks = {at.isoformat(): at.timestamp() for at in ranked_times}
        pipeline = self._redis.pipeline(transaction=True)
        if all_of_them:
            pipeline.delete(_STORED_RANKINGS)
        if marks:
            pipeline.zadd(_STORED_RANKINGS, marks)
            pipeline.zremrangebyrank(_STORED_RANKINGS, 0, -_KEPT_MARKS - 1)
        await pipeline.execute()

    async def stored_rankings(self) -> set[datetime]:
        """Return which of the last rankings are on disk."""
        found = set()
        for text in await self._read_key(_STORED_RANKINGS, self._redis.zrange(_STORED_RANKINGS, 0, -1)):
            try:
                found.add(_instant(text))
            except ValueError as error:
                await self._forget(_STORED_RANKINGS, text, error, self._redis.zrem(_STORED_RANKINGS, text))
        return found

    async def set_left(self, left: Mapping[Symbol, datetime]) -> None:
        """Record which symbols are followed on although they left the universe, and when they did."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_LEFT)
            # Never empty: whoever finds nothing knows that Redis has forgotten it.
            mapping: dict[str, str] = {"": ""} | {symbol: at.isoformat() for symbol, at in left.items()}
            pipe.hset(_LEFT, mapping=mapping)
            await pipe.execute()

    async def left(self) -> dict[str, datetime] | None:
        """Return what `set_left` recorded; None where it never did, or Redis has forgotten it."""
        return await self._read_hash(_LEFT, _instant, str)

    async def last_ranking(self) -> Ranking | None:
        """Return the newest ranking whole, everybody's place included; None where the stream has none (any more).

        Raises `UndecodableError`.
        """
        newest = await self._redis.xrevrange(Ranking.stream, count=1)
        event = decode(newest[0][1]) if newest else None
        return event if isinstance(event, Ranking) else None

    # --- instruments

    async def set_definitions(self, definitions: Iterable[InstrumentDefinition], *, all_of_them: bool = False) -> None:
        """Record what is stored of some instruments, or of all: of each the newest definition."""
        # Never empty: whoever finds nothing knows that Redis has forgotten it, or never had it.
        mapping = {"": ""} | {one.symbol: msgspec.json.encode(one).decode() for one in definitions}
        async with self._redis.pipeline(transaction=True) as pipe:
            if all_of_them:
                pipe.delete(_DEFINITIONS)
            pipe.hset(_DEFINITIONS, mapping=mapping)
            await pipe.execute()

    async def definitions(self) -> dict[Symbol, InstrumentDefinition] | None:
        """Return what `set_definitions` recorded; None where it never did, or Redis has forgotten it."""
        found = await self._read_hash(_DEFINITIONS, _DEFINITION.decode, str)
        return None if found is None else {one.symbol: one for one in found.values()}

    # --- what is stored, and up to when

    async def set_ledger(self, day: date, texts: Mapping[str, str], *, all_of_them: bool = False) -> None:
        """Replace what the ledger says of some or all symbols on a day, and let readers see that the day changed."""
        if texts:
            pipeline = self._redis.pipeline(transaction=True)
            if all_of_them:
                pipeline.delete(_ledger_key(day))
            pipeline.hset(_ledger_key(day), mapping=dict(texts))
            # An instant, not a count: a Redis that came back empty must not look as if nothing had changed.
            pipeline.hset(_LEDGER_VERSIONS, day.isoformat(), time.time_ns())
            await pipeline.execute()

    async def ledger(self, days: Sequence[date]) -> dict[date, dict[str, str]]:
        """Return what the ledger says of some days: day → symbol → text (`shared.ledger.from_text`)."""
        pipeline = self._redis.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(_ledger_key(day))
        return dict(zip(days, await pipeline.execute(), strict=True))

    async def ledger_versions(self) -> dict[date, int]:
        """Return which days the ledger knows, each with a number that changes whenever the day does."""
        return await self._read_hash(_LEDGER_VERSIONS, int, _day) or {}

    async def forget_ledger(self, days: Sequence[date]) -> None:
        """Drop the copy of some days; they stay on disk."""
        if days:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(*(_ledger_key(day) for day in days))
            pipeline.hdel(_LEDGER_VERSIONS, *(day.isoformat() for day in days))
            await pipeline.execute()

    async def set_ledger_ready(self, *, ready: bool) -> None:
        """Say whether the ledger reflects everything on disk."""
        await (self._redis.set(_LEDGER_READY, "1") if ready else self._redis.delete(_LEDGER_READY))

    async def ledger_ready(self) -> bool:
        """Return whether the ledger reflects everything on disk."""
        return bool(await self._redis.exists(_LEDGER_READY))

    async def set_watermarks(self, marks: Mapping[str, datetime]) -> None:
        """Record up to when a stage is complete (`written_until`) or what is its newest row (`newest:SYMBOL`)."""
        if marks:
            await self._redis.hset(_WATERMARKS, mapping={name: mark.isoformat() for name, mark in marks.items()})

    async def watermarks(self) -> dict[str, datetime]:
        """Return every watermark."""
        return await self._read_hash(_WATERMARKS, _instant, str) or {}

    async def set_converted(self, digests: Mapping[str, str]) -> None:
        """Record which version of which raw day is in Qlib ("kline_1m/2025-04-05" → digest of its files).

        What was recorded before is forgotten: a version of the dataset that was rolled back to lacks some of it.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_CONVERTED)
            if digests:
                pipe.hset(_CONVERTED, mapping=dict(digests))
            await pipe.execute()

    async def converted(self) -> dict[str, str]:
        """Return the digests of the converted raw days."""
        return dict(await self._redis.hgetall(_CONVERTED))

    # --- what the api remembers, and how Redis is

    async def keep_alerts(self, text: str) -> None:
        """Keep the api's open alerts, so that a restart does not tell them again."""
        await self._redis.set(_ALERTS, text)

    async def kept_alerts(self) -> str | None:
        """Return what `keep_alerts` was given last."""
        text: str | None = await self._redis.get(_ALERTS)
        return text

    async def memory(self) -> Memory:
        """Return how much memory Redis uses."""
        info = await self._redis.info("memory")
        return Memory(int(info["used_memory"]), int(info.get("maxmemory", 0)))

    # --- heartbeats

    async def beat(self, heartbeat: Heartbeat, ttl_seconds: int) -> None:
        """Say that a service lives; the word expires by itself."""
        text = msgspec.json.encode(heartbeat, enc_hook=repr).decode()
        await self._redis.set(_heartbeat_key(heartbeat.service), text, ex=ttl_seconds)

    async def heartbeat(self, service: str) -> Heartbeat | None:
        """Return what a service said last; None where its word has expired."""
        text = await self._redis.get(_heartbeat_key(service))
        return None if text is None else msgspec.json.decode(text, type=Heartbeat)


_DEFINITION = msgspec.json.Decoder(InstrumentDefinition)


def _instant(text: str) -> datetime:
    """Read an instant. Raises ValueError also where it has no zone, or lies where no market does."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or not FIRST_DAY <= at.date() <= LAST_DAY:
        raise ValueError(f"{text!r} has no zone, or is of no year with a market")
    return at


def _day(text: str) -> date:
    """Read a day. Raises ValueError also where it has another form than 2025-04-05, or lies where no market does."""
    day = date.fromisoformat(text)
    if day.isoformat() != text or not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"{text!r} is no day of ours")
    return day


#: Claiming looks through the pending list, so it is done once in so many reads.
_READS_BETWEEN_CLAIMS = 50


def payload_text(payload: object) -> str:
    """Return an input as the text of a dead letter: itself, or as JSON; whatever it is, this ends with a text."""
    if isinstance(payload, str):
        return payload.encode("utf-8", "backslashreplace").decode()
    try:
        return msgspec.json.encode(payload, enc_hook=repr).decode()
    except (ValueError, TypeError, RecursionError, OverflowError, msgspec.MsgspecError):
        return ascii(type(payload)) if isinstance(payload, list | dict | tuple) else ascii(payload)


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
