"""Is a service alive? `python -m shared.runtime.heartbeat writer` exits 0 or 1; Docker's health check runs it."""

import asyncio
import sys
from typing import Annotated

import typer

from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.runtime.command import run
from shared.runtime.settings import CommonSettings, read_settings

BEAT_SECONDS = 5
TTL_SECONDS = 20
"""Four beats: one lost beat raises no alarm, a dead process does within 20 s."""


def main(service: Annotated[str, typer.Argument(help="Name of the service, such as writer")]) -> None:
    """Exit 0 where the service has beaten within the last 20 seconds, 1 where it has not."""
    sys.exit(asyncio.run(_check(service)))


async def _check(service: str) -> int:
    bus = Bus(str(read_settings(CommonSettings).redis_url))
    try:
        beat = await bus.heartbeat(service)
    except BusError as error:
        typer.echo(f"{service}: Redis does not answer: {error}", err=True)
        return 1
    finally:
        await bus.close()
    if beat is None:
        typer.echo(f"{service}: no heartbeat within {TTL_SECONDS} s", err=True)
        return 1
    typer.echo(f"{service}: {beat.state}: {beat.reason}")
    return 0


if __name__ == "__main__":
    run(main)
