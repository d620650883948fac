"""Alert rules of the services: down, with an open problem, or late. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from services.api.alerts.condition import Condition
from services.api.health.diagnosis import ServiceState, diagnoses
from services.api.health.lag import channels
from services.api.health.snapshot import SERVICES, Snapshot
from shared.bus.heartbeat import Heartbeat

_LOSS = {
    "ranker": "the last universe stays in force",
    "collector": "no candle and no funding rate arrives",
    "writer": "nothing new is stored; it waits in Redis",
    "converter": "the Qlib data gets no new bars",
}
_RESUMES = {
    "ranker": "its supervisor restarts it; it then ranks at once",
    "collector": "its supervisor restarts it; it then fetches every minute that it missed",
    "writer": "its supervisor restarts it; it then reads what waits in Redis",
    "converter": "its supervisor restarts it; it then catches up",
}


class _Consequence(NamedTuple):
    """What an open cause of a service means, what the system does about it, and what the user should do."""

    means: str
    doing: str
    todo: str = ""


_CAUSES = {
    "ranking": _Consequence(
        "symbols that should join or leave the universe do not yet",
        "ranking is tried again every minute",
    ),
    "funding": _Consequence(
        "live funding rates do not arrive",
        "new connections are opened; settled rates come over REST",
    ),
    "settlements": _Consequence(
        "settled funding rates may be missing", "the history is requested again every few seconds"
    ),
    "history": _Consequence("gaps stay open", "the exchange is asked again every few seconds"),
    "candles": _Consequence(
        "live candles do not arrive",
        "a new connection is opened; what was missed is fetched over REST",
    ),
    "clock": _Consequence(
        "times follow an earlier measurement, or the host's clock",
        "the clock is measured again every few seconds; meanwhile no minute becomes absent and nothing is deleted",
    ),
    "instruments": _Consequence(
        "listings and delistings are not noticed; what is followed stays followed",
        "the list is requested again every few seconds, and used once it is complete",
    ),
    "disk": _Consequence(
        "nothing new is stored; it waits in Redis",
        "the write is repeated until it works, nothing is lost",
        "free disk space, or find out why the folder is not writable",
    ),
    "compaction": _Consequence(
        "who reads day files does not see the newest rows; they are stored, and Qlib gets them",
        "the merge is repeated until it works, nothing is lost",
        "free disk space, or find out why the folder is not writable",
    ),
    "retention": _Consequence(
        "the disk fills up",
        "it is tried again every hour",
        "find out why those folders cannot be deleted",
    ),
    "ledger": _Consequence("it is not known which minutes are complete", "the folder is scanned again"),
    "standby": _Consequence(
        "this writer stores nothing, the other one does",
        "it takes over once the other one stops",
        "run one writer for a folder",
    ),
    "conversion": _Consequence("research does not see the newest bars", "the next conversion tries again"),
    "raw": _Consequence(
        "these days are not in Qlib, or only in their earlier state",
        "everything else is converted; the writer puts a damaged file aside and its minutes are fetched again",
        "if it persists, see the reason",
    ),
    "late": _Consequence("corrections do not reach Qlib yet", "the folder is scanned again"),
    "origin": _Consequence(
        "that history is not in Qlib yet",
        "everything later is converted; once no more of it comes, a new version of the dataset takes it in",
    ),
    "redis": _Consequence("this service can neither read nor publish", "it keeps trying"),
}
_UNKNOWN_CAUSE = _Consequence("the service does not do all of its work", "it tries again by itself")
_LATE = {
    ("ranker", ServiceState.STALE): _Consequence(
        "symbols that should join or leave the universe do not yet",
        "ranking is tried again until it works",
    ),
    ("collector", ServiceState.STALE): _Consequence(
        "live data does not arrive",
        "the collector opens new connections and fetches over REST what is missing",
    ),
    ("collector", ServiceState.DEGRADED): _Consequence(
        "these instruments have no live data of this kind",
        "candles are fetched over REST meanwhile",
    ),
    ("writer", ServiceState.STALE): _Consequence(
        "the newest candles are not on disk yet",
        "they wait in Redis until they are written",
    ),
    ("converter", ServiceState.STALE): _Consequence(
        "research sees old data",
        "the next conversion takes everything that is stored",
    ),
}
_BACKLOG = _Consequence("the newest rows are not on disk yet", "the entries wait in Redis until they are read")


def _down(service: str, *, unreadable: bool) -> Condition:
    if unreadable:
        return Condition(
            key=f"down:{service}",
            severity="warning",
            what=f"the heartbeat of the {service} is unreadable",
            means="its state is unknown",
            doing="the api reads every heartbeat again",
            todo="run the same version of every service",
        )
    return Condition(
        key=f"down:{service}",
        severity="critical",
        what=f"the {service} is down",
        means=_LOSS[service],
        doing=_RESUMES[service],
        todo="read its log if it does not come back",
    )


def _problems(service: str, beat: Heartbeat) -> Iterator[Condition]:
    for cause, reason in beat.problems.items():
        consequence = _CAUSES.get(cause, _UNKNOWN_CAUSE)
        yield Condition(
            key=f"problem:{service}:{cause}",
            severity="critical" if cause == "disk" else "warning",
            what=f"{service}: {reason}",
            means=consequence.means,
            doing=consequence.doing,
            todo=consequence.todo,
        )


def _late(service: str, snapshot: Snapshot) -> Iterator[Condition]:
    reasons: dict[ServiceState, list[str]] = {}
    for diagnosis in diagnoses(service, snapshot):
        reasons.setdefault(diagnosis.state, []).append(diagnosis.reason)
    beat = snapshot.heartbeats[service]
    if beat.problems.keys() & channels(beat).keys():
        reasons.pop(ServiceState.DEGRADED, None)  # the collector reports it itself, in more detail
    for state, sentences in reasons.items():
        consequence = _LATE.get((service, state), _BACKLOG)
        yield Condition(
            key=f"late:{service}:{state}",
            severity="warning",
            what=f"{service}: {'; '.join(sentences)}",
            means=consequence.means,
            doing=consequence.doing,
        )


def service_conditions(snapshot: Snapshot) -> Iterator[Condition]:
    """Yield what is wrong with the services."""
    for service in SERVICES:
        beat = snapshot.heartbeats.get(service)
        if beat is None:
            yield _down(service, unreadable=service in snapshot.unreadable)
        else:
            yield from _problems(service, beat)
            yield from _late(service, snapshot)
