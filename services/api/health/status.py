"""The state of every service and of the whole, as /status and /ready answer. Pure."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from services.api.completeness.days import sentence
from services.api.health.clock import ClockStatus, clock_status
from services.api.health.diagnosis import (
    Diagnosis,
    ServiceState,
    absence,
    diagnoses,
    overdue_settlements,
    unsettled_sentence,
)
from services.api.health.snapshot import API, SERVICES, Snapshot
from services.api.text import instant
from shared.bus.heartbeat import Heartbeat

_WORST_FIRST = (
    ServiceState.DOWN,
    ServiceState.UNKNOWN,
    ServiceState.DEGRADED,
    ServiceState.LAGGING,
    ServiceState.STALE,
    ServiceState.OK,
)

_MARKS = {"writer": "written_until", "converter": "converted_until"}
"""Service → the watermark that it moves."""


class ServiceStatus(BaseModel):
    """How one service is."""

    service: str
    verdict: ServiceState = Field(
        description="ok: works. stale: its newest result is too old. lagging: entries wait too long for it. "
        "degraded: it reports a problem, or it is starting. down: no heartbeat. unknown: its state cannot be read."
    )
    reason: str = Field(description="The verdict as a sentence")
    host: str | None = Field(None, description="Host that the service runs on")
    pid: int | None = Field(None, description="Its process there")
    started: datetime | None = Field(None, description="Since when it runs, on its host's clock")
    beaten: datetime | None = Field(None, description="Its last heartbeat, on its host's clock")
    details: dict[str, Any] = Field(default_factory=dict, description="What it reports about its work")


class Status(BaseModel):
    """How everything is."""

    verdict: ServiceState = Field(description="The worst verdict of all services; down where Redis does not answer")
    reason: str = Field(description="The verdict as a sentence")
    redis: str = Field(description="ok, or why Redis does not answer")
    clock: ClockStatus
    services: list[ServiceStatus]
    dead_letters: int | None = Field(description="Inputs that were set aside; null where Redis does not answer")


def status_of(snapshot: Snapshot) -> Status:
    """Return the state of every service and of the whole."""
    rows = [_service(service, snapshot) for service in (*SERVICES, API)]
    wrong = [row for row in rows if row.verdict is not ServiceState.OK]
    if snapshot.redis_problem is not None:
        state, reason = ServiceState.DOWN, f"{snapshot.redis_problem}: the state of the services is unknown"
    else:
        state = min((row.verdict for row in rows), key=_WORST_FIRST.index)
        reason = "; ".join(row.reason for row in wrong) or "everything works"
    return Status(
        verdict=state,
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
    absent = ((service, absence(service, snapshot)) for service in SERVICES)
    return [f"{service}: {diagnosis.reason}" for service, diagnosis in absent if diagnosis is not None]


def _service(service: str, snapshot: Snapshot) -> ServiceStatus:
    state, reason = _diagnose_api(snapshot) if service == API else _diagnose(service, snapshot)
    beat = snapshot.heartbeats.get(service)
    return ServiceStatus(
        service=service,
        verdict=state,
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


def _diagnose_api(snapshot: Snapshot) -> Diagnosis:
    problems = [*([snapshot.redis_problem] if snapshot.redis_problem else []), *snapshot.problems.values()]
    state = ServiceState.DEGRADED if problems else ServiceState.OK
    return Diagnosis(state, "; ".join(problems) or "works")


def _diagnose(service: str, snapshot: Snapshot) -> Diagnosis:
    """Return the first diagnosis in the order of how much it explains: a service that is down also lags."""
    if snapshot.redis_problem is not None:
        return Diagnosis(ServiceState.UNKNOWN, "unknown while Redis does not answer")
    if (absent := absence(service, snapshot)) is not None:
        return absent
    beat = snapshot.heartbeats[service]
    if beat.state != "ok":
        return Diagnosis(ServiceState.DEGRADED, beat.reason)
    if (late := next(diagnoses(service, snapshot), None)) is not None:
        return late
    if service == "collector" and (unsettled := overdue_settlements(snapshot)):
        return Diagnosis(ServiceState.STALE, unsettled_sentence(unsettled))
    return Diagnosis(ServiceState.OK, _progress(service, snapshot, beat))


def _progress(service: str, snapshot: Snapshot, beat: Heartbeat) -> str:
    """Return what a service that works has reached."""
    if service == "ranker" and snapshot.universe is not None:
        return f"{len(snapshot.universe.members)} members since {instant(snapshot.universe.ranked_time)}"
    if service == "collector":
        return f"works, {sentence(snapshot.ledger)}"
    mark = snapshot.watermarks.get(_MARKS.get(service, ""))
    if mark is None:
        return "works, no result yet"
    done = f"{_MARKS[service].replace('_', ' ')} {instant(mark)}"
    waiting = beat.details.get("waiting")
    return f"{done}, waits {waiting}" if waiting else done
