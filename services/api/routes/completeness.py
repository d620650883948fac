"""Routes: how complete the data is, as numbers, as gaps and as a picture."""

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

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
from services.api.health.snapshot import Snapshot, Sources
from services.api.routes.dependencies import Problem, SnapshotDep, SourcesDep, in_utc
from shared.datasets.candle import Candle
from shared.datasets.registry import COMPLETENESS
from shared.grid import DAY, floor_day
from shared.ledger.day import MinuteVerdict

router = APIRouter()

type BeginQuery = Annotated[
    datetime | None,
    Query(description="ISO 8601; without an offset it is UTC", examples=["2025-04-05T08:00:00Z"]),
]
type EndQuery = Annotated[datetime | None, Query(description="The same, exclusive. Left out: now, at the exchange")]
type DatasetQuery = Annotated[
    str, Query(description=f"Whose minutes: {', '.join(COMPLETENESS)}", pattern=f"^({'|'.join(COMPLETENESS)})$")
]
type SymbolQuery = Annotated[str | None, Query(description="Only this one", examples=["BTC_USDT"])]

_LEDGER: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The ledger has no such symbol"},
    503: {"model": Problem, "description": "The ledger on disk is unreadable"},
}


def _span(snapshot: Snapshot, begin: datetime | None, end: datetime | None, usual: timedelta) -> Span:
    instants = (None if instant is None else in_utc(instant) for instant in (begin, end))
    try:
        return span_of(*instants, now=snapshot.clock.exchange_time, until=snapshot.arrived_until, usual=usual)
    except SpanError as error:
        raise HTTPException(422, str(error)) from error


async def _ledger_days(sources: Sources, snapshot: Snapshot, span: Span) -> list[Day]:
    try:
        return await days_of(sources.ledger, snapshot.ledger, span)
    except (OSError, ValueError) as error:
        raise HTTPException(503, f"the ledger on disk is unreadable: {error}") from error


@router.get("/ledger", summary="How complete is the data, in numbers?", responses=_LEDGER)
async def ledger(
    sources: SourcesDep,
    snapshot: SnapshotDep,
    begin: BeginQuery = None,
    end: EndQuery = None,
    symbol: SymbolQuery = None,
    *,
    dataset: DatasetQuery = Candle.dataset,
) -> LedgerAnswer:
    """Return the wanted minutes by verdict, and the settlements, per symbol and in total: the last 7 days, or a span.

    A span is at most 366 days long. Days that are older than the bus' come from disk; with Redis down all do.
    """
    span = _span(snapshot, begin, end, timedelta(days=7))
    days = await _ledger_days(sources, snapshot, span)
    answer = await asyncio.to_thread(ledger_of_span, days, span, symbol, dataset)
    if symbol is not None and not answer.symbols:
        raise HTTPException(404, f"the ledger has no minutes of {symbol} in that time")
    return answer


@router.get("/gaps", summary="Which minutes are missing?", responses={503: _LEDGER[503]})
async def gaps(
    sources: SourcesDep,
    snapshot: SnapshotDep,
    begin: BeginQuery = None,
    end: EndQuery = None,
    symbol: SymbolQuery = None,
    *,
    verdict: Annotated[
        Literal["missing", "refused", "absent", "halted"],
        Query(
            description="refused: the exchange has a candle that cannot be true; absent, halted: it has none; "
            "halted: trading stood still"
        ),
    ] = "missing",
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many of the newest to show")] = 100,
    dataset: DatasetQuery = Candle.dataset,
) -> Gaps:
    """Return runs of minutes of a verdict, the newest first: within all days on the bus, or a span.

    With `missing` also the settlements whose rate is missing.
    """
    usual = snapshot.clock.exchange_time - first_day(snapshot.ledger, snapshot.clock.exchange_time)
    span = _span(snapshot, begin, end, usual)
    days = await _ledger_days(sources, snapshot, span)
    return await asyncio.to_thread(gaps_of_span, days, span, MinuteVerdict(verdict), symbol, limit, dataset=dataset)


@router.get("/completeness", summary="How complete is the data, as a heat map?", response_class=HTMLResponse)
async def completeness(sources: SourcesDep, snapshot: SnapshotDep) -> HTMLResponse:
    """Return a page: a row per symbol, a column per day of the last 30, coloured by the share that is complete."""
    midnight = floor_day(snapshot.clock.exchange_time)
    span = _span(snapshot, midnight - 29 * DAY, midnight + DAY, DAY)
    text = await asyncio.to_thread(page, await _ledger_days(sources, snapshot, span), span, sentence(snapshot.ledger))
    return HTMLResponse(text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})
