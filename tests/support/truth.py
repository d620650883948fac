"""A made-up truth of one symbol, and raw rows that were stored of it, for the judges of a raw folder."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from proofs.judges.stored import FIELDS, Stored, StoredTally
from proofs.judges.tally import Role
from proofs.rig.recording import Recorded
from proofs.units import MINUTE_MS

BEGIN = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)


def a_truth(minutes: int = 100, settled: Mapping[int, float] | None = None) -> Recorded:
    """Return minutes from `BEGIN` on, each with figures of its own, and settlements (Unix ms → rate)."""
    opens = BEGIN + MINUTE_MS * np.arange(minutes, dtype=np.int64)
    values = {name: np.arange(minutes, dtype=np.float64) + 0.1 * place for place, name in enumerate(FIELDS)}
    settled = settled or {}
    return Recorded(opens, values, np.array([*settled], np.int64), np.array([*settled.values()], np.float64))


def stored_as(true: Recorded, rows: Sequence[int]) -> Stored:
    """Return some rows of the truth as they are stored: every other one came over the socket."""
    values = {name: column[rows].copy() for name, column in true.values.items()}
    return Stored(true.opens[rows], values, np.array([row % 2 == 0 for row in rows]))


def faults_of(found: StoredTally) -> dict[str, int]:
    """Return the counts that are not 0 and must be."""
    return {name: count for name, count in found.spelled(Role.FAULT).items() if count}
