"""The definitions of instruments that are on disk."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import msgspec

from services.writer.disk.ledger import read_or_put_aside
from shared.datasets.instrument import InstrumentDefinition
from shared.storage.layout import days, partitions
from shared.storage.versions import day_digest
from shared.symbol import Symbol


def digests_of_definitions(root: Path) -> dict[date, str]:
    """Return which version of each day is on disk. I/O."""
    dataset = InstrumentDefinition.dataset
    return {day: day_digest(root, dataset, day) for day in days(root, dataset)}


def read_definitions(root: Path) -> list[InstrumentDefinition]:
    """Read every definition on disk, in order of time; a file that cannot be read is put aside. I/O."""
    found: list[InstrumentDefinition] = []
    for day in days(root, InstrumentDefinition.dataset):
        for partition, _ in list(partitions(root, InstrumentDefinition.dataset, day)):
            table = read_or_put_aside(root, partition)
            if table is not None:
                found += msgspec.convert(table.to_pylist(), list[InstrumentDefinition])
    return found


def newest_definitions(definitions: Iterable[InstrumentDefinition]) -> dict[Symbol, InstrumentDefinition]:
    """Return the newest definition of every instrument. Pure."""
    found: dict[Symbol, InstrumentDefinition] = {}
    for one in sorted(definitions, key=lambda one: one.known_time):
        found[one.symbol] = one
    return found
