"""Numbers → a verdict and a sentence a person understands. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

from services.api.completeness.days import sentence
from services.api.health.cadence import cadence_of
from services.api.health.snapshot import API, SERVICES, ClockReading, Snapshot
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import CAPS, GroupLag
from shared.runtime.heartbeat import TTL_SECONDS

LAGGING_SECONDS = 120.0
"""Beyond one flush and a second try after a hiccup: an entry that waits for longer is not merely on its way."""
NEAR_CAP = 0.8
"""Share of a stream's hard cap from which on a backlog is about to lose its oldest entries, however young."""
WRITTEN_STALE_SECONDS = 300.0
"""A minute is written some 75 s after it opened; a reconnect with its backfill takes up to three minutes more."""
RANKED_STALE_SECONDS = 900.0
"""Beyond the interval between rankings: the exchange may be in maintenance for some minutes at that instant."""
CONVERTED_STALE_SECONDS = 2 * 3600.0
"""Beyond the interval between conversions: a long run, and its repetition after a failure."""
DATA_STALE_SECONDS = {"candles": 90.0, "funding": 360.0}
"""Thrice the silence after which the collector opens a new connection: then two new ones did not help."""

SETTLED_STALE_SECONDS = 1800.0
"""The history shows a settlement minutes after it, and is asked for it again and again."""
_NAMED = 5
"""Settlements that a sentence names."""


class Verdict(StrEnum):
    """How a service, or the whole system, is."""

    OK = "ok"
    STALE = "stale"
    LAGGING = "lagging"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    DOWN = "down"


_WORST_FIRST = (
    Verdict.DOWN,
    Verdict.UNKNOWN,
    Verdict.DEGRADED,
    Verdict.LAGGING,
    Verdict.STALE,
    Verdict.OK,
)


class ServiceStatus(BaseModel):
    """How one service is."""

    service: str
    verdict: Verdict = Field(
        description="ok: works. stale: its newest result is too old. lagging: entries wait too long for it. "
        "degraded: it says itself what is wrong, or it is starting. down: no heartbeat. unknown: nobody can tell."
    )
    reason: str = Field(description="The verdict as a sentence")
    host: str | None = Field(None, description="Host that the service runs on")
    pid: int | None = Field(None, description="Its process there")
    started: datetime | None = Field(None, description="Since when it runs, on its host's clock")
    beaten: datetime | None = Field(None, description="Its last heartbeat, on its host's clock")
    details: dict[str, Any] = Field(default_factory=dict, description="What it tells about its work")


class ClockStatus(BaseModel):
    """The exchange's clock: every age and every 'is it late' is on it."""

    exchange_time: datetime = Field(description="What time it is at the exchange")
    offset_seconds: float = Field(description="How far the exchange's clock is ahead of the host's")
    rate: float = Field(description="Seconds that pass at the exchange in one of ours")
    source: Literal["exchange", "host"] = Field(description="host: the exchange has not told its time yet")


class Status(BaseModel):
    """How everything is."""

    verdict: Verdict = Field(description="The worst verdict of all services; down where Redis does not answer")
    reason: str = Field(description="The verdict as a sentence")
    redis: str = Field(description="ok, or why Redis does not answer")
    clock: ClockStatus
    services: list[ServiceStatus]
    dead_letters: int | None = Field(description="Inputs that were set aside; null where nobody can tell")


type Finding = tuple[Verdict, str]

_MARKS = {"writer": "written_until", "converter": "converted_until"}
"""Service → the watermark that it moves."""


def status_of(snapshot: Snapshot) -> Status:
    """Judge every service and the whole."""
    rows = [_service(service, snapshot) for service in (*SERVICES, API)]
    wrong = [row for row in rows if row.verdict is not Verdict.OK]
    if snapshot.redis_problem is not None:
        verdict, reason = Verdict.DOWN, f"{snapshot.redis_problem}: without it nobody can tell how the services are"
    else:
        verdict = min((row.verdict for row in rows), key=_WORST_FIRST.index)
        reason = "; ".join(row.reason for row in wrong) or "everything works"
    return Status(
        verdict=verdict,
        reason=reason,
        redis=snapshot.redis_problem or "ok",
        clock=clock_status(snapshot.clock),
        services=rows,
        dead_letters=snapshot.dead_letters if snapshot.redis_problem is None else None,
    )


def not_ready(snapshot: Snapshot) -> list[str]:
    """Return why the system is not ready: a sentence for each service that has not come up."""
    if snapshot.redis_problem is not None:
        return [snapshot.redis_problem]
    presences = ((service, _presence(service, snapshot)) for service in SERVICES)
    return [f"{service}: {finding[1]}" for service, finding in presences if finding is not None]


def clock_status(clock: ClockReading) -> ClockStatus:
    """Spell the clock's reading."""
    return ClockStatus(
        exchange_time=clock.exchange_time,
        offset_seconds=round(clock.offset_seconds, 3),
        rate=round(clock.rate, 6),
        source="exchange" if clock.measured else "host",
    )


def duration(seconds: float) -> str:
    """Spell a duration the way a person says it: 45 s, 3 min, 5 h, 4 days."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _service(service: str, snapshot: Snapshot) -> ServiceStatus:
    verdict, reason = _judge_api(snapshot) if service == API else _judge(service, snapshot)
    beat = snapshot.heartbeats.get(service)
    return ServiceStatus(
        service=service,
        verdict=verdict,
        reason=f"{service}: {reason}",
        host=beat and beat.host,
        pid=beat and beat.pid,
        started=beat and beat.started,
        beaten=beat and beat.beaten,
        details=_details(service, snapshot),
    )


def _details(service: str, snapshot: Snapshot) -> dict[str, Any]:
    beat = snapshot.heartbeats.get(service)
    details = dict(beat.details) if beat else {}
    mark = _MARKS.get(service)
    if mark is not None and mark in snapshot.watermarks:  # it outlives a restart, the heartbeat's details do not
        details[mark] = snapshot.watermarks[mark]
    return details


def _judge_api(snapshot: Snapshot) -> Finding:
    problems = [*([snapshot.redis_problem] if snapshot.redis_problem else []), *snapshot.problems.values()]
    return (Verdict.DEGRADED, "; ".join(problems)) if problems else (Verdict.OK, "works")


def _judge(service: str, snapshot: Snapshot) -> Finding:
    """Return the first finding in the order of how much it explains: a service that is down also lags."""
    if snapshot.redis_problem is not None:
        return Verdict.UNKNOWN, "nobody can tell while Redis does not answer"
    if (finding := _presence(service, snapshot)) is not None:
        return finding
    beat = snapshot.heartbeats[service]
    if beat.state != "ok":
        return Verdict.DEGRADED, beat.reason
    if (finding := next(findings(service, snapshot), None)) is not None:
        return finding
    if service == "collector" and (unsettled := overdue_settlements(snapshot)):
        return Verdict.STALE, unsettled_sentence(unsettled)
    return Verdict.OK, _at_work(service, snapshot, beat)


def overdue_settlements(snapshot: Snapshot) -> list[tuple[str, datetime]]:
    """Return the symbols and instants whose settled rate should long be stored, the newest first."""
    if snapshot.books is None:
        return []
    return [
        (symbol, at)
        for symbol, at in snapshot.books.unsettled
        if _behind(snapshot, at, SETTLED_STALE_SECONDS) is not None
    ]


def unsettled_sentence(unsettled: Sequence[tuple[str, datetime]]) -> str:
    """Name settlements whose rate is missing."""
    named = ", ".join(f"{symbol} at {_instant(at)}" for symbol, at in unsettled[:_NAMED])
    rest = len(unsettled) - _NAMED
    missing = "1 settled funding rate is" if len(unsettled) == 1 else f"{len(unsettled):,} settled funding rates are"
    return f"{missing} missing: {named}" + (f" and {rest:,} more, see /gaps" if rest > 0 else "")


def findings(service: str, snapshot: Snapshot) -> Iterator[Finding]:
    """Yield in which ways a service that beats is late, silent or refused by the exchange; nothing where it is not."""
    yield from _lagging(service, snapshot)
    yield from _CHECKS[service](snapshot, snapshot.heartbeats[service])


def _presence(service: str, snapshot: Snapshot) -> Finding | None:
    """Judge whether a service is there and has begun to work; None where it has."""
    if service in snapshot.unreadable:
        return Verdict.UNKNOWN, "its heartbeat makes no sense to this version of the api"
    beat = snapshot.heartbeats.get(service)
    if beat is None:
        return Verdict.DOWN, f"no heartbeat for more than {TTL_SECONDS} s"
    if beat.state == "starting" or not beat.ready:
        waiting = beat.details.get("waiting") or (beat.reason if beat.state == "degraded" else None)
        return Verdict.DEGRADED, f"starting for {duration(_up_seconds(beat))}" + (f": {waiting}" if waiting else "")
    return None


def _up_seconds(beat: Heartbeat) -> float:
    return (beat.beaten - beat.started).total_seconds()


def _lagging(service: str, snapshot: Snapshot) -> Iterator[Finding]:
    held = cadence_of("writer", snapshot.heartbeats).every_seconds if service == "writer" else 0.0
    own = [lag for lag in snapshot.lags if lag.group == service]
    for lag in sorted(own, key=lambda lag: lag.oldest_age_seconds, reverse=True):
        if lag.oldest_age_seconds > LAGGING_SECONDS + held:
            yield Verdict.LAGGING, f"{_backlog(lag)}, the oldest {duration(lag.oldest_age_seconds)} old"
        elif lag.lag + lag.pending > NEAR_CAP * CAPS[lag.stream]:
            yield (
                Verdict.LAGGING,
                f"{_backlog(lag)}, near the cap of {CAPS[lag.stream]}: then the oldest go",
            )


def _backlog(lag: GroupLag) -> str:
    parts = [f"{count} {what}" for count, what in ((lag.pending, "pending"), (lag.lag, "unread")) if count]
    return f"{lag.pending + lag.lag} entries of {lag.stream} wait ({', '.join(parts)})"


def _behind(snapshot: Snapshot, mark: datetime, patience_seconds: float, *, period_seconds: float = 0) -> float | None:
    """Return how far a mark is behind the exchange's clock, in its seconds, where that is too much.

    The patience is for work that takes its time on our clock, so it grows with the rate. The host's clock, in place of
    the exchange's, cannot tell.
    """
    age = (snapshot.clock.exchange_time - mark).total_seconds()
    allowed = period_seconds + patience_seconds * max(1.0, snapshot.clock.rate)
    return age if snapshot.clock.measured and age > allowed else None


def _stale_ranker(snapshot: Snapshot, beat: Heartbeat) -> Iterator[Finding]:
    if snapshot.universe is None:
        if beat.ready:
            yield Verdict.STALE, "no ranking on the bus, though it says that it has ranked"
        else:
            yield Verdict.STALE, "there is no ranking yet, so nothing is collected"
        return
    period = cadence_of("ranker", snapshot.heartbeats).every_seconds
    ranked = snapshot.universe.ranked_time
    if (behind := _behind(snapshot, ranked, RANKED_STALE_SECONDS, period_seconds=period)) is not None:
        yield (
            Verdict.STALE,
            f"the last ranking is {duration(behind)} old, and one is due every {period / 3600:g} h",
        )


def _stale_collector(_: Snapshot, beat: Heartbeat) -> Iterator[Finding]:
    for name, channel in channels(beat).items():
        if rejected := channel.get("rejected"):
            named = ", ".join(f"{instrument} ({code})" for instrument, code in sorted(rejected.items())[:5])
            yield Verdict.DEGRADED, f"the exchange rejects {len(rejected)} subscriptions of {name}: {named}"
        age = channel.get("data_age_seconds")
        if age is not None and age > DATA_STALE_SECONDS.get(name, max(DATA_STALE_SECONDS.values())):
            yield Verdict.STALE, f"no data on {name} for {duration(age)}"


def channels(beat: Heartbeat) -> dict[str, dict[str, Any]]:
    """Return what the collector tells about each of its channels."""
    return {
        name: detail
        for name, detail in beat.details.items()
        if isinstance(detail, dict) and "data_age_seconds" in detail
    }


def _stale_writer(snapshot: Snapshot, beat: Heartbeat) -> Iterator[Finding]:
    if snapshot.universe is None:
        return
    patience = WRITTEN_STALE_SECONDS + cadence_of("writer", snapshot.heartbeats).every_seconds
    mark = snapshot.watermarks.get("written_until")
    if mark is None:
        if _up_seconds(beat) > patience:
            yield Verdict.STALE, f"no candle written yet, after {duration(_up_seconds(beat))}"
    elif (behind := _behind(snapshot, mark, patience)) is not None:
        yield Verdict.STALE, f"written until {_instant(mark)}, {duration(behind)} behind the exchange"


def _stale_converter(snapshot: Snapshot, _: Heartbeat) -> Iterator[Finding]:
    mark = snapshot.watermarks.get("converted_until")
    if mark is None:
        return
    cadence = cadence_of("converter", snapshot.heartbeats)
    period = cadence.every_seconds + cadence.delay_seconds
    if (behind := _behind(snapshot, mark, CONVERTED_STALE_SECONDS, period_seconds=period)) is not None:
        yield Verdict.STALE, f"converted until {_instant(mark)}, {duration(behind)} behind the exchange"


_CHECKS = {
    "ranker": _stale_ranker,
    "collector": _stale_collector,
    "writer": _stale_writer,
    "converter": _stale_converter,
}


def _at_work(service: str, snapshot: Snapshot, beat: Heartbeat) -> str:
    """Say what a service that works has reached."""
    if service == "ranker" and snapshot.universe is not None:
        return f"{len(snapshot.universe.members)} members since {_instant(snapshot.universe.ranked_time)}"
    if service == "collector":
        return f"works, {sentence(snapshot.books)}"
    mark = snapshot.watermarks.get(_MARKS.get(service, ""))
    if mark is None:
        return "works, nothing to show yet"
    done = f"{_MARKS[service].replace('_', ' ')} {_instant(mark)}"
    waiting = beat.details.get("waiting")
    return f"{done}, waits {waiting}" if waiting else done


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
