"""Files of many symbols beside the ledger and the definitions: rankings and predictions. I/O.

Past ones are read for no other reason, so a damaged one would stand in the converter's way for ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa

from services.writer.disk.ledger import read_or_put_aside
from shared.datasets.registry import BY_DATASET
from shared.storage.layout import Partition
from shared.storage.layout import days as days_on_disk
from shared.storage.versions import day_digest


@dataclass(frozen=True)
class Seen:
    """A day file as it was read. digest: its version. times: (exchange, time) of its rows, where they are few."""

    digest: str
    times: frozenset[tuple[str, datetime]] = frozenset()


def look_again(root: Path, dataset: str, before: Mapping[date, Seen], *, keep_times: bool = False) -> dict[date, Seen]:
    """Return the day files of a dataset that hold what they should; one that does not is put aside.

    Only what changed since `before` is read.
    """
    found = {}
    for day in days_on_disk(root, dataset):
        digest, seen = day_digest(root, dataset, day), before.get(day)
        if seen is None or seen.digest != digest:
            table = read_or_put_aside(root, Partition(dataset, day))  # None, too, where there is no such file
            times = _times_of(dataset, table) if table is not None and keep_times else frozenset()
            seen = None if table is None else Seen(digest, times)
        if seen is not None:
            found[day] = seen
    return found


def _times_of(dataset: str, table: pa.Table) -> frozenset[tuple[str, datetime]]:
    columns = ["exchange", BY_DATASET[dataset].time]
    return frozenset(tuple(row.values()) for row in table.select(columns).group_by(columns).aggregate([]).to_pylist())
