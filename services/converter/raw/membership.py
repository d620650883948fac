"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.converter.raw.days import Unreadable, read_members
from services.converter.raw.files import RawFiles
from services.converter.raw.remembered import up_to_date
from shared.datasets.universe import Rank
from shared.storage.layout import Partition
from shared.symbol import HOME


class _RankingsDay(msgspec.Struct, omit_defaults=True):
    """The rankings of one day. version: the digest of its file."""

    version: str
    rankings: list[tuple[datetime, list[str]]]
    """Of OKX."""
    others: dict[str, list[tuple[datetime, list[str]]]] = {}
    """Of every other exchange, by its name."""


class Members(NamedTuple):
    """Who was a member after each ranking, in order of time, by exchange.

    unreadable: days whose file cannot be read, and why.
    """

    after: Mapping[str, Sequence[tuple[datetime, frozenset[str]]]]
    unreadable: Unreadable


def members_after_rankings(root: Path, raw: RawFiles) -> Members:
    """Return who was a member after each ranking, and remember it under `root`.

    A ranking that was read once counts on, whatever becomes of its file: the bins of its days were made with it.
    """

    def read(day: date, version: str, before: _RankingsDay | None) -> _RankingsDay:
        known = _by_exchange(before) if before else {}
        for exchange, rankings in read_members(raw.rows, Partition(Rank.dataset, day)).items():
            fresh = {ranked: sorted(members) for ranked, members in rankings}
            known[exchange] = sorted({**dict(known.get(exchange, [])), **fresh}.items())
        return _RankingsDay(version, known.pop(HOME, []), known)

    found, unreadable = up_to_date(root, "members", _RankingsDay, raw.of(Rank), read)
    after: dict[str, list[tuple[datetime, frozenset[str]]]] = {HOME: []}
    for day in found:
        for exchange, rankings in _by_exchange(day).items():
            after.setdefault(exchange, []).extend((ranked, frozenset(members)) for ranked, members in rankings)
    return Members(after, unreadable)


def _by_exchange(day: _RankingsDay) -> dict[str, list[tuple[datetime, list[str]]]]:
    return {HOME: day.rankings, **day.others}
