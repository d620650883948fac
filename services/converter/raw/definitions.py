"""How did the exchange define its instruments? Read once from each file, then remembered. I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from services.converter.features.asof import Contract
from services.converter.lives import Definition, contract_values, lives_of
from services.converter.raw.days import Unreadable, read_definitions
from services.converter.raw.files import RawFiles
from services.converter.raw.remembered import up_to_date
from shared.datasets.instrument import InstrumentDefinition
from shared.storage.layout import Partition


class _DefinitionsDay(msgspec.Struct):
    """The definitions of one day, as (symbol, definition) in order of time. version: the digest of its file."""

    version: str
    definitions: list[tuple[str, Definition]] = msgspec.field(name="said")


class DefinitionHistory(NamedTuple):
    """Symbol → its definitions, in order of time. unreadable: days whose file cannot be read, and why."""

    of: Mapping[str, Sequence[Definition]]
    unreadable: Unreadable


def definitions(root: Path, raw: RawFiles, *, keep: bool = True) -> DefinitionHistory:
    """Return the definitions of every instrument. keep: remember what was read, under `root`.

    What was read once counts on, whatever becomes of its file. The writer puts a file aside that cannot be read, and
    the collector publishes again what is true now.
    """

    def read(day: date, version: str, before: _DefinitionsDay | None) -> _DefinitionsDay:
        fresh = read_definitions(raw.rows, Partition(InstrumentDefinition.dataset, day))
        return _DefinitionsDay(version, _merged(before.definitions if before else [], fresh))

    found, unreadable = up_to_date(root, "definitions", _DefinitionsDay, raw.of(InstrumentDefinition), read, keep=keep)
    by_symbol: dict[str, list[Definition]] = defaultdict(list)
    for one in found:
        for symbol, definition in one.definitions:
            by_symbol[symbol].append(definition)
    return DefinitionHistory(by_symbol, unreadable)


def _merged(before: list[tuple[str, Definition]], fresh: list[tuple[str, Definition]]) -> list[tuple[str, Definition]]:
    """Put what was remembered and what was read together, in order of time: of two at one instant the latter counts."""
    found = {(definition.known, symbol): definition for symbol, definition in [*before, *fresh]}
    return [(symbol, definition) for (_, symbol), definition in sorted(found.items(), key=lambda item: item[0])]


def contract_of(definition: Sequence[Definition]) -> Contract:
    """Return what bars need to know of the instruments under a name. Pure."""
    values = contract_values(definition)
    return Contract(
        np.array([life.begin for life in lives_of(definition)], np.int64),
        np.array([known for known, _ in values], np.int64),
        np.array([value for _, value in values], np.float64),
    )
