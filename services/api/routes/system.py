"""Routes: whether the system is healthy, and what is wrong where it is not."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, HTTPException, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from services.api.alerts.condition import Severity
from services.api.alerts.lifecycle import Alert
from services.api.health.lag import Lag, lag_of
from services.api.health.status import Status, not_ready, status_of
from services.api.metrics import exposition
from services.api.routes.dependencies import REDIS_SILENT, AlertLoopDep, DiskDep, Json, MomentDep, SnapshotDep

router = APIRouter()


class Index(BaseModel):
    """What there is to ask."""

    name: Literal["qlib-crypto"] = "qlib-crypto"
    docs: str = "/docs"
    questions: dict[str, str]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether every service has come up."""

    ready: bool
    reasons: list[str] = Field(description="Why not; empty where it is")


class OpenAlert(BaseModel):
    """Something that is wrong."""

    key: str = Field(description="The same as long as the trouble is the same")
    severity: Severity
    what: str
    means: str = Field(description="How bad it is")
    doing: str = Field(description="What the system does about it by itself")
    todo: str = Field(description="What you should do; empty: nothing")
    since: datetime = Field(description="On the host's clock")
    told: datetime | None = Field(description="When it was notified; null: pending, it has not lasted long enough yet")
    gone: datetime | None = Field(description="Since when it no longer holds; it is resolved once that lasts")

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Return an alert as /alerts shows it."""
        return cls(
            key=alert.key,
            severity=alert.severity,
            what=alert.what,
            means=alert.means,
            doing=alert.doing,
            todo=alert.todo,
            since=alert.since,
            told=alert.notified,
            gone=alert.cleared,
        )


class Alerts(BaseModel):
    """What is wrong now, and whether the notifications reach their targets."""

    open: list[OpenAlert] = Field(description="Oldest first")
    targets: dict[str, str] = Field(description="Target of ALERT_URLS → ok, or why the last message did not reach it")


@router.get("/", summary="What is there to ask?")
async def index(request: Request) -> Index:
    """List the questions."""
    paths = request.app.openapi()["paths"]
    return Index(questions={path: asked["get"].get("summary", "") for path, asked in paths.items() if path != "/"})


@router.get("/health", summary="Is the api alive?")
async def health() -> Alive:
    """Answer as long as the process does, whatever the state of the rest."""
    return Alive()


@router.get(
    "/ready",
    summary="Has every service come up?",
    responses={503: {"model": Readiness, "description": "Not yet; the reasons name the services"}},
)
async def ready(snapshot: SnapshotDep, response: Response) -> Readiness:
    """Return 200 once Redis answers, and ranker, collector, writer and converter have come up."""
    reasons = not_ready(snapshot)
    if reasons:
        response.status_code = 503
    return Readiness(ready=not reasons, reasons=reasons)


@router.get("/status", summary="Is it healthy, and what is wrong where it is not?", response_model=Status)
async def status(moment: MomentDep) -> Response:
    """Return a verdict and a sentence for every service and for the whole. 200 with Redis down, too."""

    async def answer() -> str:
        return status_of(moment.snapshot).model_dump_json()

    return Json(await moment.once("status", answer))


@router.get(
    "/lag",
    summary="What is the lag of each group, and the age of each symbol's data?",
    response_model=Lag,
    responses=REDIS_SILENT,
)
async def lag(
    moment: MomentDep,
    all_symbols: Annotated[bool, Query(alias="all", description="Also symbols that left the universe")] = False,
) -> Response:
    """Return lag and pending of every group, and the age of every member's newest candle."""
    if moment.snapshot.redis_problem is not None:
        raise HTTPException(503, moment.snapshot.redis_problem)

    async def answer() -> str:
        return lag_of(moment.snapshot, all_symbols=all_symbols).model_dump_json()

    return Json(await moment.once(("lag", all_symbols), answer))


@router.get("/metrics", summary="How is everything, as numbers for Prometheus?", response_class=Response)
async def metrics(moment: MomentDep, disk: DiskDep) -> Response:
    """Return Prometheus' text format. It answers with Redis down, too: `qlib_crypto_redis_up` is 0 then."""

    async def answer() -> bytes:
        try:
            found = await disk.read()
        except OSError:
            found = None
        return exposition(moment.snapshot, status_of(moment.snapshot), found)

    return Response(await moment.once("metrics", answer), media_type=CONTENT_TYPE_LATEST)


@router.get("/alerts", summary="What is wrong now, since when, and what is done about it?")
async def alerts(loop: AlertLoopDep) -> Alerts:
    """Return the alerts that are open, pending ones included. It answers with Redis down, too."""
    found = sorted(loop.alerts.values(), key=lambda alert: (alert.since, alert.key))
    return Alerts(
        open=[OpenAlert.of(alert) for alert in found],
        targets={notifier.name: notifier.problem or "ok" for notifier in loop.notifiers},
    )
