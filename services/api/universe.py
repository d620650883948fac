"""The universe of now, from the bus, and that of an earlier time, from the raw files. I/O."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import BaseModel, Field

from services.api.health.snapshot import BusSilentError, Sources
from shared.datasets.registry import UndecodableError
from shared.datasets.row import RankBy
from shared.datasets.universe import Rank, Ranking
from shared.storage.layout import days, partitions
from shared.storage.parquet import read_partition


class Member(BaseModel):
    """One symbol of the universe."""

    symbol: str
    rank: int = Field(description="1 is the first")
    funding_rate: float | None = Field(description="The rate as published; null where only the names are kept")
    score: float | None = Field(description="What was ranked: |rate|, or |rate| per 8 h")
    interval_hours: int | None = Field(description="Hours between its settlements, where the exchange says")


class UniverseView(BaseModel):
    """One ranking."""

    ranked_time: datetime = Field(description="From when on it holds, on the exchange's clock")
    rank_by: RankBy = Field(description="raw: the funding rate as published; per_8h: brought to 8 hours")
    source: Literal["bus", "disk"]
    total: int | None = Field(description="Swaps that were ranked, members or not; null where only the names are kept")
    members: list[Member] = Field(description="In order of rank")


async def current_universe(sources: Sources) -> UniverseView | None:
    """Return the universe in force. Raises `BusSilentError`."""
    ranking = await _last_ranking(sources)
    if ranking is not None and ranking.ranks:
        return _from_ranks(list(ranking.ranks), "bus")
    # The stream may have been trimmed or damaged; the key of the current universe still has the names.
    current = await sources.ask(sources.bus.universe())
    return None if current is None else _names_only(current)


async def universe_at(sources: Sources, at: datetime) -> UniverseView | None:
    """Return the universe that held at a time: of the last ranking that was made by then.

    The newest ranking may not be on disk yet, so the bus is read first; without it the disk answers.
    """
    try:
        newest = await _last_ranking(sources)
    except BusSilentError:
        newest = None
    if newest is not None and newest.ranks and newest.ranked_time <= at:
        return _from_ranks(list(newest.ranks), "bus")
    ranks = await asyncio.to_thread(stored_ranking, sources.data_dir, at)
    return _from_ranks(ranks, "disk") if ranks else None


def stored_ranking(root: Path, at: datetime) -> list[Rank]:
    """Return every place of the last ranking on disk with ranked_time <= at; empty where there is none.

    Raises `OSError` or `ValueError` where a file that would decide is unreadable: an older answer would be wrong.
    """
    for day in reversed(days(root, Rank.dataset)):
        if day > at.date():
            continue
        for partition, _ in list(partitions(root, Rank.dataset, day)):
            rows = read_partition(root, partition).to_pylist()
            if held := [row for row in rows if row["ranked_time"] <= at]:
                last = max(row["ranked_time"] for row in held)
                return [msgspec.convert(row, Rank) for row in held if row["ranked_time"] == last]
    return []


async def _last_ranking(sources: Sources) -> Ranking | None:
    """Return the ranking in force, whole. The stream's last one may be an older one: a dead letter, replayed."""
    try:
        ranking = await sources.ask(sources.bus.last_ranking())
    except UndecodableError:
        return None
    current = await sources.ask(sources.bus.universe())
    outdated = ranking is not None and current is not None and ranking.ranked_time < current.ranked_time
    return None if outdated else ranking


def _from_ranks(ranks: list[Rank], source: Literal["bus", "disk"]) -> UniverseView:
    members = sorted((place for place in ranks if place.member), key=lambda place: place.rank)
    return UniverseView(
        ranked_time=ranks[0].ranked_time,
        rank_by=ranks[0].rank_by,
        source=source,
        total=len(ranks),
        members=[
            Member(
                symbol=place.symbol,
                rank=place.rank,
                funding_rate=place.funding_rate,
                score=place.score,
                interval_hours=place.interval_hours,
            )
            for place in members
        ],
    )


def _names_only(ranking: Ranking) -> UniverseView:
    return UniverseView(
        ranked_time=ranking.ranked_time,
        rank_by=ranking.rank_by,
        source="bus",
        total=None,
        members=[
            Member(symbol=symbol, rank=place, funding_rate=None, score=None, interval_hours=None)
            for place, symbol in enumerate(ranking.members, start=1)
        ],
    )
