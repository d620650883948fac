"""Which bins are not what was written, and what may replace them? I/O.

All fields of a symbol have the same bars at a frequency, so one that differs is damaged. The bins of such a symbol are
computed from the raw days, all of them. Raw days are deleted after a while, and then the bins alone have their bars: a
symbol of which that would lose a value is left as it is.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from services.converter.qlib.bins import Bins, Slice
from services.converter.qlib.frequencies import FREQUENCIES, Frequency
from services.converter.qlib.store import QlibStore


@dataclass(frozen=True)
class Published:
    """What readers see when a conversion begins.

    origin, until: [from, until) of the calendars. fields: those that every symbol has. unfinished: the last run died
    before its commit, so that some bins may have more bars than others.
    """

    origin: datetime
    until: datetime
    fields: frozenset[str]
    unfinished: bool = False

    def bars(self, frequency: Frequency) -> int:
        """Return how many bars the calendar of a frequency shows."""
        return frequency.bars_until(self.origin, self.until)


class HeldBins(NamedTuple):
    """What the bins of a symbol hold when a conversion begins. damage: what is wrong with them, naming a file."""

    bins: Mapping[Frequency, Bins]
    damage: str = ""


def held_by(store: QlibStore, symbol: str, names: Collection[str], published: Published) -> HeldBins:
    """Examine the bins of a symbol, once in a conversion. names: fields."""
    bins = {frequency: store.readable(symbol, frequency, names, published.bars(frequency)) for frequency in FREQUENCIES}
    return HeldBins(bins, obstacle_of(store, symbol, {}) or _damage_of(store, symbol, bins, published))


def _damage_of(store: QlibStore, symbol: str, bins: Mapping[Frequency, Bins], published: Published) -> str:
    for frequency, every in bins.items():
        found = every.of(published.fields)
        if found.damaged:
            return found.damaged[min(found.damaged)]
        if found.extents and not published.unfinished:
            odd = sorted(name for name in published.fields if found.extents.get(name) != found.common)
            if odd:
                return _difference(store, symbol, frequency, found, odd[0])
    return ""


def _difference(store: QlibStore, symbol: str, frequency: Frequency, bins: Bins, name: str) -> str:
    found, (first, end) = bins.extents.get(name), bins.common or (0, 0)
    held = f"bars {found[0]} to {found[1] - 1}" if found else "no bars"
    return f"{store.bin_path(symbol, name, frequency)}: holds {held}, other fields hold {first} to {end - 1}"


def obstacle_of(store: QlibStore, symbol: str, bins: Mapping[Frequency, Bins]) -> str:
    """Return what stands where one of some bins is to be written, or their folder; empty where nothing does."""
    folder = store.folder(symbol)
    if os.path.lexists(folder) and not folder.is_dir():
        return f"{folder}: is no folder; remove it"
    for frequency, found in bins.items():
        for name in found.damaged:
            path = store.bin_path(symbol, name, frequency)
            if path.is_dir() and not path.is_symlink():
                return f"{path}: is a folder; remove it"
    return ""


def what_helps(store: QlibStore, symbol: str) -> str:
    """Return what to do about bins that cannot be computed from raw days."""
    return (
        f"put {store.folder(symbol)} back from a snapshot or a copy, or delete it, which loses what no raw day has, "
        "and convert with --rebuild"
    )


def lost_bar(
    store: QlibStore,
    symbol: str,
    frequency: Frequency,
    published: Published,
    *,
    held: HeldBins,
    computed: Iterable[Slice],
) -> datetime | None:
    """Return the first bar whose values would be lost, in all fields or in some of them; None where none is.

    computed: the bars that are written now. Of damaged bins nothing is taken over.
    """
    bars, replaces = published.bars(frequency), bool(held.damage)
    bins = held.bins[frequency].of(published.fields)
    if bins.common is None:
        return None
    if not replaces and len(bins.extents) == len(published.fields) and len(set(bins.extents.values())) == 1:
        return None
    alone = np.zeros(bars, np.bool_)
    # Of a bin that differs it is not known whether its values lie where they belong.
    trusted = {name: extent for name, extent in bins.extents.items() if not replaces or extent == bins.common}
    alone[min(first for first, _ in trusted.values()) : max(end for _, end in trusted.values())] = True
    if not replaces and len(trusted) == len(published.fields):  # bars that all fields have stay
        alone[max(first for first, _ in trusted.values()) : min(end for _, end in trusted.values())] = False
    for part in computed:
        alone[part.position : part.end] = False
    if not alone.any():
        return None
    lost = alone & _with_values(store, symbol, frequency, trusted, bars)
    return published.origin + int(lost.argmax()) * frequency.step if lost.any() else None


def _with_values(
    store: QlibStore, symbol: str, frequency: Frequency, names: Iterable[str], bars: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which bars have a value in one of some fields."""
    found = np.zeros(bars, np.bool_)
    for name in names:
        held = store.values(symbol, name, frequency)
        if held is not None:
            shown = held.values[: max(0, bars - held.position)]
            found[held.position : held.position + len(shown)] |= ~np.isnan(shown)
    return found
