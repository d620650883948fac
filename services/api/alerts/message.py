"""The text of a notification. Pure."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from services.api.alerts.condition import Severity
from services.api.alerts.lifecycle import Alert, AlertChanges
from services.api.text import duration, instant

_IN_FULL = 8
"""Alerts that a message has in full; it has the others by name. Messengers truncate, or refuse, what is long."""
_BY_NAME = 20


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: all changes of one evaluation in one piece."""

    title: str
    body: str
    severity: Severity | None
    """None: something is resolved, and nothing is wrong that was not notified before."""


def message_of(changes: AlertChanges, now: datetime) -> Message | None:
    """Return the changes of one evaluation as one message; None where there is none."""
    new = sorted(changes.notified, key=_worst_first)
    still = sorted(changes.reminded, key=_worst_first)
    if not (new or still or changes.resolved):
        return None
    paragraphs = [
        *_paragraphs(new, "", now),
        *_paragraphs(still, "Still: ", now),
        *_paragraphs(changes.resolved, "Resolved: ", now),
    ]
    severities = [alert.severity for alert in (*new, *still)]
    severity = min(severities, key=("critical", "warning").index) if severities else None
    return Message(title=_title(changes), body="\n\n".join(paragraphs), severity=severity)


def _worst_first(alert: Alert) -> tuple[bool, datetime, str]:
    return alert.severity != "critical", alert.since, alert.key


def _title(changes: AlertChanges) -> str:
    counts = (
        (len(changes.notified), "new"),
        (len(changes.reminded), "still open"),
        (len(changes.resolved), "resolved"),
    )
    named = (*changes.notified, *changes.reminded, *changes.resolved)
    if len(named) == 1:
        prefix = "" if changes.notified else "still: " if changes.reminded else "resolved: "
        return f"qlib-crypto: {prefix}{named[0].what}"
    return f"qlib-crypto: {', '.join(f'{count} {word}' for count, word in counts if count)}"


def _paragraphs(alerts: Iterable[Alert], prefix: str, now: datetime) -> list[str]:
    listed = list(alerts)
    paragraphs = [
        _resolution(alert, prefix) if alert.cleared else _paragraph(alert, prefix, now) for alert in listed[:_IN_FULL]
    ]
    if rest := listed[_IN_FULL:]:
        names = ", ".join(alert.key for alert in rest[:_BY_NAME])
        more = f", and {len(rest) - _BY_NAME} more" if len(rest) > _BY_NAME else ""
        paragraphs.append(f"{prefix}{len(rest)} more: {names}{more}; GET /alerts has all that is open")
    return paragraphs


def _paragraph(alert: Alert, prefix: str, now: datetime) -> str:
    lasted = duration((now - alert.since).total_seconds())
    lines = [
        f"{prefix}{alert.what}",
        f"since {instant(alert.since)} ({lasted}), {alert.severity}: {alert.means}",
        f"The system: {alert.doing}",
        f"To do: {alert.todo or 'nothing'}",
    ]
    return "\n".join(lines)


def _resolution(alert: Alert, prefix: str) -> str:
    end = alert.cleared or alert.since
    lasted = duration((end - alert.since).total_seconds())
    return f"{prefix}{alert.what}\nlasted {lasted}, until {instant(end)}"
