"""Rows that the writer has made durable and not merged into day files yet. Read with pyarrow alone. I/O."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_SEGMENTS = 4096
"""Kept in memory: they never change, and a judge looks again and again."""


def waiting(data_dir: Path, dataset: str) -> list[pa.Table]:
    """Return the rows of each segment of a dataset. Call it before day files are read: what is merged is in these."""
    found = []
    for path in sorted((data_dir / "_segments" / dataset).glob("*.parquet")):
        try:
            found.append(_read(path))
        except (OSError, pa.ArrowInvalid):  # merged, or damaged, a moment ago
            continue
    return found


@lru_cache(maxsize=_SEGMENTS)
def _read(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read()


def waiting_of(data_dir: Path, dataset: str, symbol: str) -> pa.Table | None:
    """Return the waiting rows of a symbol; None where there are none."""
    parts = [table.filter(pc.equal(table["symbol"], symbol)) for table in waiting(data_dir, dataset)]
    parts = [part for part in parts if part.num_rows]
    return pa.concat_tables(parts) if parts else None


def newest(stored: pa.Table, fresh: pa.Table, time: str, known: str) -> pa.Table:
    """Let waiting rows take the place of stored ones with the same time, and of each other: the newest knowledge wins.

    Copies among the stored rows stay: these are what a judge looks for. Of two that were known at the same time the
    stored one stays, as they are the same but for a correction that is dated later.
    """
    fresh = fresh.take(pc.sort_indices(fresh, [(time, "ascending"), (known, "ascending")])).select(stored.schema.names)
    times, dated = _ints(fresh, time), _ints(fresh, known)
    last = np.append(np.diff(times) != 0, True)
    fresh, times, dated = fresh.filter(pa.array(last)), times[last], dated[last]
    opens = _ints(stored, time)
    at = np.minimum(np.searchsorted(times, opens), len(times) - 1)
    replaced = (times[at] == opens) & (dated[at] > _ints(stored, known))
    new = ~np.isin(times, opens[~replaced])
    return pa.concat_tables([stored.filter(pa.array(~replaced)), fresh.filter(pa.array(new))])


def _ints(table: pa.Table, name: str) -> NDArray[np.int64]:
    found: NDArray[np.int64] = table[name].cast("int64").to_numpy()
    return found
