"""Alert rules: a snapshot in, the conditions that hold out. Pure."""

from collections.abc import Iterable, Iterator

from services.api.alerts.capacity_rules import disk_conditions, memory_conditions
from services.api.alerts.condition import Condition, Evaluation, Thresholds
from services.api.alerts.data_rules import data_conditions
from services.api.alerts.service_rules import service_conditions
from services.api.disk import Space
from services.api.health.lag import missing_minutes
from services.api.health.snapshot import SERVICES, Snapshot

_NEED_REDIS = frozenset(
    {
        "down",
        "problem",
        "late",
        "symbol",
        "gaps",
        "settlements",
        "audit",
        "nothing",
        "refused",
        "rates",
        "dead-letters",
        "memory",
    }
)
"""Kinds of conditions that cannot be evaluated while Redis does not answer."""


def evaluate(snapshot: Snapshot, spaces: Iterable[Space] | None, thresholds: Thresholds) -> Evaluation:
    """Evaluate every alert rule. `spaces`: of the disks; None where they cannot be read."""
    disks = tuple(disk_conditions(spaces or (), thresholds))
    no_disk = frozenset({"disk"} if spaces is None else ())
    if snapshot.redis_problem is not None:
        return Evaluation((_redis_away(snapshot.redis_problem), *disks), _NEED_REDIS | no_disk)
    found = (
        *service_conditions(snapshot),
        *data_conditions(snapshot, thresholds),
        *memory_conditions(snapshot, thresholds),
        *disks,
    )
    return Evaluation(found, frozenset(_unknown(snapshot)) | no_disk)


def _unknown(snapshot: Snapshot) -> Iterator[str]:
    """Yield what only a service that is away could report, and what needs a clock that is not measured yet."""
    for service in SERVICES:
        if service not in snapshot.heartbeats:
            yield from (f"{kind}:{service}" for kind in ("audit", "late", "problem"))
    if "collector" not in snapshot.heartbeats:
        yield from ("refused", "rates")
    if missing_minutes(snapshot) is None or not {"collector", "writer"} <= snapshot.heartbeats.keys():
        yield from ("gaps", "settlements")  # one reports to the ledger what is wanted, the other keeps it
    if not snapshot.clock.measured:
        yield "symbol"


def _redis_away(problem: str) -> Condition:
    return Condition(
        key="redis",
        severity="critical",
        what=problem,
        means="nothing new is stored, and the state of the services is unknown",
        doing="every service keeps trying; the collector buffers new candles, and fetches later what does not fit",
        todo="check that Redis runs",
    )
