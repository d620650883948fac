"""`python -m services.api`: answers "is it healthy?" over HTTP."""

import asyncio
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import batched

import structlog
import uvicorn

from services.api.alerts.condition import Thresholds
from services.api.alerts.lifecycle import AlertPolicy
from services.api.alerts.loop import AlertLoop
from services.api.alerts.notifiers import Notifier, configured_notifiers
from services.api.app import create_app
from services.api.completeness.query import LONGEST
from services.api.completeness.reader import LedgerReader
from services.api.health.snapshot import Sources, redis_name
from services.api.settings import ApiSettings
from shared.grid import DAY
from shared.runtime.command import run
from shared.runtime.service import Service, running
from shared.runtime.settings import read_settings

log = structlog.get_logger()

_LAST_ANSWERS_SECONDS = 3
"""How long a stop waits for answers under way; a request takes no longer, unless the disk is slow."""
_AHEAD_DAYS = 16
_AHEAD_EVERY_SECONDS = 0.5
"""A year is read in twelve seconds, and so many days in a tenth of one, so that no request waits for long meanwhile."""
_RESOLVED_AFTER = 5
"""A condition must be cleared for this many times ALERT_AFTER before it is resolved."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: `running` has them, and sets `should_exit` by way of `stop`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Open the port. Raises `OSError`; uvicorn itself would end the process from inside."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # Its connections inherit it. An answer is written in two parts, and without this the second one waits 40 ms for the
    # client to acknowledge the first. asyncio does it only for sockets whose protocol is named, as here it is not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(settings: ApiSettings, notifiers: Sequence[Notifier]) -> int:
    """Run the api until it is stopped; return the exit code."""
    async with running("api", settings) as service:
        try:
            listener = listen(settings.api_host, settings.api_port)
        except OSError as error:
            log.error("cannot listen", host=settings.api_host, port=settings.api_port, error=error.strerror)  # noqa: TRY400 - no trace needed
            return 1
        log.info("listening", host=settings.api_host, port=listener.getsockname()[1])
        await _answer(service, settings, notifiers, listener)
    return 0


async def _answer(
    service: Service, settings: ApiSettings, notifiers: Sequence[Notifier], listener: socket.socket
) -> None:
    sources = Sources(
        bus=service.bus,
        redis_name=redis_name(settings.redis_url),
        clock=service.clock,
        health=service.health,
        data_dir=settings.data_dir,
        qlib_dir=settings.qlib_dir,
        ledger=LedgerReader(settings.data_dir),
    )
    alert_loop = _alert_loop(sources, settings, notifiers)
    config = uvicorn.Config(
        create_app(sources, alert_loop),
        log_config=None,  # through structlog, like everything
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )
    server = _Server(config)
    service.health.started = True
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        group.create_task(alert_loop.run(service))
        group.create_task(_read_ahead(service, sources.ledger))
        await service.stop.wait()
        server.should_exit = True


async def _read_ahead(service: Service, ledger: LedgerReader) -> None:
    """Read a year of ledger files into memory, the newest first: no question about a year has to wait for it.

    A file that cannot be read is left to the question about it, whose answer says so.
    """
    while not service.clock.measured:
        if not await service.pause(_AHEAD_EVERY_SECONDS):
            return
    today = service.clock.now().date()
    for days in batched((today - ahead * DAY for ahead in range(LONGEST.days)), _AHEAD_DAYS):
        if not await service.pause(_AHEAD_EVERY_SECONDS):
            return
        try:
            await asyncio.to_thread(ledger.read_ahead, days)
        except (OSError, ValueError) as error:
            log.warning("ledger not read ahead", first=str(days[-1]), last=str(days[0]), error=str(error))


def _alert_loop(sources: Sources, settings: ApiSettings, notifiers: Sequence[Notifier]) -> AlertLoop:
    thresholds = Thresholds(
        symbol_minutes=settings.alert_symbol_minutes,
        free_share=settings.alert_disk_free / 100,
    )
    policy = AlertPolicy(
        notify_after_seconds=settings.alert_after,
        remind_every_seconds=settings.alert_again * 3600,
        resolve_after_seconds=_RESOLVED_AFTER * settings.alert_after,
    )
    return AlertLoop(sources, thresholds, policy, notifiers, every_seconds=settings.alert_every)


def main() -> None:
    """Answer "is it healthy?" over HTTP: status, lag, universe, datasets, metrics. Read only; docs at /docs.

    Notifies the targets of ALERT_URLS of what is wrong.

    Settings come from the environment and `.env`; see .env.example.
    """
    settings = read_settings(ApiSettings)
    sys.exit(asyncio.run(serve(settings, configured_notifiers(settings.alert_urls))))


if __name__ == "__main__":
    run(main)
