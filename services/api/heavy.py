"""Answers that take processor time: a few at a time, so that the light ones stay fast. I/O."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MOST_AT_ONCE = 2
"""They run in threads, and Python runs one thread at a time: more of them only delay each other and everything else."""
WAIT_SECONDS = 3.0
"""How long one waits for its turn: longer than the heaviest takes, shorter than clients wait."""
RETRY_AFTER_SECONDS = 2
"""What a client is asked to wait before it tries again."""


class BusyError(Exception):
    """No turn came in time; the text is a sentence for a person."""


class Turns:
    """Lets a few through at a time."""

    def __init__(self, most_at_once: int = MOST_AT_ONCE, wait_seconds: float = WAIT_SECONDS) -> None:
        self._free = asyncio.Semaphore(most_at_once)
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside of the block. Raises `BusyError` where none comes in time."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise BusyError(f"too many heavy requests at once: no turn within {self._wait_seconds:g} s") from error
        try:
            yield
        finally:
            self._free.release()
