"""What a route takes from the application and from the query."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel

from services.api.alerts.loop import AlertLoop
from services.api.disk import DiskReader
from services.api.health.snapshot import Snapshot, Sources, read_snapshot


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


REDIS_SILENT: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "Redis does not answer"}}


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources


def _disk(request: Request) -> DiskReader:
    disk: DiskReader = request.app.state.disk
    return disk


def _alert_loop(request: Request) -> AlertLoop:
    loop: AlertLoop = request.app.state.alert_loop
    return loop


async def _snapshot(sources: Annotated[Sources, Depends(_sources)]) -> Snapshot:
    return await read_snapshot(sources)


type SourcesDep = Annotated[Sources, Depends(_sources)]
type SnapshotDep = Annotated[Snapshot, Depends(_snapshot)]
type DiskDep = Annotated[DiskReader, Depends(_disk)]
type AlertLoopDep = Annotated[AlertLoop, Depends(_alert_loop)]


def in_utc(at: datetime) -> datetime:
    """Return an instant of a query in UTC; one without an offset is UTC. Raises `HTTPException` (422)."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:  # an offset that leads out of the years 1 to 9999
        raise HTTPException(422, f"no such time: {at}") from error
