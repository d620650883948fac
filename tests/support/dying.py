"""Processes that die, in-process: the n-th call to the operating system is the last."""

import os
from collections.abc import Callable
from typing import Any

import pytest

WRITING = ("pwrite", "fsync", "replace", "rename", "unlink")
"""Calls that change files and their names."""
NAMING = ("replace", "rename", "symlink", "mkdir", "unlink", "fsync", "rmdir")
"""Calls that change the names in a folder."""


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Dying:
    """Lets the call after so many others be the last; or, with an error of the system, fail alone."""

    def __init__(self, monkeypatch: Any, names: tuple[str, ...], after: int, fails_with: OSError | None = None) -> None:
        self.left, self.calls, self.fails_with = after, 0, fails_with
        for name in names:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.fails_with is not None and self.calls == self.left + 1:
                raise self.fails_with
            if self.fails_with is None and self.calls > self.left:
                raise KilledError
            return call(*arguments, **options)

        return counted


def die_at(monkeypatch: Any, names: tuple[str, ...], after: int, do: Callable[[], object]) -> None:
    """Do something that dies after so many calls; fail where it does not."""
    with monkeypatch.context() as dying:
        Dying(dying, names, after)
        with pytest.raises(KilledError):
            do()


def calls_of(monkeypatch: Any, names: tuple[str, ...], do: Callable[[], object]) -> int:
    """Count the calls that something makes from beginning to end."""
    with monkeypatch.context() as counting:
        counted = Dying(counting, names, after=10**9)
        do()
    return counted.calls
