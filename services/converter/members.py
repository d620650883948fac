"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path

import msgspec

from services.converter.changes import DayFiles
from services.converter.raw import read_members
from services.converter.remembered import recall, remember
from shared.dataset import Partition
from shared.events import Rank


class _Day(msgspec.Struct):
    """The rankings of one day. version: the digest of its file."""

    version: str
    rankings: list[tuple[datetime, list[str]]]


def members_after_rankings(
    root: Path, data_dir: Path, days: Mapping[date, DayFiles]
) -> Iterable[tuple[datetime, frozenset[str]]]:
    """Return who was a member after each ranking of some days, in order of time, and remember it under `root`."""
    known = recall(root, "members", _Day)
    found = {str(day): _Day(files.digest, []) for day, files in sorted(days.items())}
    unread = []
    for day, files in days.items():
        before = known.get(str(day))
        if before is not None and before.version == files.digest:
            found[str(day)] = before
        else:
            unread.append(Partition(Rank.dataset, day))
    for ranked, members in read_members(data_dir, unread):
        found[str(ranked.date())].rankings.append((ranked, sorted(members)))
    if found != known:
        remember(root, "members", found)
    return [(ranked, frozenset(members)) for day in found.values() for ranked, members in day.rankings]
