"""What a campaign found, as plain values that a report can add up. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from proofs.chaos.audit import Audited
from proofs.chaos.faults import Happened
from proofs.chaos.plan import Plan
from proofs.judges.recorded import RecordedTally
from proofs.judges.stored import StoredTally
from proofs.judges.tally import Role
from proofs.units import MINUTE_MS


@dataclass
class Outcome:
    """What a run found."""

    raw: StoredTally = field(default_factory=StoredTally)
    qlib: dict[str, RecordedTally] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unhealed: dict[str, Any] = field(default_factory=dict)
    """What still lacked, or was not well, when the time to heal was over."""
    audited: Audited = field(default_factory=Audited)
    """What the audits by hand found of the minutes that the exchange changed later."""
    dead_letters: int = 0
    settle_seconds: float = 0.0
    log: list[Happened] = field(default_factory=list)
    wire_log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Return whether nothing was lost, doubled, wrong, shifted or invented, and no process died by itself."""
        qlib = bool(self.qlib) and all(tally.clean for tally in self.qlib.values())
        audited = not self.audited.unexpected and not self.audited.troubles
        return self.raw.clean and qlib and audited and not self.deaths and not self.unhealed


def around(outcome: Outcome, at_ms: int, width_ms: int) -> list[str]:
    """Return what happened around an instant, the host's faults and the wire's, in order. Pure."""
    found = [
        (fault.began_ms, f"{fault.kind}: {fault.detail}")
        for fault in outcome.log
        if fault.began_ms - width_ms <= at_ms <= fault.ended_ms + width_ms
    ]
    wire: dict[tuple[str, int], int] = Counter()
    for entry in outcome.wire_log:
        if abs(entry["now_ms"] - at_ms) <= width_ms:
            wire[entry["kind"], entry["now_ms"] // MINUTE_MS * MINUTE_MS] += 1
    found += [(minute, f"{kind}, {count} times") for (kind, minute), count in wire.items()]
    return [f"{instant(time)}  {text}" for time, text in sorted(found)]


def instant(milliseconds: int) -> str:
    """Spell an instant, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%F %T")


def report(plan: Plan, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Return the run as plain values; counts of several runs can be summed up."""
    return {
        "seed": plan.seed,
        "command": plan.command(),
        "passed": outcome.passed,
        "seconds": round(seconds, 1),
        "settle_seconds": outcome.settle_seconds,
        "injected": dict(outcome.injected),
        "happened": dict(outcome.happened),
        "compared": outcome.raw.spelled(Role.EVIDENCE, Role.SIZE),
        "wrong": outcome.raw.spelled(Role.FAULT),
        "qlib": {name: tally.counts() for name, tally in outcome.qlib.items()},
        "audited": dict(outcome.audited.counts),
        "audit_unexpected": [difference._asdict() for difference in outcome.audited.unexpected],
        "audit_troubles": outcome.audited.troubles,
        "dead_letters": outcome.dead_letters,
        "deaths": outcome.deaths,
        "unhealed": outcome.unhealed,
        "skipped": outcome.skipped,
        "differences": [difference._asdict() for difference in outcome.raw.differences],
    }
