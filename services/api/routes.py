"""The questions that the api answers. Only GET: it reads, and changes nothing."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from services.api.alerts.condition import Severity
from services.api.alerts.lifecycle import Alert
from services.api.alerts.loop import AlertLoop
from services.api.completeness.days import Day, sentence
from services.api.completeness.query import (
    Gaps,
    LedgerAnswer,
    Span,
    SpanError,
    days_of,
    first_day,
    gaps_of_span,
    ledger_of_span,
    span_of,
)
from services.api.dashboard.completeness import page
from services.api.disk import Disk, DiskReader
from services.api.health.lag import Lag, lag_of
from services.api.health.snapshot import BusSilentError, Snapshot, Sources, read_snapshot
from services.api.health.status import Status, not_ready, status_of
from services.api.metrics import exposition
from services.api.universe import Universe, current_universe, universe_at
from shared.grid import DAY, floor_day
from shared.ledger.day import MinuteVerdict

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


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class Datasets(Disk):
    """What is on disk, and up to when it is complete."""

    watermarks: dict[str, datetime] | None = Field(
        description="Up to when each stage is complete; null where Redis does not answer"
    )
    redis: str = Field(description="ok, or why Redis does not answer")


class DeadLetter(BaseModel):
    """An input that made no sense."""

    id: str
    at: str | None = Field(None, description="When it was set aside, on the host's clock")
    origin: str | None = Field(None, description="Which service met it, and where")
    error: str | None = Field(None, description="What is wrong with it")
    payload: str | None = Field(None, description="The input itself")


class DeadLetters(BaseModel):
    """What was set aside."""

    total: int = Field(description="How many are kept; the oldest go beyond 10,000")
    newest: list[DeadLetter] = Field(description="Newest first")


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources


def _disk(request: Request) -> DiskReader:
    disk: DiskReader = request.app.state.disk
    return disk


async def _snapshot(sources: Annotated[Sources, Depends(_sources)]) -> Snapshot:
    return await read_snapshot(sources)


type From = Annotated[Sources, Depends(_sources)]
type Now = Annotated[Snapshot, Depends(_snapshot)]
type OnDisk = Annotated[DiskReader, Depends(_disk)]

_SILENT: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "Redis does not answer"}}


@router.get("/", summary="What is there to ask?")
async def index() -> Index:
    """List the questions."""
    asked = (route for route in router.routes if isinstance(route, APIRoute) and route.path != "/")
    return Index(questions={route.path: route.summary or "" for route in asked})


@router.get("/health", summary="Is the api alive?")
async def health() -> Alive:
    """Answer as long as the process does, whatever the state of the rest."""
    return Alive()


@router.get(
    "/ready",
    summary="Has every service come up?",
    responses={503: {"model": Readiness, "description": "Not yet; the reasons say who is missing"}},
)
async def ready(snapshot: Now, response: Response) -> Readiness:
    """Return 200 once Redis answers and ranker, collector, writer and converter beat and are past their start."""
    reasons = not_ready(snapshot)
    if reasons:
        response.status_code = 503
    return Readiness(ready=not reasons, reasons=reasons)


@router.get("/status", summary="Is it healthy, and what is wrong where it is not?")
async def status(snapshot: Now) -> Status:
    """Return a verdict and a sentence for every service and for the whole. 200 with Redis down, too."""
    return status_of(snapshot)


@router.get("/lag", summary="How far behind is whom?", responses=_SILENT)
async def lag(
    snapshot: Now,
    all_symbols: Annotated[bool, Query(alias="all", description="Also symbols that left the universe")] = False,
) -> Lag:
    """Return lag and pending of every group, and the age of every member's newest candle."""
    if snapshot.redis_problem is not None:
        raise HTTPException(503, snapshot.redis_problem)
    return lag_of(snapshot, all_symbols=all_symbols)


@router.get(
    "/universe",
    summary="Who is, or was, in the universe?",
    responses=_SILENT | {404: {"model": Problem, "description": "There is no ranking (that old)"}},
)
async def universe(
    sources: From,
    at: Annotated[
        datetime | None,
        Query(description="ISO 8601; without an offset it is UTC. Left out: now", examples=["2025-04-05T08:00:00Z"]),
    ] = None,
) -> Universe:
    """Return the last ranking that was made by a time, its members in order of rank."""
    instant = None if at is None else _utc(at)
    try:
        found = await (current_universe(sources) if instant is None else universe_at(sources, instant))
    except BusSilentError as error:
        raise HTTPException(503, f"{error}; ask with ?at= for what is on disk") from error
    except (OSError, ValueError) as error:
        raise HTTPException(503, f"a ranking on disk is unreadable: {error}") from error
    if found is None:
        raise HTTPException(404, "nothing is ranked yet" if at is None else f"nothing was ranked by {instant}")
    return found


def _utc(instant: datetime) -> datetime:
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError as error:  # an offset that leads out of the years 1 to 9999
        raise HTTPException(422, f"no such time: {instant}") from error


type Begin = Annotated[
    datetime | None,
    Query(description="ISO 8601; without an offset it is UTC", examples=["2025-04-05T08:00:00Z"]),
]
type End = Annotated[datetime | None, Query(description="The same, exclusive. Left out: now, at the exchange")]
type Symbol = Annotated[str | None, Query(description="Only this one", examples=["BTC_USDT"])]

_LEDGER: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The ledger knows no such symbol"},
    503: {"model": Problem, "description": "The ledger on disk is unreadable"},
}


def _span(snapshot: Snapshot, begin: datetime | None, end: datetime | None, usual: timedelta) -> Span:
    instants = (None if instant is None else _utc(instant) for instant in (begin, end))
    try:
        return span_of(*instants, now=snapshot.clock.exchange_time, until=snapshot.arrived_until, usual=usual)
    except SpanError as error:
        raise HTTPException(422, str(error)) from error


async def _ledger_days(sources: Sources, snapshot: Snapshot, span: Span) -> list[Day]:
    try:
        return await days_of(sources.ledger, snapshot.books, span)
    except (OSError, ValueError) as error:
        raise HTTPException(503, f"the ledger on disk is unreadable: {error}") from error


@router.get("/ledger", summary="How complete is the data, in numbers?", responses=_LEDGER)
async def ledger(
    sources: From, snapshot: Now, begin: Begin = None, end: End = None, symbol: Symbol = None
) -> LedgerAnswer:
    """Return the wanted minutes by verdict, and the settlements, per symbol and in total: the last 7 days, or a span.

    A span is at most 366 days long. Days that are older than the bus' come from disk; with Redis down all do.
    """
    span = _span(snapshot, begin, end, timedelta(days=7))
    answer = await asyncio.to_thread(ledger_of_span, await _ledger_days(sources, snapshot, span), span, symbol)
    if symbol is not None and not answer.symbols:
        raise HTTPException(404, f"the ledger knows no minutes of {symbol} in that time")
    return answer


@router.get("/gaps", summary="Which minutes are missing?", responses={503: _LEDGER[503]})
async def gaps(
    sources: From,
    snapshot: Now,
    begin: Begin = None,
    end: End = None,
    symbol: Symbol = None,
    *,
    verdict: Annotated[
        Literal["missing", "refused", "absent", "halted"],
        Query(
            description="refused: the exchange has a candle that cannot be true; absent, halted: it has none; "
            "halted: trading stood still"
        ),
    ] = "missing",
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many of the newest to show")] = 100,
) -> Gaps:
    """Return runs of minutes of a verdict, the newest first: within all that the bus knows, or a span.

    With `missing` also the settlements whose rate is missing.
    """
    usual = snapshot.clock.exchange_time - first_day(snapshot.books, snapshot.clock.exchange_time)
    span = _span(snapshot, begin, end, usual)
    days = await _ledger_days(sources, snapshot, span)
    return await asyncio.to_thread(gaps_of_span, days, span, MinuteVerdict(verdict), symbol, limit)


@router.get("/completeness", summary="The same as a picture: a heat map", response_class=HTMLResponse)
async def completeness(sources: From, snapshot: Now) -> HTMLResponse:
    """Return a page: a row per symbol, a column per day of the last 30, coloured by the share that is complete."""
    midnight = floor_day(snapshot.clock.exchange_time)
    span = _span(snapshot, midnight - 29 * DAY, midnight + DAY, DAY)
    text = await asyncio.to_thread(page, await _ledger_days(sources, snapshot, span), span, sentence(snapshot.books))
    return HTMLResponse(text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})


@router.get(
    "/datasets",
    summary="What is on disk, and up to when?",
    responses={503: {"model": Problem, "description": "A folder cannot be read"}},
)
async def datasets(snapshot: Now, disk: OnDisk) -> Datasets:
    """Return days, files and bytes of the raw data, and bars and symbols of the Qlib data."""
    try:
        found = await disk.read()
    except OSError as error:
        raise HTTPException(503, f"cannot read the data: {error}") from error
    marks = {name: mark for name, mark in snapshot.watermarks.items() if not name.startswith("newest:")}
    return Datasets(
        raw=found.raw,
        qlib=found.qlib,
        spaces=found.spaces,
        watermarks=marks if snapshot.redis_problem is None else None,
        redis=snapshot.redis_problem or "ok",
    )


@router.get("/metrics", summary="The same as numbers, for Prometheus", response_class=Response)
async def metrics(snapshot: Now, disk: OnDisk) -> Response:
    """Return Prometheus' text format. It answers with Redis down, too: `qlib_crypto_redis_up` is 0 then."""
    try:
        found = await disk.read()
    except OSError:
        found = None
    text = exposition(snapshot, status_of(snapshot), found)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/alerts", summary="What is wrong now, since when, and what is done about it?")
async def alerts(request: Request) -> Alerts:
    """Return the alerts that are open, pending ones included. It answers with Redis down, too."""
    loop: AlertLoop = request.app.state.alert_loop
    found = sorted(loop.alerts.values(), key=lambda alert: (alert.since, alert.key))
    return Alerts(
        open=[OpenAlert.of(alert) for alert in found],
        targets={notifier.name: notifier.problem or "ok" for notifier in loop.notifiers},
    )


@router.get("/dead-letters", summary="Which inputs made no sense?", responses=_SILENT)
async def dead_letters(
    sources: From,
    count: Annotated[int, Query(ge=1, le=1000, description="How many of the newest to show")] = 20,
) -> DeadLetters:
    """Return how many inputs were set aside, and the newest of them with their error and origin."""
    try:
        total, newest = await sources.ask(sources.bus.dead_letters(count))
    except BusSilentError as error:
        raise HTTPException(503, str(error)) from error
    return DeadLetters(total=total, newest=[DeadLetter.model_validate(fields) for fields in newest])
