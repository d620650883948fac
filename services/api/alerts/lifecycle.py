"""Alert lifecycle: pending, notified, reminded, resolved. Pure: time is an argument."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from services.api.alerts.condition import Condition, Evaluation, Severity


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that is open, and what was notified of it. Times are of the host's clock, UTC.

    Redis holds it under its first names, so that an api of another version reads it.
    """

    key: str
    severity: Severity
    what: str
    means: str
    doing: str
    todo: str
    since: datetime
    pending_since: datetime = msgspec.field(name="patient_from")
    """Begin of the time that the condition must last before it is notified; it moves on while the amount shrinks."""
    least: float | None = None
    """The smallest amount so far, where the condition has one."""
    notified: datetime | None = msgspec.field(name="told", default=None)
    """When it was notified first; None: it is pending."""
    last_notified: datetime | None = msgspec.field(name="told_last", default=None)
    cleared: datetime | None = msgspec.field(name="gone", default=None)
    """Since when the condition no longer holds; the alert is resolved once that lasts."""

    @property
    def is_firing(self) -> bool:
        """Whether the condition was notified and still holds."""
        return self.notified is not None and self.cleared is None


@dataclass(frozen=True)
class AlertPolicy:
    """How long to wait before each notification."""

    notify_after_seconds: float = 60.0
    """A condition must last this long before it is notified."""
    remind_every_seconds: float = 24 * 3600.0
    """Between reminders; 0: none."""
    resolve_after_seconds: float = 300.0
    """A condition must be cleared for this long before it is resolved: one that flaps is notified once."""


@dataclass(frozen=True)
class AlertChanges:
    """What one evaluation has to notify."""

    notified: tuple[Alert, ...] = ()
    """Alerts that are notified for the first time."""
    reminded: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()


def advance(
    alerts: Mapping[str, Alert], evaluation: Evaluation, now: datetime, policy: AlertPolicy
) -> tuple[dict[str, Alert], AlertChanges]:
    """Return the alerts that are open after an evaluation, and the changes to notify.

    An alert whose condition could not be evaluated stays as it is: unknown is not resolved.
    """
    after: dict[str, Alert] = {}
    notified, reminded, resolved = [], [], []
    for condition in evaluation.conditions:
        alert = _updated(alerts.get(condition.key), condition, now)
        if alert.notified is None:
            if _seconds(alert.pending_since, now) >= _wait_seconds(condition, policy):
                alert = msgspec.structs.replace(alert, notified=now, last_notified=now)
                notified.append(alert)
        elif policy.remind_every_seconds and _seconds(alert.last_notified or now, now) >= policy.remind_every_seconds:
            alert = msgspec.structs.replace(alert, last_notified=now)
            reminded.append(alert)
        after[alert.key] = alert
    for key in alerts.keys() - after.keys():
        alert = alerts[key]
        if evaluation.knows(key):
            if alert.notified is None:
                continue  # it passed by itself
            alert = msgspec.structs.replace(alert, cleared=alert.cleared or now)
            if _seconds(alert.cleared or now, now) >= policy.resolve_after_seconds:
                resolved.append(alert)
                continue
        after[key] = alert
    resolved.sort(key=lambda alert: alert.key)
    return after, AlertChanges(tuple(notified), tuple(reminded), tuple(resolved))


def _wait_seconds(condition: Condition, policy: AlertPolicy) -> float:
    own = condition.notify_after_seconds
    return policy.notify_after_seconds if own is None else own


def _updated(alert: Alert | None, condition: Condition, now: datetime) -> Alert:
    """Bring an alert up to date with its condition, or create it."""
    since = now - timedelta(seconds=condition.lasted_seconds)
    pending_since, least = now, condition.amount
    if alert is not None:
        since = alert.since
        shrinks = alert.least is not None and condition.amount is not None and condition.amount < alert.least
        pending_since = now if shrinks else alert.pending_since
        least = alert.least if condition.amount is None or not shrinks else condition.amount
    return Alert(
        key=condition.key,
        severity=condition.severity,
        what=condition.what,
        means=condition.means,
        doing=condition.doing,
        todo=condition.todo,
        since=since,
        pending_since=pending_since,
        least=least,
        notified=alert.notified if alert else None,
        last_notified=alert.last_notified if alert else None,
    )


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()
