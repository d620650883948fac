"""Rows waiting to become durable: accumulate, decide when to flush, split by file. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from shared.bus.streams import Entry
from shared.datasets.candle import Candle
from shared.datasets.ledger import Verdict
from shared.datasets.registry import AnyEvent, rows_of
from shared.datasets.row import Row
from shared.storage.layout import Partition, partition_of


@dataclass
class Batch:
    """What was delivered and is not stored yet: rows by file, and the entries to acknowledge once they are."""

    rows: dict[Partition, list[Row]] = field(default_factory=lambda: defaultdict(list))
    verdicts: list[Verdict] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    opened: float | None = None
    """When the first entry came, in seconds of a monotonic clock."""
    last_candle: float | None = None
    """When the last candle came."""

    def add(self, entry: Entry, event: AnyEvent | None, now: float) -> None:
        """Take an entry in; `event` is None for one that leaves no rows and is only acknowledged."""
        if self.opened is None:
            self.opened = now
        self.entries.append(replace(entry, fields={}))  # only its name is needed to acknowledge it
        for row in rows_of(event) if event is not None else ():
            self.rows[partition_of(row)].append(row)
        if isinstance(event, Candle):
            self.last_candle = now
        if isinstance(event, Verdict):
            self.verdicts.append(event)

    def __len__(self) -> int:
        return len(self.entries)

    def clear(self) -> None:
        """Forget everything: it is durable and acknowledged."""
        self.rows.clear()
        self.verdicts.clear()
        self.entries.clear()
        self.opened = None
        self.last_candle = None


def should_flush(batch: Batch, now: float, *, max_age_seconds: float, max_entries: int) -> bool:
    """Return whether a batch is old or large enough to be written, or the candles that come in bursts are all there."""
    if batch.opened is None:
        return False
    quiet = batch.last_candle is not None and now - batch.last_candle >= QUIET_SECONDS
    return quiet or len(batch) >= max_entries or now - batch.opened >= max_age_seconds


QUIET_SECONDS = 1.0
"""Closed minutes and healed gaps come in bursts: one that ended is written at once, in one go."""
