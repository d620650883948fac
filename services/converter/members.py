"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O.

Rankings are kept for ever and every conversion tells who was in the universe when, so their files must not all be read
again each time. What is remembered can be made anew from the files.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path

import msgspec

from services.converter.changes import DayFiles
from services.converter.raw import read_members
from shared.dataset import Partition
from shared.durable import replace_file
from shared.events import Rank


class _Day(msgspec.Struct):
    """The rankings of one day. version: the digest of its file."""

    version: str
    rankings: list[tuple[datetime, list[str]]]


def members_after_rankings(
    root: Path, data_dir: Path, days: Mapping[date, DayFiles]
) -> Iterable[tuple[datetime, frozenset[str]]]:
    """Return who was a member after each ranking of some days, in order of time, and remember it under `root`."""
    path = root / ".converter" / "members.json"
    known = _read(path)
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
        replace_file(path, lambda temporary: temporary.write_bytes(msgspec.json.encode(found)))
    return [(ranked, frozenset(members)) for day in found.values() for ranked, members in day.rankings]


def _read(path: Path) -> dict[str, _Day]:
    """Return what is remembered: nothing, where there is no such file or it makes no sense."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Day])
    except (FileNotFoundError, ValueError, RecursionError):  # no JSON, or no UTF-8
        return {}
