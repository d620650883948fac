"""From memory to the bus: a bounded buffer, emptied in order. I/O."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from services.collector.metrics import BUFFERED, FORGOTTEN
from shared.datasets.registry import AnyEvent
from shared.runtime.service import Service

_BATCH = 500
#: Above this length of the stream history waits: live rows go first, and the hard cap is never near.
_STREAM_FULL = 100_000


class Publisher:
    """Events on their way to the bus.

    Live events are never waited for: when the buffer is full the oldest is dropped and given to `forget`, so that it is
    fetched again later. History waits for room.
    """

    def __init__(self, service: Service, limit: int) -> None:
        self._service = service
        self._limit = limit
        self.forget: Callable[[AnyEvent], None] = lambda _: None
        self.appended = 0
        """Events that ever came in."""
        self.left = 0
        """Events that ever went out, to the bus or over the edge."""
        self._buffer: deque[AnyEvent] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._buffer)

    def append(self, event: AnyEvent) -> None:
        """Add a live event; returns at once."""
        if len(self._buffer) >= self._limit:
            FORGOTTEN.inc()
            self.left += 1
            self.forget(self._buffer.popleft())
        self._buffer.append(event)
        self.appended += 1
        self._filled.set()

    async def put(self, events: Sequence[AnyEvent]) -> None:
        """Add history once the buffer is less than half full and the stream is not long."""
        while len(self._buffer) > self._limit // 2:
            self._room.clear()
            await self._room.wait()
        for event in events:
            self.append(event)

    async def until_left(self, position: int) -> None:
        """Wait until so many of the events that ever came in have gone out: `appended`, for all there are now."""
        while self.left < position:
            self._room.clear()
            await self._room.wait()

    async def wait_for_stream(self, stream: str) -> None:
        """Wait until the readers of a stream have caught up enough for more history."""
        bus = self._service.bus
        while await self._service.until_bus_answers(partial(bus.stream_length, stream)) > _STREAM_FULL:
            await self._service.pause(0.5)

    async def run(self) -> None:
        """Publish for ever, in order. An event leaves the buffer only after Redis has it; a copy does no harm."""
        while True:
            await self._filled.wait()
            await self.flush()
            self._filled.clear()

    async def flush(self) -> None:
        """Publish everything that is waiting."""
        while self._buffer:
            batch = [self._buffer.popleft() for _ in range(min(_BATCH, len(self._buffer)))]
            try:
                await self._service.until_bus_answers(partial(self._service.bus.publish, batch))
            except asyncio.CancelledError:
                self._buffer.extendleft(reversed(batch))
                raise
            self.left += len(batch)
            BUFFERED.set(len(self._buffer))
            self._room.set()
