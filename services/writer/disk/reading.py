"""What is stored, whether it is in a day file yet or not. Reads only: damage is for the writer to put aside. I/O."""

from datetime import date
from pathlib import Path

import pyarrow as pa

from services.writer.disk.ledger import ByDay, Records, unite
from services.writer.disk.pending import added_by, verdicts_in
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.storage.layout import Partition, days
from shared.storage.segments import PendingRows, RawRows


class StoredRows:
    """Reads day files and segments; of the latter each only once."""

    def __init__(self, root: Path) -> None:
        self._pending = PendingRows(root)

    def of(self, file: Partition) -> pa.Table:
        """Return the rows of a day. Raises as `RawRows.read`."""
        return self._rows(BY_DATASET[file.dataset]).read(file)

    def days(self, dataset: str) -> set[date]:
        """Return the days of which rows of a dataset are stored."""
        rows = self._rows(BY_DATASET[dataset])
        return {file.day for file in rows.waiting if file.dataset == dataset} | {*days(rows.root, dataset)}

    def ledger(self, day: date, dataset: str) -> Records:
        """Return what the ledger knows of a day and of rows of a dataset, which must not be numbered ones.

        Raises as `read_partition`, but for a day without a file: of that, what segments hold is known.
        """
        rows = self._rows(LedgerRow, BY_DATASET[dataset])
        found: ByDay = {day: {}}
        try:
            parts = rows.parts(Partition(LedgerRow.dataset, day))
        except FileNotFoundError:
            parts = []
        for part in parts:
            unite(found, {day: verdicts_in(part)})
        for file, waiting in rows.waiting.items():
            if (file.dataset, file.day) == (dataset, day):
                unite(found, added_by(BY_DATASET[dataset], pa.concat_tables(waiting), lambda _: {}))
        return {key: one for key, one in found[day].items() if key.dataset == dataset}

    def _rows(self, *kinds: type[Row]) -> RawRows:
        self._pending.refresh(kinds)
        return self._pending.rows()
