"""Routes: what is in the universe, on disk, and set aside."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from services.api.disk import Disk
from services.api.health.snapshot import BusSilentError
from services.api.routes.dependencies import REDIS_SILENT, DiskDep, Problem, SnapshotDep, SourcesDep, in_utc
from services.api.universe import UniverseView, current_universe, universe_at

router = APIRouter()


class Datasets(Disk):
    """What is on disk, and up to when it is complete."""

    watermarks: dict[str, datetime] | None = Field(
        description="Up to when each stage is complete; null where Redis does not answer"
    )
    redis: str = Field(description="ok, or why Redis does not answer")


class DeadLetterView(BaseModel):
    """An input that was set aside as invalid."""

    id: str
    at: str | None = Field(None, description="When it was set aside, on the host's clock")
    origin: str | None = Field(None, description="Which service received it, and where")
    error: str | None = Field(None, description="What is wrong with it")
    payload: str | None = Field(None, description="The input itself")


class DeadLetterList(BaseModel):
    """What was set aside."""

    total: int = Field(description="How many are kept; the oldest go beyond 10,000")
    newest: list[DeadLetterView] = Field(description="Newest first")


@router.get(
    "/universe",
    summary="Which symbols are, or were, in the universe?",
    responses=REDIS_SILENT | {404: {"model": Problem, "description": "There is no ranking (that old)"}},
)
async def universe(
    sources: SourcesDep,
    at: Annotated[
        datetime | None,
        Query(description="ISO 8601; without an offset it is UTC. Left out: now", examples=["2025-04-05T08:00:00Z"]),
    ] = None,
) -> UniverseView:
    """Return the last ranking that was made by a time, its members in order of rank."""
    instant = None if at is None else in_utc(at)
    try:
        found = await (current_universe(sources) if instant is None else universe_at(sources, instant))
    except BusSilentError as error:
        raise HTTPException(503, f"{error}; ask with ?at= for what is on disk") from error
    except (OSError, ValueError) as error:
        raise HTTPException(503, f"a ranking on disk is unreadable: {error}") from error
    if found is None:
        raise HTTPException(404, "nothing is ranked yet" if at is None else f"nothing was ranked by {instant}")
    return found


@router.get(
    "/datasets",
    summary="What is on disk, and up to when?",
    responses={503: {"model": Problem, "description": "A folder cannot be read"}},
)
async def datasets(snapshot: SnapshotDep, disk: DiskDep) -> Datasets:
    """Return days, files and bytes of the raw data, and bars and symbols of the Qlib data."""
    try:
        found = await disk.read()
    except OSError as error:
        raise HTTPException(503, f"cannot read the data: {error}") from error
    return Datasets(
        raw=found.raw,
        qlib=found.qlib,
        spaces=found.spaces,
        watermarks=snapshot.stage_marks if snapshot.redis_problem is None else None,
        redis=snapshot.redis_problem or "ok",
    )


@router.get("/dead-letters", summary="Which inputs were set aside as invalid?", responses=REDIS_SILENT)
async def dead_letters(
    sources: SourcesDep,
    count: Annotated[int, Query(ge=1, le=1000, description="How many of the newest to show")] = 20,
) -> DeadLetterList:
    """Return how many inputs were set aside, and the newest of them with their error and origin."""
    try:
        total, newest = await sources.ask(sources.bus.dead_letters(count))
    except BusSilentError as error:
        raise HTTPException(503, str(error)) from error
    return DeadLetterList(total=total, newest=[DeadLetterView.model_validate(fields) for fields in newest])
