"""Inputs that made no sense, in a stream of their own. I/O."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from shared.bus.connection import Connection
from shared.bus.streams import CAPS, DEAD_LETTER
from shared.datasets.registry import AnyEvent, encode
from shared.metrics import DEAD_LETTERS, PUBLISHED

MOST_PAYLOAD = 4_000
"""Bytes of an input that its dead letter keeps."""

MOST_ERROR = 1_000


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


class DeadLetters(Connection):
    """The stream `dead-letter`."""

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

    async def dead_letters(self, count: int = 100) -> tuple[int, list[dict[str, str]]]:
        """Return how many inputs were set aside, and the newest of them."""
        newest = await self._redis.xrevrange(DEAD_LETTER, count=count)
        return int(await self._redis.xlen(DEAD_LETTER)), [fields | {"id": entry_id} for entry_id, fields in newest]

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


def payload_text(payload: object) -> str:
    """Return an input as the text of a dead letter: itself, or as JSON; whatever it is, this ends with a text."""
    if isinstance(payload, str):
        return payload.encode("utf-8", "backslashreplace").decode()
    try:
        return msgspec.json.encode(payload, enc_hook=repr).decode()
    except (ValueError, TypeError, RecursionError, OverflowError, msgspec.MsgspecError):
        return ascii(type(payload)) if isinstance(payload, list | dict | tuple) else ascii(payload)
