"""Rows waiting to become durable: accumulate, decide when to flush. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from shared.bus.streams import Entry
from shared.datasets.candle import Candle
from shared.datasets.ledger import Verdict
from shared.datasets.registry import COMPLETENESS, AnyEvent, rows_of
from shared.datasets.row import Row


@dataclass
class Batch:
    """What was delivered and is not stored yet: rows by dataset, and the entries to acknowledge once they are."""

    rows: dict[type[Row], list[Row]] = field(default_factory=lambda: defaultdict(list))
    verdicts: list[Verdict] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    opened: float | None = None
    """When the first entry came, in seconds of a monotonic clock."""
    urgent: float | None = None
    """When the first one came that somebody waits for."""
    last_candle: float | None = None
    """When the last candle came."""

    def add(self, entry: Entry, event: AnyEvent | None, now: float) -> None:
        """Take an entry in; `event` is None for one that leaves no rows and is only acknowledged."""
        if self.opened is None:
            self.opened = now
        self.entries.append(replace(entry, fields={}))  # only its name is needed to acknowledge it
        for row in rows_of(event) if event is not None else ():
            self.rows[type(row)].append(row)
        if isinstance(event, Candle):
            self.last_candle = now
        if isinstance(event, Verdict):
            self.verdicts.append(event)
        if self.urgent is None and event is not None and _is_urgent(event):
            self.urgent = now

    def __len__(self) -> int:
        return len(self.entries)

    def clear(self) -> None:
        """Forget everything: it is durable and acknowledged."""
        self.rows.clear()
        self.verdicts.clear()
        self.entries.clear()
        self.opened = self.urgent = self.last_candle = None


def _is_urgent(event: AnyEvent) -> bool:
    """Return whether an event is waited for: what is missing is asked for again, and rare rows are shown at once.

    Predictions are neither: they are stored with the next candles, before a bar that they concern is computed.
    """
    return not rows_of(event) or any(row.dataset in COMPLETENESS or row.rare for row in rows_of(event))


def should_flush(batch: Batch, now: float, *, max_age_seconds: float, max_entries: int) -> bool:
    """Return whether a batch is old or large enough to be written, or the candles that come in bursts are all there."""
    if batch.opened is None:
        return False
    quiet = batch.last_candle is not None and now - batch.last_candle >= QUIET_SECONDS
    old = batch.urgent is not None and now - batch.urgent >= max_age_seconds
    return quiet or old or len(batch) >= max_entries or now - batch.opened >= max(max_age_seconds, PATIENT_SECONDS)


QUIET_SECONDS = 1.0
"""Closed minutes and healed gaps come in bursts: one that ended is written at once, in one go."""
PATIENT_SECONDS = 60.0
"""Longest time that rows wait which are not urgent: a minute later candles take them along."""
