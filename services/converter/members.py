"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.converter.changes import DayFiles
from services.converter.raw import Unreadable, UnreadableError, read_members
from services.converter.remembered import recall, remember
from shared.dataset import Partition
from shared.events import Rank


class _Day(msgspec.Struct):
    """The rankings of one day. version: the digest of its file."""

    version: str
    rankings: list[tuple[datetime, list[str]]]


class Members(NamedTuple):
    """Who was a member after each ranking, in order of time. unreadable: days whose file cannot be read, and why."""

    after: Sequence[tuple[datetime, frozenset[str]]]
    unreadable: Unreadable


def members_after_rankings(root: Path, data_dir: Path, days: Mapping[date, DayFiles]) -> Members:
    """Return who was a member after each ranking, and remember it under `root`. days: those that are on disk.

    A ranking that was read once counts on, whatever becomes of its file: the bins of its days were made with it.
    """
    known = recall(root, "members", _Day)
    found = dict(known)
    unreadable = Unreadable()
    for day, files in days.items():
        before = known.get(str(day), _Day("", []))
        if before.version != files.digest:
            try:
                rankings = dict(before.rankings) | dict(_rankings(data_dir, day))
            except UnreadableError as error:
                unreadable[day] = str(error)
            else:
                found[str(day)] = _Day(files.digest, sorted(rankings.items()))
    if found != known:
        remember(root, "members", found)
    after = [(ranked, frozenset(members)) for _, day in sorted(found.items()) for ranked, members in day.rankings]
    return Members(after, unreadable)


def _rankings(data_dir: Path, day: date) -> list[tuple[datetime, list[str]]]:
    return [(ranked, sorted(members)) for ranked, members in read_members(data_dir, Partition(Rank.dataset, day))]
