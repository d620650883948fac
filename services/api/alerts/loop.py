"""The loop that evaluates the alert rules and sends notifications. I/O.

It runs beside the HTTP server and never disturbs it: messages are sent in threads of their own, and an error in here is
logged, shown by /status and tried again.
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

from services.api.alerts.condition import Thresholds
from services.api.alerts.lifecycle import Alert, AlertPolicy, advance
from services.api.alerts.message import Message, message_of
from services.api.alerts.notifiers import Notifier, by_digest
from services.api.alerts.rules import evaluate
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
"""Between two attempts to reach a target."""


class SavedAlerts(msgspec.Struct, frozen=True):
    """What outlives a restart of the api: open alerts, and messages that are not sent yet. It has no address."""

    alerts: list[Alert] = []
    waiting: dict[str, list[Message]] = {}
    """Digest of a notifier → messages."""


class AlertLoop:
    """Evaluates the rules at intervals, holds the open alerts, and notifies what changed."""

    def __init__(
        self,
        sources: Sources,
        thresholds: Thresholds | None = None,
        policy: AlertPolicy | None = None,
        notifiers: Sequence[Notifier] = (),
        *,
        every_seconds: float = 15.0,
        retry_seconds: float = 5.0,
    ) -> None:
        self.alerts: dict[str, Alert] = {}
        self.notifiers = list(notifiers)
        self._sources = sources
        self._thresholds = thresholds or Thresholds()
        self._policy = policy or AlertPolicy()
        self._every = every_seconds
        self._retry = retry_seconds
        self._restored = False
        self._saved = ""
        self._logged = (float("-inf"), "")
        self._queued = {notifier.digest: asyncio.Event() for notifier in self.notifiers}

    async def run(self, service: Service) -> None:
        """Evaluate and send until the service is stopped."""
        senders = [asyncio.create_task(self._keep_sending(notifier, service)) for notifier in self.notifiers]
        try:
            while True:
                try:
                    await self.evaluate()
                except Exception as error:  # the HTTP server must not fail with it; the api's own status reports it
                    log.exception("alerts not evaluated")
                    self._sources.health.problem("alerts", f"alerts are not evaluated: {type(error).__name__}: {error}")
                else:
                    self._sources.health.resolve("alerts")
                if not await service.pause(self._every):
                    return
        finally:
            for sender in senders:
                sender.cancel()
            with suppress(BusSilentError):  # then the next start notifies the last seconds' changes once more
                await self._save()

    async def evaluate(self) -> None:
        """Evaluate the rules once, and queue a message of what changed."""
        snapshot = await read_snapshot(self._sources)
        if snapshot.redis_problem is None and not self._restored:
            await self._restore()
        evaluation = evaluate(snapshot, await self._spaces(), self._thresholds)
        now = datetime.now(UTC)
        alerts, changes = advance(self.alerts, evaluation, now, self._policy)
        message = message_of(changes, now)
        self.alerts = alerts  # not earlier: where there is no message, nothing was notified
        if message is not None:
            log.warning("alert", title=message.title, text=message.body)
            for notifier in self.notifiers:
                self._enqueue(notifier, message)
        self._report(snapshot)
        if snapshot.redis_problem is None:
            with suppress(BusSilentError):  # the next evaluation saves it
                await self._save()

    async def _spaces(self) -> list[Space] | None:
        try:
            return await asyncio.to_thread(spaces, self._sources.data_dir, self._sources.qlib_dir)
        except OSError as error:
            log.warning("free disk space cannot be read", error=error.strerror)
            return None

    def _enqueue(self, notifier: Notifier, message: Message) -> None:
        if len(notifier.queue) == notifier.queue.maxlen:
            ALERTS_SENT.labels(notifier.name, "given up").inc()
            log.error("notification dropped, too many are queued", target=notifier.name, title=notifier.queue[0].title)
        notifier.queue.append(message)
        self._queued[notifier.digest].set()

    async def _keep_sending(self, notifier: Notifier, service: Service) -> None:
        """Send what is queued, in order; try again until it works."""
        attempt = 0
        while True:
            while not notifier.queue:
                self._queued[notifier.digest].clear()
                await self._queued[notifier.digest].wait()
            message = notifier.queue[0]
            notifier.problem = await in_a_thread(partial(notifier.send, message))
            ALERTS_SENT.labels(notifier.name, "failed" if notifier.problem else "ok").inc()
            if notifier.problem is None:
                attempt = 0
                self._sources.health.resolve(f"target {notifier.name}")
                with suppress(IndexError, ValueError):  # it was dropped meanwhile
                    notifier.queue.remove(message)
            else:
                text = f"alerts do not reach target {notifier.name}: {notifier.problem}; {len(notifier.queue)} wait"
                self._sources.health.problem(f"target {notifier.name}", text)
                await service.pause(backoff_seconds(attempt, first=self._retry, cap=_LONGEST_PAUSE_SECONDS))
                attempt += 1

    async def _restore(self) -> None:
        """Continue with the alerts and the messages of an earlier process. Raises `BusSilentError`."""
        text = await self._sources.ask(self._sources.bus.kept_alerts())
        self._restored = True
        try:
            saved = msgspec.json.decode(text or "{}", type=SavedAlerts)
        except ValueError as error:
            log.warning("saved alerts are unreadable, notifying again", error=str(error))
            return
        self.alerts = {alert.key: alert for alert in saved.alerts} | self.alerts
        for digest, notifier in by_digest(self.notifiers).items():
            for message in reversed(saved.waiting.get(digest, [])):
                notifier.queue.appendleft(message)
            self._queued[digest].set()

    async def _save(self) -> None:
        """Save what is open, where it has changed. Raises `BusSilentError`."""
        if not self._restored:
            return
        waiting = {notifier.digest: list(notifier.queue) for notifier in self.notifiers if notifier.queue}
        text = msgspec.json.encode(SavedAlerts(list(self.alerts.values()), waiting)).decode()
        if text != self._saved:
            await self._sources.ask(self._sources.bus.keep_alerts(text))
            self._saved = text

    def _report(self, snapshot: Snapshot) -> None:
        """Report the alerts in the heartbeat and as metrics; log the state when it changes, and every few minutes."""
        firing = [alert for alert in self.alerts.values() if alert.is_firing]
        unsent = sum(len(notifier.queue) for notifier in self.notifiers)
        for severity in ("critical", "warning"):
            ALERTS_OPEN.labels(severity).set(sum(alert.severity == severity for alert in firing))
        ALERTS_WAITING.set(unsent)
        self._sources.health.details["alerts"] = {
            "open": len(firing),
            "targets": len(self.notifiers),
            "unsent": unsent,
        }
        status = status_of(snapshot)
        logged, state = self._logged
        current = f"{status.redis} {[(row.service, row.verdict) for row in status.services]} {sorted(self.alerts)}"
        if current != state or time.monotonic() - logged >= _LOG_EVERY_SECONDS:
            self._logged = (time.monotonic(), current)
            log.info("state", verdict=status.verdict, open_alerts=len(firing), **summary(snapshot))


async def in_a_thread[T](work: Callable[[], T]) -> T:
    """Run blocking work in a thread that holds up neither the event loop, nor its pool, nor the end of the process."""
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - passed on to the waiter
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="alert").start()
    return await asyncio.wrap_future(done)
