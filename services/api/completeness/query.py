"""Answers from the ledger: the span of a query, its counts and its gaps."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, Field

from services.api.completeness.days import (
    Counted,
    Day,
    LedgerView,
    by_symbol,
    gaps,
    missing_settlements,
    per_cent,
    sum_of,
)
from services.api.completeness.reader import LedgerReader
from shared.datasets.candle import Candle
from shared.grid import DAY, day_start, days_between
from shared.ledger.day import MinuteVerdict

LONGEST = timedelta(days=366)
_WITHOUT_BUS = timedelta(days=31)
"""How far back to search for gaps where Redis does not answer."""


class Count(BaseModel):
    """Wanted minutes by verdict, and settlements."""

    wanted: int = Field(description="Minutes that were to be collected and are over")
    received: int = Field(description="Stored, came over WebSocket")
    healed: int = Field(description="Stored, came over REST")
    refused: int = Field(description="The exchange has a row that cannot be true; it is not stored")
    halted: int = Field(description="The exchange has no such row: trading stood still")
    absent: int = Field(description="The exchange has no such row, and confirmed it half an hour later")
    missing: int = Field(description="None of these: being healed")
    settlements: int = Field(description="Instants at which funding was settled")
    settlements_missing: int = Field(description="Those whose settled rate is not stored")
    complete: str | None = Field(
        description="Share of the minutes and settlements which the exchange has that are stored, rounded down; "
        "null: there are none"
    )

    @classmethod
    def of(cls, counted: Counted, **more: str) -> Self:
        """Return what was counted as answers show it."""
        return cls(
            **counted.minutes._asdict(),
            settlements=counted.settlements.wanted,
            settlements_missing=counted.settlements.missing,
            **more,
            complete=per_cent(counted),
        )


class SymbolCount(Count):
    """The same of one symbol."""

    symbol: str


class LedgerAnswer(BaseModel):
    """How complete a span is."""

    begin: datetime
    end: datetime
    until: datetime = Field(description="Minutes that open from here on are still on their way, and not counted")
    dataset: str
    total: Count
    symbols: list[SymbolCount] = Field(description="In alphabetical order")


class OpenGap(BaseModel):
    """Minutes of one symbol in a row."""

    symbol: str
    begin: datetime = Field(description="Open of the first minute")
    end: datetime = Field(description="Exclusive: open of the first minute behind it")
    minutes: int
    age_seconds: float = Field(description="Seconds of the exchange's clock since it began")


class MissingSettlement(BaseModel):
    """A settlement whose rate is not stored."""

    symbol: str
    at: datetime
    age_seconds: float = Field(description="Seconds of the exchange's clock since then")


class Gaps(BaseModel):
    """Runs of minutes of one verdict."""

    begin: datetime
    end: datetime
    dataset: str
    verdict: Literal["missing", "refused", "absent", "halted"]
    total: int = Field(description="How many gaps there are")
    minutes: int = Field(description="Minutes in all of them")
    gaps: list[OpenGap] = Field(description="Newest first")
    settlements_total: int = Field(description="How many settlements are missing; only asked for with `missing`")
    settlements: list[MissingSettlement] = Field(description="Newest first")


@dataclass(frozen=True)
class Span:
    """The minutes of a query: those that open in [begin, end) and before `until`."""

    begin: datetime
    end: datetime
    until: datetime
    now: datetime

    @property
    def last(self) -> datetime:
        """Return the end of what is counted."""
        return max(self.begin, min(self.end, self.until))

    def age_seconds(self, at: datetime) -> float:
        """Return the seconds of the exchange's clock since an instant."""
        return (self.now - at).total_seconds()


class SpanError(ValueError):
    """No span, or one that is too long; the text is for the client."""


def span_of(begin: datetime | None, end: datetime | None, *, now: datetime, until: datetime, usual: timedelta) -> Span:
    """Fill in what a query leaves out: up to now, and as long as usual. Raises `SpanError`.

    `until`: minutes that open from here on are still on their way.
    """
    end = now if end is None else end
    try:
        begin = end - usual if begin is None else begin
        if begin >= end:
            raise SpanError(f"begin must be before end: {begin.isoformat()} is not before {end.isoformat()}")
        if end - begin > LONGEST:
            raise SpanError(f"at most {LONGEST.days} days at a time, not {(end - begin) / DAY:,.1f}")
        days_between(begin, end)
    except OverflowError as error:  # the first or the last days of the calendar
        raise SpanError("that is out of range") from error
    return Span(begin, end, until, now)


def first_day(ledger: LedgerView | None, now: datetime) -> datetime:
    """Return where the ledger on the bus begins, at most `LONGEST` ago."""
    oldest = min(ledger.days, default=None) if ledger else None
    return now - _WITHOUT_BUS if oldest is None else min(max(day_start(oldest), now - LONGEST), now - DAY)


async def days_of(reader: LedgerReader, ledger: LedgerView | None, span: Span) -> list[Day]:
    """Return the days of a span: from the bus, older ones from disk. Raises `OSError`, `ValueError`."""
    on_bus = ledger.days if ledger else {}
    asked: list[date] = days_between(span.begin, span.last)
    older = [day for day in asked if day not in on_bus]
    stored = await asyncio.to_thread(reader.stored, older) if older else {}
    return [known for day in asked if (known := on_bus.get(day) or stored.get(day)) is not None]


def ledger_of_span(days: Sequence[Day], span: Span, symbol: str | None, dataset: str = Candle.dataset) -> LedgerAnswer:
    """Sum up a span, or one symbol's part of it."""
    counts = {name: sum_of(found) for name, found in by_symbol(days, span.begin, span.last, symbol, dataset).items()}
    return LedgerAnswer(
        begin=span.begin,
        end=span.end,
        until=span.until,
        dataset=dataset,
        total=Count.of(sum_of(counts.values())),
        symbols=[SymbolCount.of(counted, symbol=name) for name, counted in counts.items()],
    )


def gaps_of_span(
    days: Sequence[Day],
    span: Span,
    verdict: MinuteVerdict,
    symbol: str | None,
    limit: int,
    *,
    dataset: str = Candle.dataset,
) -> Gaps:
    """Return the newest gaps of a verdict; with `missing` candles also the settlements."""
    found = gaps([day.of(dataset) for day in days], span.begin, span.last, verdict, symbol)
    with_settlements = verdict is MinuteVerdict.MISSING and dataset == Candle.dataset
    settled = missing_settlements(days, span.begin, span.last, symbol) if with_settlements else []
    return Gaps.model_validate(
        {
            "begin": span.begin,
            "end": span.end,
            "dataset": dataset,
            "verdict": str(verdict),
            "total": len(found),
            "minutes": sum(one.gap.minutes for one in found),
            "gaps": [
                OpenGap(
                    symbol=one.symbol,
                    begin=one.gap.begin,
                    end=one.gap.end,
                    minutes=one.gap.minutes,
                    age_seconds=span.age_seconds(one.gap.begin),
                )
                for one in found[:limit]
            ],
            "settlements_total": len(settled),
            "settlements": [
                MissingSettlement(symbol=name, at=at, age_seconds=span.age_seconds(at)) for name, at in settled[:limit]
            ],
        }
    )
