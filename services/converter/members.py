"""Who was a member after each ranking: read once from each ranking file, then remembered. I/O.

Rankings are kept for ever and every conversion tells who was in the universe when, so their files must not all be read
again each time. What is remembered can be made anew from the files.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from services.converter.changes import name_of
from services.converter.raw import read_members
from shared.dataset import Partition
from shared.durable import replace_file
from shared.events import Rank


class _Day(msgspec.Struct):
    """The rankings of one file. version: its signature."""

    version: str
    rankings: list[tuple[datetime, list[str]]]


def members_after_rankings(
    root: Path, data_dir: Path, files: Mapping[Partition, str]
) -> Iterable[tuple[datetime, frozenset[str]]]:
    """Return who was a member after each ranking of some files, in order of time, and remember it under `root`."""
    path = root / ".converter" / "members.json"
    known = _read(path)
    days = {name_of(file): _Day(version, []) for file, version in sorted(files.items())}
    unread = []
    for file in files:
        day = known.get(name_of(file))
        if day is not None and day.version == files[file]:
            days[name_of(file)] = day
        else:
            unread.append(file)
    for ranked, members in read_members(data_dir, unread):
        days[name_of(Partition(Rank.dataset, ranked.date()))].rankings.append((ranked, sorted(members)))
    if days != known:
        replace_file(path, lambda temporary: temporary.write_bytes(msgspec.json.encode(days)))
    return [(ranked, frozenset(members)) for day in days.values() for ranked, members in day.rankings]


def _read(path: Path) -> dict[str, _Day]:
    """Return what is remembered: nothing, where there is no such file or it makes no sense."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Day])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}
