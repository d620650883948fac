"""What every service does besides its work: logs, metrics, the exchange's clock, heartbeat, a clean stop."""

import asyncio
import errno
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from shared.backoff import backoff_seconds
from shared.bus.bus import Bus
from shared.bus.connection import BusError, failure_of
from shared.bus.heartbeat import Cadence, Heartbeat
from shared.bus.set_aside import SetAside
from shared.clock import ExchangeClock
from shared.exchanges.base import Exchange, ExchangeError
from shared.exchanges.registry import open_exchange
from shared.metrics import CLOCK_OFFSET, CLOCK_RATE, UP, serve_metrics
from shared.runtime.heartbeat import BEAT_SECONDS, TTL_SECONDS
from shared.runtime.log import setup_logging
from shared.runtime.settings import CommonSettings

log = structlog.get_logger()

#: How often the clock is measured. A clock that runs at another rate than ours drifts faster.
_MEASURE_SECONDS = 10.0
_MEASURE_SECONDS_ACCELERATED = 2.0
_MEASURE_SECONDS_UNSETTLED = 0.5
_MEASURE_SECONDS_DISPUTED = 4.0
_FAILURES_REPORTED = 3
"""Failed measurements in a row until the problem is reported."""
_HOST_SECONDS = 300.0
"""A first measurement further from the host's clock than this is compared with rows before it is accepted."""
_STEADY_SECONDS = 60.0
"""A background task that has run for this long counts as recovered."""
_MOST_REASON = 500
"""Characters of an error that a problem shows."""


@dataclass
class Health:
    """What the service reports about itself in its heartbeat. Several causes may be open at once."""

    problems: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    started: bool = False

    def problem(self, cause: str, reason: str) -> None:
        """Open a cause, with a sentence for the operator."""
        if self.problems.get(cause) != reason:
            log.warning("degraded", cause=cause, reason=reason)
        self.problems[cause] = reason

    def resolve(self, cause: str) -> None:
        """Close a cause."""
        if self.problems.pop(cause, None) is not None:
            log.info("recovered", cause=cause)

    @property
    def state(self) -> str:
        """Return `degraded` while a cause is open, `starting` before the first work, else `ok`."""
        if self.problems:
            return "degraded"
        return "ok" if self.started else "starting"

    @property
    def reason(self) -> str:
        """Return the open causes as a sentence."""
        return "; ".join(self.problems.values()) or ("works" if self.started else "starting")


@dataclass
class Service:
    """A running service: its name, its connections, and the event that stops it."""

    name: str
    bus: Bus
    exchange: Exchange
    clock: ExchangeClock
    health: Health
    stop: asyncio.Event
    cadence: Cadence | None = None
    """When its results are due; published in the heartbeat."""
    set_aside: SetAside = field(init=False)
    """Takes invalid input, which becomes a dead letter."""

    def __post_init__(self) -> None:
        self.set_aside = SetAside(self.bus, self.name)

    async def pause(self, seconds: float) -> bool:
        """Sleep, at most until the service is stopped; return whether to go on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return not self.stop.is_set()

    async def unless_stopped[T](self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await some work; cancel it once the service is asked to stop, and return None."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stopped.cancel()

    async def until_bus_answers[T](self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call to the bus until it succeeds, without end, with a capped and jittered wait.

        Raises `asyncio.CancelledError` once the service is asked to stop.
        """
        attempt = 0
        while True:
            try:
                result = await call()
            except BusError as error:
                self.health.problem("redis", f"Redis {failure_of(error)}, trying again")
                if not await self.pause(backoff_seconds(attempt, cap=5.0)):
                    raise asyncio.CancelledError from error
                attempt += 1
            else:
                self.health.resolve("redis")
                return result


@contextmanager
def suppress_at_stop(service: Service) -> Iterator[None]:
    """Let a loop end where `until_bus_answers` gives up since the service stops."""
    try:
        yield
    except asyncio.CancelledError:
        if not service.stop.is_set():
            raise


@asynccontextmanager
async def running(name: str, settings: CommonSettings, *, metrics_port: int = 0) -> AsyncIterator[Service]:
    """Set up a service, keep its clock and heartbeat running, and shut it down cleanly.

    SIGTERM and SIGINT set `stop`; the service ends its loops, flushes what it holds and returns.
    """
    setup_logging(name, settings.log_level, settings.log_format)
    try:
        serve_metrics(settings.metrics_host, metrics_port)
    except OSError as error:
        raise SystemExit(_port_taken(name, settings.metrics_host, metrics_port, error)) from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bus = Bus(str(settings.redis_url))
    async with open_exchange(settings.exchange, settings.okx_rest_url, ca_file=settings.okx_ca_file) as exchange:
        clock = ExchangeClock(distrusted=True)
        service = Service(name, bus, exchange, clock, Health(), stop, settings.cadence)
        companions = [
            asyncio.create_task(keep_going(service, "clock", lambda: keep_clock(service)), name="clock"),
            asyncio.create_task(keep_going(service, "heartbeat", lambda: _keep_beating(service)), name="heartbeat"),
            asyncio.create_task(keep_going(service, "dead letters", service.set_aside.run), name="dead letters"),
        ]
        if exchange.proxy is not None:
            log.info("the exchange is reached through a proxy", proxy=str(exchange.proxy))
        log.info("started")
        try:
            yield service
        finally:
            for task in companions:
                task.cancel()
            await asyncio.gather(*companions, return_exceptions=True)
            await bus.close()
            log.info("stopped")


def _port_taken(name: str, host: str, port: int, error: OSError) -> int:
    """Print on stderr why the metrics cannot be served, and return the exit code of a wrong setting."""
    reason = error.strerror or error
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        problem = f"wrong setting: METRICS_HOST={host!r}: {reason}; it must be an address of this machine, or its name"
    else:
        setting = f"{name.upper()}_METRICS_PORT={port}"
        problem = f"wrong setting: {setting}: cannot listen on {host}: {reason}; set another one, or 0"
    print(problem, file=sys.stderr)  # noqa: T201 - the sentence that the operator looks for
    return 2


async def wait_for_clock(service: Service, *, patience_seconds: float | None = None) -> bool:
    """Wait until the exchange's clock is measured; return whether it is, within the time given."""
    waited = 0.0
    while not service.clock.measured and (patience_seconds is None or waited < patience_seconds):
        if not await service.pause(0.05):
            break
        waited += 0.05
    return service.clock.measured


async def keep_going(service: Service, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Keep a background task running: one that fails is logged, reported as a problem, and restarted after a wait.

    The problem is solved once the task has run for a while.
    """
    attempt = 0
    while True:
        task = asyncio.ensure_future(work())
        try:
            done, _ = await asyncio.wait({task}, timeout=_STEADY_SECONDS)
            if not done:
                service.health.resolve(f"task {name}")
                attempt = 0
            await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        except Exception as error:  # of any kind: the other tasks go on, and the failure is reported
            log.exception("background task failed", task=name)
            reason = f"the background task {name!r} fails, restarting it: {type(error).__name__}: {error}"
            service.health.problem(f"task {name}", reason[:_MOST_REASON])
        await asyncio.sleep(backoff_seconds(attempt))
        attempt += 1


async def keep_clock(service: Service) -> None:
    """Measure the exchange's clock: often until its rate is known, then at longer intervals."""
    attempt = 0
    while True:
        try:
            service.clock.add(await service.exchange.measure_time())
            wrong = await _check_against_rows(service)
        except ExchangeError as error:
            attempt += 1
            if attempt >= _FAILURES_REPORTED:  # all services ask, and the endpoint takes 5 requests a second
                service.health.problem("clock", f"the exchange does not report its time: {error}")
            await asyncio.sleep(backoff_seconds(attempt))
            continue
        if wrong:
            service.health.problem("clock", wrong)
        else:
            service.health.resolve("clock")
        CLOCK_OFFSET.set(service.clock.offset_seconds)
        CLOCK_RATE.set(service.clock.rate)
        attempt = 0
        await asyncio.sleep(_until_next_measurement(service.clock) * random.uniform(0.7, 1.3))


def _until_next_measurement(clock: ExchangeClock) -> float:
    """Return our seconds until the clock is to be measured again."""
    if clock.disputed or clock.still_denied:
        return _MEASURE_SECONDS_DISPUTED
    if not clock.settled:
        return _MEASURE_SECONDS_UNSETTLED
    return _MEASURE_SECONDS if clock.rate == 1.0 else _MEASURE_SECONDS_ACCELERATED


async def _check_against_rows(service: Service) -> str | None:
    """Compare the exchange's clock with its rows where the clock is in doubt; return what is wrong, or None.

    In doubt are a first measurement far from the host's clock (which may itself be wrong, or beside a simulator), every
    jump, and a time that stands still. Raises `ExchangeError` where the rows cannot be fetched.
    """
    clock = service.clock
    if await _is_standstill_denied(service):
        return f"{_standstill(clock)}, while newer rows come: not believed, the clock goes on at its measured rate"
    if clock.distrusted and clock.fitted and (clock.rate > 0 or clock.still_time is not None):
        if abs(clock.offset_seconds) > _HOST_SECONDS:
            seen = await service.exchange.newest_row_time()
            if seen is not None and not clock.confirms(seen, time.monotonic()):
                measured = clock.now()
                clock.forget()
                return f"the exchange's clock is at {measured:%F %T} UTC, its newest row at {seen:%F %T}: not believed"
        clock.distrusted = False
    if clock.disputed and clock.is_ripe:
        seen = await service.exchange.newest_row_time()
        if seen is not None and clock.decide(seen, time.monotonic()):
            log.warning("the exchange's clock was set, which its rows confirm", now=clock.now().isoformat())
    if clock.still_time is not None:
        return f"{_standstill(clock)}, and its rows are not newer: until it moves on, no minute is over"
    if not clock.disputed:
        return None
    return (
        f"the exchange's clock has jumped by {clock.jump_seconds:+,.0f} s, which its rows do not confirm yet: "
        "meanwhile no minute becomes absent and nothing is deleted"
    )


async def _is_standstill_denied(service: Service) -> bool:
    """Return whether the exchange's time stands still while its rows go on."""
    clock = service.clock
    if clock.still_time is None or clock.still_denied:
        return clock.still_denied
    seen = await service.exchange.newest_row_time()
    return seen is not None and clock.deny_standstill(seen)


def _standstill(clock: ExchangeClock) -> str:
    return f"the exchange's time stands still at {clock.still_time:%F %T} UTC"


async def _keep_beating(service: Service) -> None:
    started = datetime.now(UTC)
    while True:
        UP.labels(service.name).set(0 if service.health.problems else 1)
        beat = Heartbeat(
            service=service.name,
            state=service.health.state,
            reason=service.health.reason,
            ready=service.health.started,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=started,
            beaten=datetime.now(UTC),
            exchange_time=service.clock.now() if service.clock.measured else None,
            cadence=service.cadence,
            details=service.health.details,
            problems=service.health.problems,
        )
        try:
            await service.bus.beat(beat, TTL_SECONDS)
        except BusError as error:
            log.warning("heartbeat not written", error=str(error))
        await asyncio.sleep(BEAT_SECONDS if service.health.started else 1)
