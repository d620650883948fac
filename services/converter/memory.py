"""What does a process remember of its last conversion? It makes one more minute cheap.

A conversion asks of every symbol what its bins hold, and what the bars of the running day are made of. A process that
converts every few seconds knows both, as long as no other process has changed the dataset. It holds the lock only while
it converts, so at the begin of each conversion it looks whether the dataset is the one that it left: every conversion
leaves a trace in its folder, and another version is another folder. It forgets with each day, so that damage is found,
and with each failure.
"""

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple, cast

from services.converter.features.difference import Inputs
from services.converter.manifest import Manifest, manifest_path
from services.converter.qlib.damage import HeldBins
from services.converter.qlib.frequencies import FREQUENCIES
from shared.grid import MINUTE
from shared.storage.layout import signature
from shared.storage.qlib_layout import ALL, OWN, calendar_path, market_path
from shared.storage.segments import PendingRows


class Written(NamedTuple):
    """What the bins of a symbol were last made of. versions: of its candle files. end: up to when bars are there."""

    inputs: Inputs
    versions: tuple[str | None, ...]
    end: datetime


@dataclass
class Memory:
    """What one process remembers of one dataset; empty before its first conversion."""

    is_kept: bool = True
    """Whether there will be another conversion: else nothing is noted."""
    manifest: Manifest | None = None
    written: dict[str, Written] = field(default_factory=dict)
    """Symbol → what the bars of the running day were made of."""
    held: dict[str, HeldBins] = field(default_factory=dict)
    """Symbol → what its bins hold."""
    pending: PendingRows | None = None
    """The rows that wait to be merged into day files, as far as they have been read."""
    _of: Hashable = None
    """The dataset as it was left, and for what it was made."""
    _made: dict[str, tuple[Hashable, object]] = field(default_factory=dict)

    def forget(self) -> None:
        """Remember nothing."""
        self.manifest, self._of = None, None
        self.written.clear()
        self.held.clear()
        self._made.clear()

    def trust(self, head: Path, recipe: str, until: datetime | None) -> None:
        """Forget all, unless the dataset is the one that was left, and it goes on with the same day."""
        if self._of is None or until is None or self._of != (_state_of(head), recipe, _day_of(until)):
            self.forget()

    def leave(self, head: Path, recipe: str, end: datetime) -> None:
        """Note how the dataset is left."""
        if not self.is_kept:
            return
        self._of = _state_of(head), recipe, _day_of(end)

    def made[T](self, name: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a name for the same key; else make it."""
        if not self.is_kept:
            return make()
        known = self._made.get(name)
        if known is None or known[0] != key:
            known = self._made[name] = key, make()
        return cast("T", known[1])

    def drop(self, name: str) -> None:
        """Do not give again what was made under a name."""
        self._made.pop(name, None)

    def note(self, symbol: str, written: Written | None, held: HeldBins | None) -> None:
        """Note what has been written of a symbol; None: not known."""
        self.written.pop(symbol, None)
        self.held.pop(symbol, None)
        if self.is_kept and written is not None:
            self.written[symbol] = written
        if self.is_kept and held is not None and not held.damage:
            self.held[symbol] = held

    def pending_in(self, root: Path) -> PendingRows:
        """Return what waits in a raw folder: only segments that are new are read."""
        if self.pending is None or self.pending.root != root:
            self.pending = PendingRows(root)
        return self.pending

    def keep(self, manifest: Manifest) -> None:
        """Note what is in Qlib now."""
        self.manifest = manifest if self.is_kept else None


def _day_of(end: datetime) -> date:
    """Return the day of the last minute before an instant."""
    return (end - MINUTE).date()


def _state_of(head: Path) -> Hashable:
    """Return what changes with every conversion by another process, and with every change of versions."""
    # A run makes a marker in the folder, and removes it: whoever converts changes its time.
    files = [head / OWN, manifest_path(head), market_path(head, ALL)]
    files += [calendar_path(head, one.name) for one in FREQUENCIES]
    return os.path.realpath(head), tuple(map(_signature, files))


def _signature(path: Path) -> str:
    try:
        return signature(path.stat())
    except OSError:
        return ""


def versions_of(versions: Mapping[date, str], days: tuple[date, ...]) -> tuple[str | None, ...]:
    """Return the versions of the files of some days."""
    return tuple(versions.get(day) for day in days)
