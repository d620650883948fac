"""Bad input on its way to the dead letters: callable from anywhere, bounded, each input once. I/O in `run` only.

The exchange repeats itself: a list with an odd row in it is asked for every minute. One row is one dead letter, until
the process starts again.
"""

import asyncio
import hashlib

import structlog

from shared.backoff import backoff_seconds
from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.bus.dead_letters import payload_text

log = structlog.get_logger()

_MOST_WAITING = 1_000
_MOST_KNOWN = 10_000
"""Inputs that are remembered, so that they are set aside once: 32 bytes each, and what Python needs for them."""

_RETRY_SECONDS = 5.0
_TRIES = 120
"""About ten minutes; then the next one has its turn."""


class SetAside:
    """Takes bad input at once, and posts it to the dead letters when Redis takes it."""

    def __init__(self, bus: Bus, service: str) -> None:
        self._bus = bus
        self._service = service
        self._waiting: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue(maxsize=_MOST_WAITING)
        self._known: dict[bytes, None] = {}

    def __call__(self, where: str, payload: object, error: str) -> None:
        """Queue an input for the dead letters, unless it is there already; when the queue is full, the log has it.

        where: the place in the service that met it, such as `candles`.
        """
        origin = f"{self._service}:{where}"
        text = payload_text(payload)
        if not self._is_new(origin, text):
            return
        log.warning("set aside", origin=origin, error=error)
        try:
            self._waiting.put_nowait((origin, text, error))
        except asyncio.QueueFull:
            log.error("dead letter lost, too many at once", origin=origin, payload=text[:500])  # noqa: TRY400

    def _is_new(self, origin: str, text: str) -> bool:
        digest = hashlib.sha256(f"{origin}\n{text}".encode("utf-8", "backslashreplace")).digest()
        if digest in self._known:
            return False
        self._known[digest] = None
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return True

    async def run(self) -> None:
        """Post what is queued, for ever."""
        while True:
            await self._post(*await self._waiting.get())

    async def _post(self, origin: str, text: str, error: str) -> None:
        """Post one input, again and again while Redis is away or full: it is not set aside a second time."""
        for attempt in range(_TRIES):
            try:
                await self._bus.dead_letter(origin, text, error)
            except BusError as failure:
                log.warning("dead letter waits for Redis", origin=origin, error=str(failure), attempt=attempt)
                await asyncio.sleep(backoff_seconds(attempt, cap=_RETRY_SECONDS))
            else:
                return
        log.error("dead letter not kept", origin=origin, payload=text[:500])
