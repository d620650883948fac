"""When a condition is told, told again, and told to be over; and in which words. Pure: time is an argument."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from services.api.alerts.conditions import Condition, Judgement, Severity
from services.api.text import duration, instant


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that is open, and what was told of it. Times are of the host's clock, UTC."""

    key: str
    severity: Severity
    what: str
    means: str
    doing: str
    todo: str
    since: datetime
    patient_from: datetime
    """From when on it is waited whether it passes by itself."""
    least: float | None = None
    """The least that there was of it, where it is an amount."""
    told: datetime | None = None
    """When it was told first; None: not yet."""
    told_last: datetime | None = None
    gone: datetime | None = None
    """Since when it is away; its recovery is told once it stays away."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, all of one evaluation in one piece."""

    title: str
    body: str
    severity: Severity | None
    """None: something is over, and nothing new is wrong."""


@dataclass(frozen=True)
class Patience:
    """How long to wait before a word is said."""

    after_seconds: float = 60.0
    """A condition must last this long before it is told."""
    again_seconds: float = 24 * 3600.0
    """Between reminders; 0: none."""
    settled_seconds: float = 300.0
    """A told condition must be away for this long before its recovery is told: what flaps is told once."""


@dataclass(frozen=True)
class Tidings:
    """What is to be told after one evaluation."""

    opened: tuple[Alert, ...] = ()
    reminded: tuple[Alert, ...] = ()
    recovered: tuple[Alert, ...] = ()


def step(
    alerts: Mapping[str, Alert], judgement: Judgement, now: datetime, patience: Patience
) -> tuple[dict[str, Alert], Tidings]:
    """Return the alerts that are open after an evaluation, and what of them is news.

    An alert whose condition cannot be judged stays as it is: not knowing is no recovery.
    """
    after: dict[str, Alert] = {}
    opened, reminded, recovered = [], [], []
    for condition in judgement.conditions:
        alert = _seen(alerts.get(condition.key), condition, now)
        if alert.told is None:
            wait = patience.after_seconds if condition.after_seconds is None else condition.after_seconds
            if _seconds(alert.patient_from, now) >= wait:
                alert = msgspec.structs.replace(alert, told=now, told_last=now)
                opened.append(alert)
        elif patience.again_seconds and _seconds(alert.told_last or now, now) >= patience.again_seconds:
            alert = msgspec.structs.replace(alert, told_last=now)
            reminded.append(alert)
        after[alert.key] = alert
    for key in alerts.keys() - after.keys():
        alert = alerts[key]
        if judgement.knows(key):
            if alert.told is None:
                continue  # it passed by itself
            alert = msgspec.structs.replace(alert, gone=alert.gone or now)
            if _seconds(alert.gone or now, now) >= patience.settled_seconds:
                recovered.append(alert)
                continue
        after[key] = alert
    return after, Tidings(tuple(opened), tuple(reminded), tuple(sorted(recovered, key=lambda alert: alert.key)))


def _seen(alert: Alert | None, condition: Condition, now: datetime) -> Alert:
    """Bring an alert up to date with its condition, or make it."""
    since = now - timedelta(seconds=condition.lasted_seconds)
    waits, least = now, condition.amount
    if alert is not None:
        since = alert.since
        shrinks = alert.least is not None and condition.amount is not None and condition.amount < alert.least
        waits = now if shrinks else alert.patient_from
        least = alert.least if condition.amount is None or not shrinks else condition.amount
    return Alert(
        key=condition.key,
        severity=condition.severity,
        what=condition.what,
        means=condition.means,
        doing=condition.doing,
        todo=condition.todo,
        since=since,
        patient_from=waits,
        least=least,
        told=alert.told if alert else None,
        told_last=alert.told_last if alert else None,
    )


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


# --- In words

_IN_FULL = 8
"""So many alerts are told with everything; the others by name. Messengers cut off, or refuse, what is long."""
_BY_NAME = 20


def message_of(tidings: Tidings, now: datetime) -> Message | None:
    """Spell the news of one evaluation as one message; None where there is none."""
    wrong = sorted(tidings.opened, key=_worst_first)
    still = sorted(tidings.reminded, key=_worst_first)
    if not (wrong or still or tidings.recovered):
        return None
    paragraphs = [
        *_told(wrong, "", now),
        *_told(still, "Still: ", now),
        *_told(tidings.recovered, "Over: ", now),
    ]
    severities = [alert.severity for alert in (*wrong, *still)]
    severity = min(severities, key=("critical", "warning").index) if severities else None
    return Message(title=_title(tidings), body="\n\n".join(paragraphs), severity=severity)


def _worst_first(alert: Alert) -> tuple[bool, datetime, str]:
    return alert.severity != "critical", alert.since, alert.key


def _title(tidings: Tidings) -> str:
    counts = (
        (len(tidings.opened), "new"),
        (len(tidings.reminded), "still open"),
        (len(tidings.recovered), "over"),
    )
    parts = [f"{count} {word}" for count, word in counts if count]
    named = (*tidings.opened, *tidings.reminded, *tidings.recovered)
    if len(named) == 1:
        state = "" if tidings.opened else "still: " if tidings.reminded else "over: "
        return f"qlib-crypto: {state}{named[0].what}"
    return f"qlib-crypto: {', '.join(parts)}"


def _told(alerts: Iterable[Alert], prefix: str, now: datetime) -> list[str]:
    told = list(alerts)
    paragraphs = [_recovery(alert) if alert.gone else _paragraph(alert, prefix, now) for alert in told[:_IN_FULL]]
    if rest := told[_IN_FULL:]:
        names = ", ".join(alert.key for alert in rest[:_BY_NAME])
        more = f", and {len(rest) - _BY_NAME} more" if len(rest) > _BY_NAME else ""
        paragraphs.append(f"{prefix}{len(rest)} more: {names}{more}; GET /alerts has all that is open")
    return paragraphs


def _paragraph(alert: Alert, prefix: str, now: datetime) -> str:
    lines = [
        f"{prefix}{alert.what}",
        f"since {instant(alert.since)} ({duration(_seconds(alert.since, now))}), {alert.severity}: {alert.means}",
        f"The system: {alert.doing}",
        f"To do: {alert.todo or 'nothing'}",
    ]
    return "\n".join(lines)


def _recovery(alert: Alert) -> str:
    end = alert.gone or alert.since
    return f"Over: {alert.what}\nlasted {duration(_seconds(alert.since, end))}, until {instant(end)}"
