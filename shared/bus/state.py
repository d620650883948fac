"""What is known now, under a few keys: universe, definitions, ledger, watermarks, alerts, heartbeats. I/O."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime

import msgspec
import structlog
from redis.exceptions import ResponseError

from shared.bus.connection import Connection
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import CAPS
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.registry import decode, encode
from shared.datasets.universe import Ranking
from shared.grid import FIRST_DAY, LAST_DAY
from shared.metrics import PUBLISHED
from shared.symbol import HOME, Symbol, suffix_of

log = structlog.get_logger()

_UNIVERSE = "universe:current"

_LEFT = "universe:left"

_STORED_RANKINGS = "universe:stored"

_KEPT_MARKS = 100
"""Stored rankings that are remembered; a ranker keeps fewer."""

_DEFINITIONS = "instruments:stored"

_CONVERTED = "converted:days"

_WATERMARKS = "watermarks"

_ALERTS = "alerts:open"

_COMPACTION = "compaction"


_RECENT_RANKINGS = 20
"""Rankings among which the newest one of an exchange is looked for."""


def _of(key: str, exchange: str) -> str:
    """Return the key of an exchange: of OKX it is the bare one."""
    return key + suffix_of(exchange).lower().replace(".", ":")


def _heartbeat_key(service: str) -> str:
    return f"heartbeat:{service}"


def _ledger_key(day: date) -> str:
    return f"ledger:{day:%Y-%m-%d}"


_LEDGER_READY = "ledger:ready"

_LEDGER_VERSIONS = "ledger:versions"


class State(Connection):
    """What is known now."""

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

    async def set_universe(self, ranking: Ranking) -> None:
        """Publish a ranking whole and make it the current universe, in one transaction."""
        current = msgspec.json.encode(msgspec.structs.replace(ranking, ranks=())).decode()
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xadd(Ranking.stream, encode(ranking), maxlen=CAPS[Ranking.stream], approximate=True)
        pipeline.set(_of(_UNIVERSE, ranking.exchange), current)
        await pipeline.execute()
        PUBLISHED.labels(Ranking.stream).inc()

    async def universe(self, exchange: str = HOME) -> Ranking | None:
        """Return the current universe of an exchange, without the places; None before the first ranking."""
        key = _of(_UNIVERSE, exchange)
        text = await self._read_key(key, self._redis.get(key))
        try:
            return None if text is None else msgspec.json.decode(text, type=Ranking)
        except ValueError as error:
            await self._forget(key, "", error, self._redis.delete(key))  # the ranker looks every 2 s
            return None

    async def mark_stored(self, exchange: str, ranked_times: Iterable[datetime]) -> None:
        """Record that some rankings are on disk; a Redis that goes back in time forgets this, and the rankings."""
        await self._mark_stored(exchange, ranked_times, all_of_them=False)

    async def set_stored(self, exchange: str, ranked_times: Iterable[datetime]) -> None:
        """Record which rankings of an exchange are on disk, and that no others are."""
        await self._mark_stored(exchange, ranked_times, all_of_them=True)

    async def _mark_stored(self, exchange: str, ranked_times: Iterable[datetime], *, all_of_them: bool) -> None:
        key = _of(_STORED_RANKINGS, exchange)
        marks = {at.isoformat(): at.timestamp() for at in ranked_times}
        pipeline = self._redis.pipeline(transaction=True)
        if all_of_them:
            pipeline.delete(key)
        if marks:
            pipeline.zadd(key, marks)
            pipeline.zremrangebyrank(key, 0, -_KEPT_MARKS - 1)
        await pipeline.execute()

    async def stored_rankings(self, exchange: str) -> set[datetime]:
        """Return which of the last rankings of an exchange are on disk."""
        key = _of(_STORED_RANKINGS, exchange)
        found = set()
        for text in await self._read_key(key, self._redis.zrange(key, 0, -1)):
            try:
                found.add(_instant(text))
            except ValueError as error:
                await self._forget(key, text, error, self._redis.zrem(key, text))
        return found

    async def set_left(self, exchange: str, left: Mapping[Symbol, datetime]) -> None:
        """Record which symbols are followed on although they left the universe, and when they did."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_of(_LEFT, exchange))
            # Never empty: whoever finds nothing knows that Redis has forgotten it.
            mapping: dict[str, str] = {"": ""} | {symbol: at.isoformat() for symbol, at in left.items()}
            pipe.hset(_of(_LEFT, exchange), mapping=mapping)
            await pipe.execute()

    async def left(self, exchange: str) -> dict[str, datetime] | None:
        """Return what `set_left` recorded; None where it never did, or Redis has forgotten it."""
        return await self._read_hash(_of(_LEFT, exchange), _instant, str)

    async def last_ranking(self, exchange: str = HOME) -> Ranking | None:
        """Return the newest ranking of an exchange, everybody's place included; None where there is none (any more).

        Raises `UndecodableError`.
        """
        for _, fields in await self._redis.xrevrange(Ranking.stream, count=_RECENT_RANKINGS):
            event = decode(fields)
            if isinstance(event, Ranking) and event.exchange == exchange:
                return event
        return None

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
        """Return what the ledger says of some days: day → symbol → text (`shared.ledger.day.from_text`)."""
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

    async def ask_for_compaction(self) -> int:
        """Ask the writer to merge what it holds in segments into the day files; return the number of the request."""
        return int(await self._redis.hincrby(_COMPACTION, "asked", 1))

    async def compaction_asked(self) -> int:
        """Return the number of the last request that was not met yet; 0 where there is none."""
        asked, met = await self._compaction()
        return asked if asked > met else 0

    async def set_compacted(self, number: int) -> None:
        """Say that all requests up to this one are met."""
        await self._redis.hset(_COMPACTION, "met", number)

    async def is_compacted(self, number: int) -> bool:
        """Return whether a request is met. One that Redis has forgotten never is."""
        return (await self._compaction())[1] >= number

    async def _compaction(self) -> tuple[int, int]:
        found = await self._read_hash(_COMPACTION, int, str) or {}
        return found.get("asked", 0), found.get("met", 0)

    async def keep_alerts(self, text: str) -> None:
        """Keep the api's open alerts, so that a restart does not send them again."""
        await self._redis.set(_ALERTS, text)

    async def kept_alerts(self) -> str | None:
        """Return what `keep_alerts` was given last."""
        text: str | None = await self._redis.get(_ALERTS)
        return text

    async def beat(self, heartbeat: Heartbeat, ttl_seconds: int) -> None:
        """Write the heartbeat of a service; the key expires by itself."""
        text = msgspec.json.encode(heartbeat, enc_hook=repr).decode()
        await self._redis.set(_heartbeat_key(heartbeat.service), text, ex=ttl_seconds)

    async def heartbeat(self, service: str) -> Heartbeat | None:
        """Return the last heartbeat of a service; None where it has expired."""
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
