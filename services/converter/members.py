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
    """Return who was a member after each ranking of some days, and remember it under `root`.

    Of a file that cannot be read counts on what was remembered of it.
    """
    known = recall(root, "members", _Day)
    found: dict[str, _Day] = {}
    unreadable = Unreadable()
    for day, files in sorted(days.items()):
        before = known.get(str(day))
        if before is None or before.version != files.digest:
            try:
                before = _Day(files.digest, _rankings(data_dir, day))
            except UnreadableError as error:
                unreadable[day] = str(error)
        if before is not None:
            found[str(day)] = before
    if found != known:
        remember(root, "members", found)
    after = [(ranked, frozenset(members)) for day in found.values() for ranked, members in day.rankings]
    return Members(after, unreadable)


def _rankings(data_dir: Path, day: date) -> list[tuple[datetime, list[str]]]:
    return [(ranked, sorted(members)) for ranked, members in read_members(data_dir, Partition(Rank.dataset, day))]
