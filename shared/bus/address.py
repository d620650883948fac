"""Is the rest of a Redis URL one that redis-py takes? Only `shared.bus` knows redis-py."""

from typing import Any
from urllib.parse import parse_qs

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, ConnectionPool
from redis.exceptions import RedisError


def check_options(url: str, query: str) -> None:
    """Raise `ValueError`, which shows no password, where redis-py would fail later on an option of the URL."""
    options = parse_qs(query, keep_blank_values=True)
    known = {*URL_QUERY_ARGUMENT_PARSERS, "client_name"} - {"timeout"}  # of a kind of pool that is not used here
    unknown = [name for name in options if name not in known and not name.startswith("ssl_")]
    if unknown:
        raise ValueError(
            f"has options that are none: {', '.join(unknown)}; allowed are {', '.join(sorted(known))}, ssl_*"
        )
    try:
        usable = all(values != [""] for values in options.values())
        pool: Any = ConnectionPool.from_url(url)
        pool.make_connection()
    except (RedisError, TypeError, ValueError):
        usable = False
    if not usable or pool.connection_kwargs.get("db", 0) < 0:
        raise ValueError(f"has options whose values redis-py does not take, among {', '.join(options)}")
