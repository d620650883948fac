"""What of one instrument is to be compared with the ledger: a day again only where it changed, there or here. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime

from services.collector.tracking.instrument import TrackedInstrument
from shared.datasets.ledger import Finding
from shared.ledger.day import DayLedger
from shared.ledger.minutes import Coverage, Gap, Lacking, gaps_of_mask
from shared.ledger.replica import Replica


class Books:
    """What the ledger does not know yet, and what it has not confirmed to be stored."""

    def __init__(self, wanted: TrackedInstrument, ledger: Replica) -> None:
        self.wanted = wanted
        self._ledger = ledger
        self._findings: dict[Finding, Coverage] = {
            "absent": wanted.absent,
            "halted": wanted.halted,
            "refused": wanted.refused,
        }
        if wanted.due is not None:
            self._findings["wanted"] = wanted.due
        self._unknown: dict[Finding, dict[date, int]] = {finding: {} for finding in self._findings}
        """Finding → day → the minutes of which the ledger does not know it yet."""
        self._to_report: set[date] = set()
        self._unclaimed = Lacking(self._claimed)
        self._unconfirmed: set[date] = set()
        """Days with minutes that are seen and were not stored when they were compared last. `seen` notes its changes
        in this very set."""
        self._ledger_changed: set[date] = set()
        """Days that changed in the ledger since it was compared with what was published."""
        for found in self._findings.values():
            found.note_changes(self._to_report)
        wanted.unwanted.note_changes(self._unclaimed.changed)
        wanted.seen.note_changes(self._unconfirmed)

    def note_ledger(self, changed: Iterable[date]) -> None:
        """Note which days changed in the ledger."""
        self._to_report.update(changed)
        self._ledger_changed.update(changed)
        if self.wanted.due is None:  # else no one looks, and they would pile up
            self._unclaimed.changed.update(changed)

    def _of(self, day: date) -> DayLedger:
        return self._ledger.of(self.wanted.symbol, day)

    def _claimed(self, day: date) -> int:
        """Return the minutes that the ledger knows to be wanted, and those that are not."""
        return self._of(day).wanted | self.wanted.unwanted.days.get(day, 0)

    def pending(self, exchange_now: datetime) -> Iterator[tuple[Finding, Gap]]:
        """Yield what the ledger does not know yet: wanted minutes, and those of which the exchange has no candle."""
        if self.wanted.due is None:
            gaps = self._unclaimed.gaps(self.wanted.begin, self.wanted.over_until(exchange_now))
            yield from (("wanted", gap) for gap in gaps)
        self._look()
        for finding, unknown in self._unknown.items():
            for day, mask in sorted(unknown.items()):
                yield from ((finding, gap) for gap in gaps_of_mask(day, mask))

    def _look(self) -> None:
        for day in self._to_report:
            known = self._of(day)
            for finding, found in self._findings.items():
                self._unknown[finding].pop(day, None)
                if fresh := found.days.get(day, 0) & ~getattr(known, finding):
                    self._unknown[finding][day] = fresh
        self._to_report.clear()

    def published(self) -> dict[date, int]:
        """Return the minutes seen of every day on which some may not be stored."""
        seen = self.wanted.seen.days
        self._unconfirmed.update(self._ledger_changed)
        self._unconfirmed.intersection_update(
            seen
        )  # in place, since it is noted in; those that the window has left are of no interest
        self._ledger_changed.clear()
        return {day: seen[day] for day in self._unconfirmed}

    def take_back_lost(self, published: Mapping[date, int]) -> int:
        """Count as missing again what was published and is not stored; return how many minutes.

        Also of a day that was stored whole then, and of which the ledger says something else since.
        """
        seen, lost = self.wanted.seen, 0
        changed = self._ledger_changed - self._unconfirmed
        stored_then = {day: seen.days[day] for day in changed if day in seen.days}
        self._unconfirmed.update(self._ledger_changed)
        self._ledger_changed.clear()
        for day, minutes in [*published.items(), *stored_then.items()]:
            lacks = seen.days.get(day, 0) & ~self._of(day).stored
            if missing := minutes & lacks:
                seen.discard_mask(day, missing)
                lost += missing.bit_count()
            if not lacks & ~missing:
                self._unconfirmed.discard(day)
        return lost
