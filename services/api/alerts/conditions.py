"""What is wrong now, and what that means for whoever runs the system. Pure: a snapshot in, conditions out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from services.api.disk import Space
from services.api.health.diagnosis import (
    ServiceState,
    diagnoses,
    overdue_settlements,
    unsettled_sentence,
)
from services.api.health.lag import channels, missing_minutes, symbol_ages
from services.api.health.snapshot import RECENT_SECONDS, SERVICES, Snapshot
from services.api.text import byte_size, duration, instant, some_of
from shared.bus.heartbeat import Heartbeat

Severity = Literal["warning", "critical"]

_NAMED = 5
"""How many symbols or origins a sentence names."""


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong, in sentences for a person."""

    key: str
    """The same as long as it is the same trouble: "kind", or "kind:of whom"."""
    severity: Severity
    what: str
    means: str
    """How bad it is: what the user has, or lacks, because of it."""
    doing: str
    """What the system does about it by itself."""
    todo: str = ""
    """What the user should do; empty: nothing."""
    lasted_seconds: float = 0.0
    """For how long it lasts already, on the host's clock, as far as the snapshot tells."""
    after_seconds: float | None = None
    """How long it must last before it is told; None: as long as usual."""
    amount: float | None = None
    """How much of it there is. While that shrinks, the system is getting over it by itself."""


@dataclass(frozen=True)
class Thresholds:
    """From when on something is wrong."""

    symbol_minutes: int = 10
    """A member is stale whose newest candle is older than this, on the exchange's clock."""
    free_share: float = 0.10
    """Of a disk: less is too little."""
    memory_share: float = 0.80
    """Of Redis' ceiling: more is too much. Beyond the ceiling it refuses every write."""


@dataclass(frozen=True)
class Judgement:
    """What is wrong, and what nobody can tell: that is neither wrong nor well."""

    conditions: tuple[Condition, ...]
    unknown: frozenset[str] = frozenset()
    """Keys, or their beginnings up to a colon, of conditions that could not be judged."""

    def knows(self, key: str) -> bool:
        """Return whether the absence of a condition means that all is well."""
        return not any(key == unknown or key.startswith(f"{unknown}:") for unknown in self.unknown)


def conditions(snapshot: Snapshot, spaces: Iterable[Space] | None, thresholds: Thresholds) -> Judgement:
    """Judge everything that is worth telling. `spaces`: of the disks; None where they do not say."""
    disks = tuple(_disks(spaces or (), thresholds))
    no_disk = frozenset({"disk"} if spaces is None else ())
    if snapshot.redis_problem is not None:
        return Judgement((_redis_away(snapshot.redis_problem), *disks), _NEED_REDIS | no_disk)
    found = (
        *_services(snapshot),
        *_nothing(snapshot),
        *_symbols(snapshot, thresholds),
        *_gaps(snapshot),
        *_unsettled(snapshot),
        *_audits(snapshot),
        *_refused(snapshot),
        *_flagged_rates(snapshot),
        *_dead_letters(snapshot),
        *_memory(snapshot, thresholds),
        *disks,
    )
    return Judgement(found, frozenset(_unknown(snapshot)) | no_disk)


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


def _unknown(snapshot: Snapshot) -> Iterator[str]:
    """Yield what only a service that is away could tell; also a clock that nobody has told yet."""
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
        means="nothing new is stored, and nobody can tell how the services are",
        doing="every service keeps trying; the collector holds new candles and fetches again what does not fit",
        todo="see whether Redis runs",
    )


# --- Services: away, with an open problem, or late

_LOSS = {
    "ranker": "the last universe stays in force",
    "collector": "no candle and no funding rate arrives",
    "writer": "nothing new is stored; it waits in Redis",
    "converter": "Qlib stays as it is",
}
_RESUMES = {
    "ranker": "whatever supervises it starts it again; it then ranks at once",
    "collector": "whatever supervises it starts it again; it then fetches every minute that it missed",
    "writer": "whatever supervises it starts it again; it then takes up what waits in Redis",
    "converter": "whatever supervises it starts it again; it then catches up",
}


class _Cause(NamedTuple):
    """What a cause of a service's health means, what the system does about it, and what the user should."""

    means: str
    doing: str
    todo: str = ""


_CAUSES = {
    "ranking": _Cause(
        "symbols that should join or leave the universe do not yet", "ranking is tried again every minute"
    ),
    "funding": _Cause("live funding rates do not arrive", "new connections are opened; settled rates come over REST"),
    "settlements": _Cause(
        "settled funding rates may be missing so far", "the history is asked again every few seconds"
    ),
    "history": _Cause("gaps stay open so far", "the exchange is asked again every few seconds"),
    "candles": _Cause("live candles do not arrive", "a new connection is opened; what was missed is fetched over REST"),
    "clock": _Cause(
        "times are those that the exchange said before, or the host's",
        "the exchange is asked again and again; nothing is called absent and nothing deleted meanwhile",
    ),
    "instruments": _Cause(
        "listings and delistings are not noticed so far; what is followed is followed on",
        "the list is asked for again every few seconds, and believed once it is whole",
    ),
    "disk": _Cause(
        "nothing new is stored; it waits in Redis",
        "the write is repeated until it works, nothing is lost",
        "make room, or see why the folder cannot be written to",
    ),
    "retention": _Cause("the disk fills up", "it is tried again every hour", "see why those folders cannot be deleted"),
    "ledger": _Cause("nobody can tell which minutes are complete", "the folder is looked at again"),
    "standby": _Cause(
        "this writer stores nothing, the other one does",
        "it takes over once the other one ends",
        "run one writer for a folder",
    ),
    "conversion": _Cause("research does not see the newest bars", "the next conversion tries again"),
    "raw": _Cause(
        "these days are not in Qlib, or as they were before",
        "everything else is converted; the writer puts a damaged file aside and its minutes are fetched again",
        "see the reason, where it stays",
    ),
    "late": _Cause("corrections do not reach Qlib so far", "the folder is looked at again"),
    "origin": _Cause(
        "that history is not in Qlib yet",
        "everything later is converted; once no more of it comes, a new version of the dataset takes it in",
    ),
    "redis": _Cause("this service can neither read nor publish", "it tries again for ever"),
}
_UNKNOWN_CAUSE = _Cause("the service does not do all of its work", "it tries again by itself")
_LATE = {
    ("ranker", ServiceState.STALE): (
        "symbols that should join or leave the universe do not yet",
        "ranking is tried again until it works",
    ),
    ("collector", ServiceState.STALE): (
        "live data does not arrive",
        "the collector opens new connections and fetches over REST what is missing",
    ),
    ("collector", ServiceState.DEGRADED): (
        "these instruments have no live data of this kind",
        "candles are fetched over REST meanwhile",
    ),
    ("writer", ServiceState.STALE): (
        "the newest candles are not on disk yet",
        "they wait in Redis until they are written",
    ),
    ("converter", ServiceState.STALE): (
        "research sees old data",
        "the next conversion takes everything that is stored",
    ),
}
_BACKLOG = ("the newest rows are not on disk yet", "the entries wait in Redis until they are dealt with")


def _services(snapshot: Snapshot) -> Iterator[Condition]:
    for service in SERVICES:
        beat = snapshot.heartbeats.get(service)
        if beat is None:
            yield _down(service, unreadable=service in snapshot.unreadable)
        else:
            yield from _problems(service, beat)
            yield from _late(service, snapshot)


def _down(service: str, *, unreadable: bool) -> Condition:
    if unreadable:
        return Condition(
            key=f"down:{service}",
            severity="warning",
            what=f"the heartbeat of the {service} makes no sense to the api",
            means="nobody can tell how it is",
            doing="the api looks again and again",
            todo="run the same version of every service",
        )
    return Condition(
        key=f"down:{service}",
        severity="critical",
        what=f"the {service} is down",
        means=_LOSS[service],
        doing=_RESUMES[service],
        todo="look into its log if it does not come back",
    )


def _problems(service: str, beat: Heartbeat) -> Iterator[Condition]:
    for cause, reason in beat.problems.items():
        known = _CAUSES.get(cause, _UNKNOWN_CAUSE)
        yield Condition(
            key=f"problem:{service}:{cause}",
            severity="critical" if cause == "disk" else "warning",
            what=f"{service}: {reason}",
            means=known.means,
            doing=known.doing,
            todo=known.todo,
        )


def _late(service: str, snapshot: Snapshot) -> Iterator[Condition]:
    told: dict[ServiceState, list[str]] = {}
    for verdict, sentence in diagnoses(service, snapshot):
        told.setdefault(verdict, []).append(sentence)
    beat = snapshot.heartbeats[service]
    if beat.problems.keys() & channels(beat).keys():
        told.pop(ServiceState.DEGRADED, None)  # the collector itself tells it, and more of it
    for verdict, sentences in told.items():
        means, doing = _LATE.get((service, verdict), _BACKLOG)
        yield Condition(
            key=f"late:{service}:{verdict}",
            severity="warning",
            what=f"{service}: {'; '.join(sentences)}",
            means=means,
            doing=doing,
        )


# --- Data


def _nothing(snapshot: Snapshot) -> Iterator[Condition]:
    """Find an installation that has never collected anything, such as one without a network."""
    if snapshot.universe is None:
        yield Condition(
            key="nothing",
            severity="critical",
            what="nothing is collected: there has been no ranking yet",
            means="there is no data, and none will come until the exchange can be reached",
            doing="the ranker asks the exchange again and again, and ranks as soon as it answers",
            todo="see whether this machine reaches OKX_REST_URL; behind a proxy set HTTPS_PROXY",
        )


def _symbols(snapshot: Snapshot, thresholds: Thresholds) -> Iterator[Condition]:
    """Find members that stand still while most of their neighbours move; where all stand still, nobody collects."""
    if not snapshot.clock.measured or snapshot.universe is None:
        return
    ages = {
        age.symbol: _since_ranking(snapshot) if age.age_seconds is None else age.age_seconds
        for age in symbol_ages(snapshot)
        if age.member
    }
    limit = 60 * thresholds.symbol_minutes * max(1.0, snapshot.clock.rate)
    stale = {symbol: age for symbol, age in ages.items() if age > limit}
    if 2 * len(stale) >= len(ages):
        return
    for symbol, age in stale.items():
        newest, state = snapshot.watermarks.get(f"newest:{symbol}"), _state_of(symbol, snapshot)
        yield Condition(
            key=f"symbol:{symbol}",
            severity="warning",
            what=f"{symbol} is stale: {_newest(newest)}" + (f"; at the exchange: {state}" if state else ""),
            means=f"it lacks its last {duration(age)}; {len(ages) - len(stale)} of {len(ages)} members are fresh",
            doing="the collector keeps asking the exchange for it",
            todo="" if state else "see whether the exchange has halted it",
            lasted_seconds=age / (snapshot.clock.rate or 1.0),  # a clock may stand still
        )


def _state_of(symbol: str, snapshot: Snapshot) -> str | None:
    """Return what the collector heard of an instrument that is not as usual, such as `suspend`."""
    beat = snapshot.heartbeats.get("collector")
    of_note = beat.details.get("instruments") if beat else None
    return str(of_note[symbol]) if isinstance(of_note, Mapping) and symbol in of_note else None


def _newest(newest: datetime | None) -> str:
    return "no candle is stored yet" if newest is None else f"its newest candle opened at {instant(newest)}"


def _since_ranking(snapshot: Snapshot) -> float:
    ranked = snapshot.universe.ranked_time if snapshot.universe else snapshot.clock.exchange_time
    return max(timedelta(), snapshot.clock.exchange_time - ranked).total_seconds()


def _gaps(snapshot: Snapshot) -> Iterator[Condition]:
    if missing := missing_minutes(snapshot):
        yield Condition(
            key="gaps",
            severity="warning",
            what=f"{missing:,} minutes are missing and do not get fewer",
            means="these candles are not in the data so far",
            doing="the collector keeps asking the exchange for them, the newest first",
            amount=missing,
        )


def _unsettled(snapshot: Snapshot) -> Iterator[Condition]:
    if unsettled := overdue_settlements(snapshot):
        yield Condition(
            key="settlements",
            severity="warning",
            what=unsettled_sentence(unsettled),
            means="these funding rates are not in the data so far",
            doing="the collector asks the exchange's history for them",
            todo="see /gaps; the history of OKX reaches back three months",
            amount=len(unsettled),
        )


def _audits(snapshot: Snapshot) -> Iterator[Condition]:
    for service, beat in snapshot.heartbeats.items():
        audit = beat.details.get("audit")
        mismatches = audit.get("mismatches") if isinstance(audit, Mapping) else None
        if isinstance(mismatches, int) and mismatches > 0:
            yield Condition(
                key=f"audit:{service}",
                severity="critical",
                what=f"the audit found {mismatches:,} rows that differ from the exchange's",
                means="stored values are, or were, wrong",
                doing="the audit goes on; what the exchange corrected is stored anew",
                todo="look into the report of the audit",
                after_seconds=0.0,
            )


def _refused(snapshot: Snapshot) -> Iterator[Condition]:
    refused = _detail(snapshot, "collector", "refused_minutes")
    if count := sum(refused.values()):
        yield Condition(
            key="refused",
            severity="warning",
            what=f"the exchange has {count:,} minutes that cannot be true: {some_of(sorted(refused))}",
            means="these candles are not stored, and the bars that they belong to are empty in Qlib",
            doing="the audit asks for them again; what the exchange corrects is stored",
            todo="see /gaps?verdict=refused, and the dead letters for what it says",
            after_seconds=0.0,
            amount=count,
        )


def _flagged_rates(snapshot: Snapshot) -> Iterator[Condition]:
    flagged = {*_detail(snapshot, "ranker", "flagged_rates"), *_detail(snapshot, "collector", "flagged_rates")}
    if flagged:
        yield Condition(
            key="rates",
            severity="warning",
            what=f"the funding rate is beyond what is plausible: {some_of(sorted(flagged))}",
            means="the rates are stored with a flag; these symbols are not ranked meanwhile",
            doing="settled rates are held against the exchange's history",
            todo="compare with what the exchange shows",
            after_seconds=0.0,
        )


def _detail(snapshot: Snapshot, service: str, name: str) -> dict[str, Any]:
    """Return what a service says by symbol; nothing where it says nothing, or lists symbols alone: then 1 each."""
    beat = snapshot.heartbeats.get(service)
    found = beat.details.get(name) if beat else None
    if isinstance(found, Mapping):
        return dict(found)
    return dict.fromkeys(found, 1) if isinstance(found, list) else {}


def _dead_letters(snapshot: Snapshot) -> Iterator[Condition]:
    origins = snapshot.recent_dead_letters
    if count := sum(origins.values()):
        most = sorted(origins.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
        yield Condition(
            key="dead-letters",
            severity="warning",
            what=f"{count:,} inputs that make no sense were set aside within {duration(RECENT_SECONDS)}: "
            + ", ".join(f"{number:,} of {origin}" for origin, number in most),
            means=f"what they said is not in the data; {snapshot.dead_letters:,} are kept",
            doing="everything else goes on; minutes that lack a candle are asked for again",
            todo="see /dead-letters; after a fix, python -m services.writer.dead_letters replay",
            after_seconds=0.0,
        )


# --- Room


def _memory(snapshot: Snapshot, thresholds: Thresholds) -> Iterator[Condition]:
    memory = snapshot.memory
    if memory is not None and memory.limit and memory.used >= thresholds.memory_share * memory.limit:
        yield Condition(
            key="memory",
            severity="critical",
            what=f"Redis uses {byte_size(memory.used)} of its {byte_size(memory.limit)}",
            means="when it is full it refuses new candles; the collector then holds and later fetches them",
            doing="streams are trimmed behind the slowest reader",
            todo="see /lag for who does not read; or raise Redis' maxmemory",
        )


def _disks(spaces: Iterable[Space], thresholds: Thresholds) -> Iterator[Condition]:
    by_device: dict[int, list[Space]] = {}
    for space in spaces:
        by_device.setdefault(space.device, []).append(space)
    for shared in by_device.values():
        space, names = shared[0], " and ".join(space.folder for space in shared)
        if space.free_bytes < thresholds.free_share * space.total_bytes:
            yield Condition(
                key=f"disk:{shared[0].setting}",
                severity="critical",
                what=f"the disk of {names} has {byte_size(space.free_bytes)} of {byte_size(space.total_bytes)} left, "
                f"{space.free_bytes / space.total_bytes:.0%}",
                means="when it is full nothing is stored any more",
                doing="days older than RETENTION_DAYS are deleted; on a full disk the writer waits and loses nothing",
                todo="make room, or lower RETENTION_DAYS",
            )
