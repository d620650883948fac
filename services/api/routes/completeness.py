"""Routes: how complete the data is, as numbers, as gaps and as a picture."""

import asyncio
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Response
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
from services.api.health.snapshot import Snapshot
from services.api.heavy import RETRY_AFTER_SECONDS, BusyError
from services.api.routes.dependencies import Json, MomentDep, Problem, SourcesDep, TurnsDep, in_utc
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

_HEAVY: dict[int | str, dict[str, Any]] = {
    503: {
        "model": Problem,
        "description": "The ledger on disk is unreadable; or too many heavy requests at once: `Retry-After` says when "
        "to try again",
    },
}


def _span(snapshot: Snapshot, begin: datetime | None, end: datetime | None, usual: timedelta) -> Span:
    instants = (None if instant is None else in_utc(instant) for instant in (begin, end))
    try:
        return span_of(*instants, now=snapshot.clock.exchange_time, until=snapshot.arrived_until, usual=usual)
    except SpanError as error:
        raise HTTPException(422, str(error)) from error


class LedgerDesk:
    """Answers from the days of the ledger: in a thread, in turn, and once where the same is asked in one moment."""

    def __init__(self, sources: SourcesDep, moment: MomentDep, turns: TurnsDep) -> None:
        self.snapshot = moment.snapshot
        self._sources, self._moment, self._turns = sources, moment, turns

    async def answer(self, question: Hashable, span: Span, make: Callable[[list[Day]], str]) -> str:
        """Return what is made of the days of a span. Raises `HTTPException`."""

        async def answer() -> str:
            async with self._turns.turn():
                return await asyncio.to_thread(make, await self._days(span))

        try:
            return await self._moment.once(question, answer)
        except BusyError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": str(RETRY_AFTER_SECONDS)}) from error

    async def _days(self, span: Span) -> list[Day]:
        try:
            return await days_of(self._sources.ledger, self.snapshot.ledger, span)
        except (OSError, ValueError) as error:
            raise HTTPException(503, f"the ledger on disk is unreadable: {error}") from error


type LedgerDeskDep = Annotated[LedgerDesk, Depends()]


@router.get(
    "/ledger",
    summary="How complete is the data, in numbers?",
    response_model=LedgerAnswer,
    responses=_HEAVY | {404: {"model": Problem, "description": "The ledger has no such symbol"}},
)
async def ledger(
    desk: LedgerDeskDep,
    begin: BeginQuery = None,
    end: EndQuery = None,
    symbol: SymbolQuery = None,
    *,
    dataset: DatasetQuery = Candle.dataset,
) -> Response:
    """Return the wanted minutes by verdict, and the settlements, per symbol and in total: the last 7 days, or a span.

    A span is at most 366 days long. Days that are older than the bus' come from disk; with Redis down all do.
    """
    span = _span(desk.snapshot, begin, end, timedelta(days=7))

    def make(days: list[Day]) -> str:
        answer = ledger_of_span(days, span, symbol, dataset)
        if symbol is not None and not answer.symbols:
            raise HTTPException(404, f"the ledger has no minutes of {symbol} in that time")
        return answer.model_dump_json()

    return Json(await desk.answer(("ledger", span, symbol, dataset), span, make))


@router.get("/gaps", summary="Which minutes are missing?", response_model=Gaps, responses=_HEAVY)
async def gaps(
    desk: LedgerDeskDep,
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
) -> Response:
    """Return runs of minutes of a verdict, the newest first: within all days on the bus, or a span.

    With `missing` also the settlements whose rate is missing.
    """
    now = desk.snapshot.clock.exchange_time
    span = _span(desk.snapshot, begin, end, now - first_day(desk.snapshot.ledger, now))

    def make(days: list[Day]) -> str:
        return gaps_of_span(days, span, MinuteVerdict(verdict), symbol, limit, dataset=dataset).model_dump_json()

    return Json(await desk.answer(("gaps", span, symbol, dataset, verdict, limit), span, make))


@router.get(
    "/completeness",
    summary="How complete is the data, as a heat map?",
    response_class=HTMLResponse,
    responses=_HEAVY,
)
async def completeness(desk: LedgerDeskDep) -> HTMLResponse:
    """Return a page: a row per symbol, a column per day of the last 30, coloured by the share that is complete."""
    midnight = floor_day(desk.snapshot.clock.exchange_time)
    span = _span(desk.snapshot, midnight - 29 * DAY, midnight + DAY, DAY)

    def make(days: list[Day]) -> str:
        return page(days, span, sentence(desk.snapshot.ledger))

    text = await desk.answer("completeness", span, make)
    return HTMLResponse(text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})
