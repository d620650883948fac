"""What a route takes from the application and from the query."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Response
from pydantic import BaseModel

from services.api.alerts.loop import AlertLoop
from services.api.disk import DiskReader
from services.api.health.moment import Moment, Moments
from services.api.health.snapshot import Snapshot, Sources
from services.api.heavy import Turns


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class Json(Response):
    """An answer that is JSON already: it was made once for everyone who asks in the same second."""

    media_type = "application/json"


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


async def _moment(request: Request) -> Moment:
    moments: Moments = request.app.state.moments
    return await moments.now()


async def _snapshot(moment: Annotated[Moment, Depends(_moment)]) -> Snapshot:
    return moment.snapshot


def _turns(request: Request) -> Turns:
    turns: Turns = request.app.state.turns
    return turns


type SourcesDep = Annotated[Sources, Depends(_sources)]
type MomentDep = Annotated[Moment, Depends(_moment)]
type TurnsDep = Annotated[Turns, Depends(_turns)]
type SnapshotDep = Annotated[Snapshot, Depends(_snapshot)]
type DiskDep = Annotated[DiskReader, Depends(_disk)]
type AlertLoopDep = Annotated[AlertLoop, Depends(_alert_loop)]


def in_utc(at: datetime) -> datetime:
    """Return an instant of a query in UTC; one without an offset is UTC. Raises `HTTPException` (422)."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:  # an offset that leads out of the years 1 to 9999
        raise HTTPException(422, f"no such time: {at}") from error
