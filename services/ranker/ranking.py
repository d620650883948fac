"""Funding rows → places → the universe. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from shared.events import PredictedFundingRate, Rank, RankBy, Ranking
from shared.exchange import Instrument, is_eligible

TopN = int | Literal["all"]
PERIOD_HOURS = 8
"""`per_8h` compares rates as if every instrument settled every 8 hours; so does a missing interval."""


def score(rate: PredictedFundingRate, rank_by: RankBy) -> float:
    """Return what is ranked: the absolute rate as published, or brought to 8 hours."""
    if rank_by == "raw":
        return abs(rate.funding_rate)
    return abs(rate.funding_rate) * PERIOD_HOURS / (rate.interval_hours or PERIOD_HOURS)


def rank(
    rates: Iterable[PredictedFundingRate],
    instruments: Mapping[str, Instrument],
    *,
    ranked_time: datetime,
    rank_by: RankBy,
    top_n: TopN,
) -> tuple[Rank, ...]:
    """Return the place of every eligible swap, the first one first. Ties go by symbol, so that they never flicker."""
    eligible = [rate for rate in rates if rate.symbol in instruments and is_eligible(instruments[rate.symbol])]
    ordered = sorted(eligible, key=lambda rate: (-score(rate, rank_by), rate.symbol))
    return tuple(
        Rank(
            exchange=rate.exchange,
            symbol=rate.symbol,
            ranked_time=ranked_time,
            rank=place,
            funding_rate=rate.funding_rate,
            score=score(rate, rank_by),
            interval_hours=rate.interval_hours,
            funding_time=rate.funding_time,
            member=top_n == "all" or place <= top_n,
            rank_by=rank_by,
            known_time=rate.known_time,
        )
        for place, rate in enumerate(ordered, start=1)
    )


def ranking_of(ranks: Sequence[Rank], previous: Ranking | None, *, top_n: TopN) -> Ranking:
    """Return the whole ranking with what it changes. `ranks` holds at least one place."""
    members = tuple(place.symbol for place in ranks if place.member)
    before = previous.members if previous else ()
    return Ranking(
        exchange=ranks[0].exchange,
        ranked_time=ranks[0].ranked_time,
        rank_by=ranks[0].rank_by,
        top_n=len(ranks) if top_n == "all" else top_n,
        members=members,
        added=tuple(symbol for symbol in members if symbol not in before),
        removed=tuple(symbol for symbol in before if symbol not in members),
        ranks=tuple(ranks),
    )
