"""A connection to Redis, and how it fails. Only `shared.bus` knows Redis commands and key names. I/O."""

from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError, ResponseError

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


@dataclass(frozen=True)
class Memory:
    """How much memory Redis uses, in bytes."""

    used: int
    limit: int
    """0: none."""


class Connection:
    """One connection to Redis."""

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

    async def memory(self) -> Memory:
        """Return how much memory Redis uses."""
        info = await self._redis.info("memory")
        return Memory(int(info["used_memory"]), int(info.get("maxmemory", 0)))
