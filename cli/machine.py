"""Which ports of this machine are free, and what answers on them? I/O."""

import json
import socket
import ssl
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from typing import Any

ANSWER_SECONDS = 15.0
"""Enough for days of simulated minutes in one answer, on a busy machine."""


def free_port() -> int:
    """Return a port that no one listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a process listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def open_here(url: str | urllib.request.Request, seconds: float, context: ssl.SSLContext | None = None) -> Any:
    """Open an address of this machine: never through the proxy that the environment may name. Raises `OSError`."""
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    return urllib.request.build_opener(*handlers).open(url, timeout=seconds)


def get_json(
    url: str | urllib.request.Request, context: ssl.SSLContext | None = None, seconds: float = ANSWER_SECONDS
) -> Any:
    """Return the JSON that an address of this machine answers. Raises `OSError`, also for an error status."""
    try:
        with open_here(url, seconds, context) as answer:
            return json.loads(answer.read())
    except (HTTPException, ValueError) as error:  # cut off in the middle of an answer
        where = url if isinstance(url, str) else url.full_url
        raise OSError(f"{where} answered nonsense: {error}") from error
