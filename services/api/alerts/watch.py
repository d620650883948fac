"""The watch that tells what is wrong unasked. I/O.

It runs beside the HTTP server and never disturbs it: sending happens in threads of its own, and whatever goes wrong in
here is logged, shown by /status and tried again.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog

from services.api.alerts.conditions import Thresholds, conditions
from services.api.alerts.lifecycle import Alert, Message, Patience, message_of, step
from services.api.alerts.targets import Target, fingerprints
from services.api.disk import Space, spaces
from services.api.health.lag import summary
from services.api.health.snapshot import BusSilentError, Snapshot, Sources, read_snapshot
from services.api.health.status import status_of
from services.api.metrics import ALERTS_OPEN, ALERTS_SENT, ALERTS_WAITING
from shared.backoff import backoff_seconds
from shared.runtime.service import Service

log = structlog.get_logger()

_LOG_EVERY_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 300.0
"""Between two tries to reach a target."""


class Kept(msgspec.Struct, frozen=True):
    """What outlives a restart of the api: what was told, and what could not be sent yet. It holds no address."""

    alerts: list[Alert] = []
    waiting: dict[str, list[Message]] = {}
    """Target's digest → messages."""


class Watch:
    """What is open now, and who is told."""

    def __init__(
        self,
        sources: Sources,
        thresholds: Thresholds | None = None,
        patience: Patience | None = None,
        told: Sequence[Target] = (),
        *,
        every_seconds: float = 15.0,
        retry_seconds: float = 5.0,
    ) -> None:
        self.alerts: dict[str, Alert] = {}
        self.targets = list(told)
        self._sources = sources
        self._thresholds = thresholds or Thresholds()
        self._patience = patience or Patience()
        self._every = every_seconds
        self._retry = retry_seconds
        self._knows_kept = False
        self._kept = ""
        self._logged = (float("-inf"), "")
        self._waiting = {target.digest: asyncio.Event() for target in self.targets}

    async def run(self, service: Service) -> None:
        """Evaluate and send until the service is stopped."""
        senders = [asyncio.create_task(self._keep_sending(target, service)) for target in self.targets]
        try:
            while True:
                try:
                    await self.evaluate()
                except Exception as error:  # the HTTP server must not fall with it; the verdict on the api tells it
                    log.exception("alerts not evaluated")
                    self._sources.health.problem("alerts", f"alerts are not evaluated: {type(error).__name__}: {error}")
                else:
                    self._sources.health.solved("alerts")
                if not await service.pause(self._every):
                    return
        finally:
            for sender in senders:
                sender.cancel()
            with suppress(BusSilentError):  # then the next start tells once more what was told in the last seconds
                await self._keep()

    async def evaluate(self) -> None:
        """Look once, and hand what is news to the senders."""
        snapshot = await read_snapshot(self._sources)
        if snapshot.redis_problem is None and not self._knows_kept:
            await self._take_up()
        judgement = conditions(snapshot, await self._spaces(), self._thresholds)
        now = datetime.now(UTC)
        alerts, tidings = step(self.alerts, judgement, now, self._patience)
        message = message_of(tidings, now)
        self.alerts = alerts  # not earlier: what could not be put into words was not told
        if message is not None:
            log.warning("alert", title=message.title, text=message.body)
            for target in self.targets:
                self._hand_over(target, message)
        self._tell(snapshot)
        if snapshot.redis_problem is None:
            with suppress(BusSilentError):  # the next evaluation keeps it
                await self._keep()

    async def _spaces(self) -> list[Space] | None:
        try:
            return await asyncio.to_thread(spaces, self._sources.data_dir, self._sources.qlib_dir)
        except OSError as error:
            log.warning("nobody knows how full the disk is", error=error.strerror)
            return None

    def _hand_over(self, target: Target, message: Message) -> None:
        if len(target.waiting) == target.waiting.maxlen:
            ALERTS_SENT.labels(target.name, "given up").inc()
            log.error("alert given up, too many wait", target=target.name, title=target.waiting[0].title)
        target.waiting.append(message)
        self._waiting[target.digest].set()

    async def _keep_sending(self, target: Target, service: Service) -> None:
        """Send what waits, in order; try again until it works."""
        attempt = 0
        while True:
            while not target.waiting:
                self._waiting[target.digest].clear()
                await self._waiting[target.digest].wait()
            message = target.waiting[0]
            target.problem = await in_a_thread(partial(target.send, message))
            ALERTS_SENT.labels(target.name, "failed" if target.problem else "ok").inc()
            if target.problem is None:
                attempt = 0
                self._sources.health.solved(f"target {target.name}")
                with suppress(IndexError, ValueError):  # it was given up meanwhile
                    target.waiting.remove(message)
            else:
                text = f"alerts do not reach target {target.name}: {target.problem}; {len(target.waiting)} wait"
                self._sources.health.problem(f"target {target.name}", text)
                await service.pause(backoff_seconds(attempt, first=self._retry, cap=_LONGEST_PAUSE_SECONDS))
                attempt += 1

    async def _take_up(self) -> None:
        """Take over what an earlier process told and could not send. Raises `BusSilentError`."""
        text = await self._sources.ask(self._sources.bus.kept_alerts())
        self._knows_kept = True
        try:
            kept = msgspec.json.decode(text or "{}", type=Kept)
        except ValueError as error:
            log.warning("alerts of an earlier process make no sense, telling anew", error=str(error))
            return
        self.alerts = {alert.key: alert for alert in kept.alerts} | self.alerts
        for digest, target in fingerprints(self.targets).items():
            for message in reversed(kept.waiting.get(digest, [])):
                target.waiting.appendleft(message)
            self._waiting[digest].set()

    async def _keep(self) -> None:
        """Keep what is open, where it has changed. Raises `BusSilentError`."""
        if not self._knows_kept:
            return
        waiting = {target.digest: list(target.waiting) for target in self.targets if target.waiting}
        text = msgspec.json.encode(Kept(list(self.alerts.values()), waiting)).decode()
        if text != self._kept:
            await self._sources.ask(self._sources.bus.keep_alerts(text))
            self._kept = text

    def _tell(self, snapshot: Snapshot) -> None:
        """Say how it stands: in the heartbeat, as metrics, and every few minutes or upon a change in the log."""
        open_now = [alert for alert in self.alerts.values() if alert.told and not alert.gone]
        unsent = sum(len(target.waiting) for target in self.targets)
        for severity in ("critical", "warning"):
            ALERTS_OPEN.labels(severity).set(sum(alert.severity == severity for alert in open_now))
        ALERTS_WAITING.set(unsent)
        self._sources.health.details["alerts"] = {
            "open": len(open_now),
            "targets": len(self.targets),
            "unsent": unsent,
        }
        status = status_of(snapshot)
        logged, state = self._logged
        current = f"{status.redis} {[(row.service, row.verdict) for row in status.services]} {sorted(self.alerts)}"
        if current != state or time.monotonic() - logged >= _LOG_EVERY_SECONDS:
            self._logged = (time.monotonic(), current)
            log.info("state", verdict=status.verdict, open_alerts=len(open_now), **summary(snapshot))


async def in_a_thread[T](work: Callable[[], T]) -> T:
    """Run blocking work in a thread that holds up neither the event loop, nor its pool, nor the end of the process."""
    done: Future[T] = Future()

    def work_and_tell() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed over to whoever waits
            done.set_exception(error)

    threading.Thread(target=work_and_tell, daemon=True, name="alert").start()
    return await asyncio.wrap_future(done)
