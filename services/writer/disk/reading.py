"""What is stored, whether it is in a day file yet or not. Reads only: damage is for the writer to put aside. I/O."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa

from services.writer.disk.ledger import Records
from services.writer.disk.pending import added_by, verdicts_in, with_pending
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET
from shared.datasets.row import Row
from shared.storage.layout import Partition, days
from shared.storage.parquet import read_partition
from shared.storage.segments import Pending, read_merged


@dataclass
class StoredRows:
    """Reads day files and segments; of the latter each only once."""

    root: Path
    _pending: dict[str, Pending] = field(default_factory=dict)

    def of(self, file: Partition) -> pa.Table:
        """Return the rows of a day. Raises as `read_merged`."""
        pending = self._refreshed(BY_DATASET[file.dataset])
        return read_merged(self.root, file, pending.of(file))

    def days(self, dataset: str) -> set[date]:
        """Return the days of which rows of a dataset are stored."""
        pending = self._refreshed(BY_DATASET[dataset]).partitions
        return {file.day for file in pending} | {*days(self.root, dataset)}

    def ledger(self, day: date, dataset: str) -> Records:
        """Return what the ledger knows of a day and of rows of a dataset, which must not be numbered ones.

        Raises as `read_partition`, but for a day without a file: of that, what segments hold is known.
        """
        kind = BY_DATASET[dataset]
        added: Records = {}
        for source in (LedgerRow, kind):
            pending = self._refreshed(source)
            for file in pending.partitions:
                rows = pending.of(file) if file.day == day else None
                if rows is not None:
                    added = with_pending(added, added_by(source, rows, lambda _: {}).get(day, {}))
        known = with_pending(self._in_file(day), added)
        return {key: one for key, one in known.items() if key.dataset == dataset}

    def _in_file(self, day: date) -> Records:
        try:
            return verdicts_in(read_partition(self.root, Partition(LedgerRow.dataset, day)))
        except FileNotFoundError:
            return {}

    def _refreshed(self, kind: type[Row]) -> Pending:
        pending = self._pending.setdefault(kind.dataset, Pending(self.root, kind))
        pending.refresh()
        return pending
