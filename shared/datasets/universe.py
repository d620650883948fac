"""Dataset `universe`: rankings, and the place of every swap in each."""

from datetime import datetime
from types import MappingProxyType
from typing import ClassVar

import msgspec

from shared.datasets.row import PERIOD, PLACE, RATE, SCORE, RankBy, Row
from shared.symbol import Symbol


class Rank(Row, frozen=True, kw_only=True):
    """The place of one swap in one ranking; a ranking keeps all swaps, members or not."""

    dataset = "universe"
    file_stem = "universe"
    rare = True
    key = ("exchange", "ranked_time", "symbol")
    time = "ranked_time"
    newest = "ranked_time"
    bounds = MappingProxyType({"rank": PLACE, "funding_rate": RATE, "score": SCORE, "interval_hours": PERIOD})

    ranked_time: datetime
    rank: int
    """1 is the first."""
    funding_rate: float
    score: float
    """What was ranked: |rate|, or |rate| per 8 h."""
    interval_hours: int | None = None
    funding_time: datetime
    member: bool
    rank_by: RankBy
    known_time: datetime


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """One whole ranking: who is in the universe from `ranked_time` on, and everybody's place."""

    stream: ClassVar[str] = "universe"
    name: ClassVar[str] = "ranking"

    exchange: str
    ranked_time: datetime
    rank_by: RankBy
    top_n: int
    members: tuple[Symbol, ...]
    added: tuple[Symbol, ...]
    removed: tuple[Symbol, ...]
    ranks: tuple[Rank, ...] = ()
