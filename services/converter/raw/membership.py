"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.converter.raw.days import Unreadable, read_members
from services.converter.raw.files import RawFiles
from services.converter.raw.remembered import up_to_date
from shared.datasets.universe import Rank
from shared.storage.layout import Partition


class _RankingsDay(msgspec.Struct):
    """The rankings of one day. version: the digest of its file."""

    version: str
    rankings: list[tuple[datetime, list[str]]]


class Members(NamedTuple):
    """Who was a member after each ranking, in order of time. unreadable: days whose file cannot be read, and why."""

    after: Sequence[tuple[datetime, frozenset[str]]]
    unreadable: Unreadable


def members_after_rankings(root: Path, raw: RawFiles) -> Members:
    """Return who was a member after each ranking, and remember it under `root`.

    A ranking that was read once counts on, whatever becomes of its file: the bins of its days were made with it.
    """

    def read(day: date, version: str, before: _RankingsDay | None) -> _RankingsDay:
        rankings = dict(before.rankings if before else []) | dict(_rankings(raw.root, day))
        return _RankingsDay(version, sorted(rankings.items()))

    found, unreadable = up_to_date(root, "members", _RankingsDay, raw.of(Rank), read)
    return Members([(ranked, frozenset(members)) for day in found for ranked, members in day.rankings], unreadable)


def _rankings(data_dir: Path, day: date) -> list[tuple[datetime, list[str]]]:
    return [(ranked, sorted(members)) for ranked, members in read_members(data_dir, Partition(Rank.dataset, day))]
