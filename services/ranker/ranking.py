"""Funding rows → places → the universe. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from shared.datasets.funding import PredictedFundingRate
from shared.datasets.row import RankBy
from shared.datasets.universe import Rank, Ranking
from shared.exchanges.base import Instrument
from shared.symbol import Symbol


@dataclass(frozen=True)
class Market:
    """What the exchange lists: swaps, what each pays, and every name that was in the list of swaps."""

    instruments: Mapping[Symbol, Instrument] = field(default_factory=dict)
    rates: Mapping[Symbol, PredictedFundingRate] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    """Also of rows that could not be read."""

    def __or__(self, later: "Market") -> "Market":
        """Put two looks together; the later one knows better."""
        return Market(
            {**self.instruments, **later.instruments}, {**self.rates, **later.rates}, self.names | later.names
        )

    @property
    def unrated(self) -> list[str]:
        """Return the eligible swaps of which no rate is known, in order."""
        return sorted(symbol for symbol, one in self.instruments.items() if one.eligible and symbol not in self.rates)

    def lacking(self, before: Iterable[str]) -> list[str]:
        """Return the names that should be there and are not, in order. before: who was ranked last."""
        unlisted = self.rates.keys() - self.names
        return sorted({*self.unrated, *unlisted, *(set(before) - self.instruments.keys())})

    def thin(self, before: Collection[str]) -> str | None:
        """Return why the lists cannot be whole, None where they may be. before: who was ranked last.

        The two lists are held against each other, too: at the first ranking there is nothing else.
        """
        both = self.rates.keys() & self.names
        eligible = [symbol for symbol, one in self.instruments.items() if one.eligible]
        for group, what in (
            (before, "swaps that were ranked last are in both"),
            (eligible, "eligible swaps have a rate"),
            (self.rates, "swaps with a rate are in the list of swaps"),
        ):
            if 2 * len(both.intersection(group)) < len(group):
                return f"less than half of the {len(group):,} {what}"
        return None


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
    instruments: Mapping[Symbol, Instrument],
    *,
    ranked_time: datetime,
    rank_by: RankBy,
    top_n: TopN,
) -> tuple[Rank, ...]:
    """Return the place of every eligible swap, the first one first. Ties go by symbol, so that they never flicker.

    A rate that is flagged as implausible does not rank: one wrong digit would be the first of all.
    """
    eligible = [
        rate for rate in rates if rate.flag is None and rate.symbol in instruments and instruments[rate.symbol].eligible
    ]
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
