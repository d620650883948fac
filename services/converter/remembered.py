"""What was read from raw files that are kept for ever, day by day, in a file of the dataset's own. I/O.

Every conversion needs all of it, so the raw files must not all be read again each time. It can be made again from them,
and outlives them.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from shared.durable import replace_file

REMEMBERED = ("definitions", "members")
"""The names under which something is remembered."""


def recall[T](root: Path, name: str, kind: type[T]) -> dict[str, T]:
    """Return what is remembered, by day: nothing, where there is no such file or it makes no sense."""
    try:
        return msgspec.json.decode(_path(root, name).read_bytes(), type=dict[str, kind])  # type: ignore[valid-type]
    except (FileNotFoundError, ValueError, RecursionError):  # no JSON, or no UTF-8
        return {}


def remember(root: Path, name: str, found: Mapping[str, object]) -> None:
    """Replace what is remembered."""
    _replace(_path(root, name), msgspec.json.encode(found))


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def take_along(before: Path, root: Path) -> None:
    """Copy all that a version of the dataset remembers into a new one."""
    for name in REMEMBERED:
        with suppress(FileNotFoundError):
            _replace(_path(root, name), _path(before, name).read_bytes())


def _path(root: Path, name: str) -> Path:
    return root / ".converter" / f"{name}.json"
