"""What work asks of the machine, as counts: the same on every machine, however busy it is."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

from shared.storage import durable

_TOOL = 4
"""Of the numbers that sys.monitoring has, one that no debugger, coverage tool, profiler or optimizer uses."""
_IO = Path("/proc/self/io")
IS_COUNTABLE = _IO.exists()
"""Whether the kernel counts the bytes that a process writes."""


@dataclass
class Counts:
    """What a block asked for."""

    calls: int = 0
    """Of Python functions, in all threads; those that watch are left out."""
    opened: int = 0
    """Files and folders, opened by Python."""
    synced: int = 0
    """Calls of fsync and of syncfs."""
    written: int = 0
    """Bytes handed to the kernel."""


class _Opened:
    """Counts what Python opens. An audit hook cannot be taken away again, so there is one for good."""

    def __init__(self) -> None:
        self.number = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: tuple[Any, ...]) -> None:
        self.number += event == "open"


_opened: list[_Opened] = []


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what a block asks for; the counts are there after it."""
    if not _opened:
        _opened.append(_Opened())
    counts = Counts()
    with _watched_syncs(counts):
        written, opened = _written(), _opened[0].number
        with _watched_calls(counts):
            yield counts
        counts.opened = _opened[0].number - opened
        counts.written = _written() - written


@contextmanager
def _watched_calls(counts: Counts) -> Iterator[None]:
    def add(code: CodeType, _: int) -> object:
        if code.co_filename == __file__:
            return sys.monitoring.DISABLE
        counts.calls += 1
        return None

    sys.monitoring.use_tool_id(_TOOL, "counts")
    sys.monitoring.register_callback(_TOOL, sys.monitoring.events.PY_START, add)
    sys.monitoring.set_events(_TOOL, sys.monitoring.events.PY_START)
    try:
        yield
    finally:
        sys.monitoring.set_events(_TOOL, 0)
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.PY_START, None)
        sys.monitoring.free_tool_id(_TOOL)


@contextmanager
def _watched_syncs(counts: Counts) -> Iterator[None]:
    syncfs = durable.syncfs()

    def watched[**P](call: Callable[P, None]) -> Callable[P, None]:
        def count(*arguments: P.args, **named: P.kwargs) -> None:
            counts.synced += 1
            call(*arguments, **named)

        return count

    with (
        patch.object(os, "fsync", watched(os.fsync)),
        patch.object(durable, "syncfs", lambda: None if syncfs is None else watched(syncfs)),
    ):
        yield


def _written() -> int:
    return next(int(line.split()[1]) for line in _IO.read_text("ascii").splitlines() if line.startswith("wchar"))
