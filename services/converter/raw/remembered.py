"""What was read from raw files that are kept for ever, day by day, in a file of the dataset's own. I/O.

Every conversion needs all of it, so the raw files must not all be read again each time. It can be made again from them,
and outlives them.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Protocol

import msgspec

from services.converter.raw.days import Unreadable, UnreadableError
from services.converter.raw.files import DayFiles
from shared.storage.files import replace_file
from shared.storage.qlib_layout import OWN

REMEMBERED = ("definitions", "members")
"""The names under which something is remembered."""


class RememberedDay(Protocol):
    """What was read of a day's file. version: the digest of that file."""

    version: str


def up_to_date[D: RememberedDay](
    root: Path,
    name: str,
    kind: type[D],
    days: Mapping[date, DayFiles],
    read: Callable[[date, str, D | None], D],
    *,
    keep: bool = True,
) -> tuple[list[D], Unreadable]:
    """Return what is remembered of each day, in order, with what has changed on disk read again.

    What was read once counts on, whatever becomes of its file. days: those that are on disk. read: day, version and
    what was remembered → what is to be; it may raise `UnreadableError`. keep: remember it.
    """
    known = _recall(root, name, kind)
    found, unreadable = dict(known), Unreadable()
    for day, files in days.items():
        before = known.get(str(day))
        if before is None or before.version != files.digest:
            try:
                found[str(day)] = read(day, files.digest, before)
            except UnreadableError as error:
                unreadable[day] = str(error)
    if keep and found != known:
        _replace(_path(root, name), msgspec.json.encode(found))
    return [one for _, one in sorted(found.items())], unreadable


def _recall[D](root: Path, name: str, kind: type[D]) -> dict[str, D]:
    """Return what is remembered, by day: nothing, where there is no such file or it makes no sense."""
    try:
        return msgspec.json.decode(_path(root, name).read_bytes(), type=dict[str, kind])  # type: ignore[valid-type]
    except (FileNotFoundError, ValueError, RecursionError):  # no JSON, or no UTF-8
        return {}


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def take_along(before: Path, root: Path) -> None:
    """Copy all that a version of the dataset remembers into a new one."""
    for name in REMEMBERED:
        with suppress(FileNotFoundError):
            _replace(_path(root, name), _path(before, name).read_bytes())


def _path(root: Path, name: str) -> Path:
    return root / OWN / f"{name}.json"
