"""The snapshot that requests share, and the answers that were made of it: the bus is read once a second. I/O."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any

from services.api.health.snapshot import Snapshot

FRESH_SECONDS = 1.0
"""For how long a snapshot answers requests, counted from when its reading began: no request meets older facts."""


class Moment:
    """A snapshot, and what was answered from it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._answers: dict[Hashable, asyncio.Task[Any]] = {}

    async def once[T](self, question: Hashable, answer: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer to a question; it is made once, and who asks meanwhile waits for it.

        An error is raised to all who wait, and not kept.
        """
        task: asyncio.Task[T] | None = self._answers.get(question)
        if task is None:
            task = self._answers[question] = asyncio.create_task(answer())
            task.add_done_callback(lambda done: self._drop_error(question, done))
        return await asyncio.shield(task)  # whoever asked may hang up; the others wait still

    def _drop_error(self, question: Hashable, done: asyncio.Task[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            del self._answers[question]


class Moments:
    """Reads a snapshot when one is asked for and the last one is no longer fresh."""

    def __init__(self, read: Callable[[], Awaitable[Snapshot]], fresh_seconds: float = FRESH_SECONDS) -> None:
        self._read_snapshot = read
        self._fresh_seconds = fresh_seconds
        self._began = float("-inf")
        self._reading: asyncio.Task[Moment] | None = None

    async def now(self) -> Moment:
        """Return a moment whose reading began at most `fresh_seconds` before this call.

        A reading that takes longer than that is not waited for: the next one begins beside it, so a slow Redis delays
        each request by one reading at most. An error of the reading is raised to all who wait for it.
        """
        now = time.monotonic()
        if self._reading is None or now - self._began >= self._fresh_seconds or _failed(self._reading):
            self._began, self._reading = now, asyncio.create_task(self._read())
        return await asyncio.shield(self._reading)

    async def _read(self) -> Moment:
        return Moment(await self._read_snapshot())


def _failed(reading: asyncio.Task[Moment]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)
