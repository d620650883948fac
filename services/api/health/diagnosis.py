"""Numbers → the state of a service, and a sentence a person understands. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.api.health.cadence import cadence_of
from services.api.health.lag import channels
from services.api.health.snapshot import Snapshot
from services.api.text import duration, instant, some_of
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import CAPS, GroupLag
from shared.datasets.channels import CHANNELS
from shared.runtime.heartbeat import TTL_SECONDS

LAGGING_SECONDS = 120.0
"""Longer than one flush and a second try after a hiccup: an entry that waits for longer is not merely on its way."""
NEAR_CAP = 0.8
"""Share of a stream's hard cap from which on a backlog is about to lose its oldest entries, however young."""
WRITTEN_STALE_SECONDS = 300.0
"""A minute is written some 75 s after it opened; a reconnect with its backfill takes up to three minutes more."""
RANKED_STALE_SECONDS = 900.0
"""Beyond the interval between rankings: the exchange may be in maintenance for some minutes at that instant."""
CONVERTED_STALE_SECONDS = 2 * 3600.0
"""Beyond the interval between conversions: a long run, and its repetition after a failure."""
SETTLED_STALE_SECONDS = 1800.0
"""The exchange's history shows a settlement minutes after it, and is asked for it repeatedly."""


class ServiceState(StrEnum):
    """How a service, or the whole system, is."""

    OK = "ok"
    STALE = "stale"
    LAGGING = "lagging"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    DOWN = "down"


class Diagnosis(NamedTuple):
    """The state of a service, and why it is in it."""

    state: ServiceState
    reason: str


def absence(service: str, snapshot: Snapshot) -> Diagnosis | None:
    """Return why a service is not at work: down, unreadable or starting. None where it is at work."""
    if service in snapshot.unreadable:
        return Diagnosis(ServiceState.UNKNOWN, "heartbeat unreadable: does the service run another version?")
    beat = snapshot.heartbeats.get(service)
    if beat is None:
        return Diagnosis(ServiceState.DOWN, f"no heartbeat for more than {TTL_SECONDS} s")
    if beat.state == "starting" or not beat.ready:
        waiting = beat.details.get("waiting") or (beat.reason if beat.state == "degraded" else None)
        since = duration(_up_seconds(beat))
        return Diagnosis(ServiceState.DEGRADED, f"starting for {since}" + (f": {waiting}" if waiting else ""))
    return None


def diagnoses(service: str, snapshot: Snapshot) -> Iterator[Diagnosis]:
    """Yield in which ways a service that beats is late, silent or refused by the exchange; nothing where it is not."""
    yield from _lagging(service, snapshot)
    yield from _CHECKS[service](snapshot, snapshot.heartbeats[service])


def overdue_settlements(snapshot: Snapshot) -> list[tuple[str, datetime]]:
    """Return the symbols and instants whose settled rate should have been stored long ago, the newest first."""
    if snapshot.ledger is None:
        return []
    return [
        (symbol, at)
        for symbol, at in snapshot.ledger.unsettled
        if _overdue_seconds(snapshot, at, SETTLED_STALE_SECONDS) is not None
    ]


def unsettled_sentence(unsettled: Sequence[tuple[str, datetime]]) -> str:
    """Name settlements whose rate is missing."""
    missing = "1 settled funding rate is" if len(unsettled) == 1 else f"{len(unsettled):,} settled funding rates are"
    named = [f"{symbol} at {instant(at)}" for symbol, at in unsettled]
    sentence = f"{missing} missing: {some_of(named, at_most=_NAMED)}"
    return sentence + (", see /gaps" if len(named) > _NAMED else "")


_NAMED = 5
"""Settlements, or subscriptions, that a sentence names."""


def _up_seconds(beat: Heartbeat) -> float:
    return (beat.beaten - beat.started).total_seconds()


def _lagging(service: str, snapshot: Snapshot) -> Iterator[Diagnosis]:
    held = cadence_of("writer", snapshot.heartbeats).every_seconds if service == "writer" else 0.0
    own = [lag for lag in snapshot.lags if lag.group == service]
    for lag in sorted(own, key=lambda lag: lag.oldest_age_seconds, reverse=True):
        if lag.oldest_age_seconds > LAGGING_SECONDS + held:
            age = duration(lag.oldest_age_seconds)
            yield Diagnosis(ServiceState.LAGGING, f"{_backlog(lag)}, the oldest {age} old")
        elif lag.lag + lag.pending > NEAR_CAP * CAPS[lag.stream]:
            cap = CAPS[lag.stream]
            yield Diagnosis(ServiceState.LAGGING, f"{_backlog(lag)}, near the cap of {cap}: then the oldest are lost")


def _backlog(lag: GroupLag) -> str:
    parts = [f"{count} {what}" for count, what in ((lag.pending, "pending"), (lag.lag, "unread")) if count]
    return f"{lag.pending + lag.lag} entries of {lag.stream} wait ({', '.join(parts)})"


def _overdue_seconds(
    snapshot: Snapshot, mark: datetime, allowance_seconds: float, *, period_seconds: float = 0
) -> float | None:
    """Return how far a mark is behind the exchange's clock, in its seconds, where that is too much.

    The allowance is for work that takes its time on our clock, so it grows with the rate. The period is on the
    exchange's clock. Until that clock is measured, nothing is overdue.
    """
    age = snapshot.age_seconds(mark)
    allowed = period_seconds + allowance_seconds * max(1.0, snapshot.clock.rate)
    return age if snapshot.clock.measured and age > allowed else None


def _stale_ranker(snapshot: Snapshot, beat: Heartbeat) -> Iterator[Diagnosis]:
    if snapshot.universe is None:
        missing = "no ranking on the bus, although the ranker reports one"
        yield Diagnosis(
            ServiceState.STALE, missing if beat.ready else "there is no ranking yet, so nothing is collected"
        )
        return
    period = cadence_of("ranker", snapshot.heartbeats).every_seconds
    ranked = snapshot.universe.ranked_time
    if (late := _overdue_seconds(snapshot, ranked, RANKED_STALE_SECONDS, period_seconds=period)) is not None:
        due = f"one is due every {period / 3600:g} h"
        yield Diagnosis(ServiceState.STALE, f"the last ranking is {duration(late)} old, and {due}")


def _stale_collector(_: Snapshot, beat: Heartbeat) -> Iterator[Diagnosis]:
    for name, channel in channels(beat).items():
        if rejected := channel.get("rejected"):
            named = ", ".join(f"{instrument} ({code})" for instrument, code in sorted(rejected.items())[:_NAMED])
            reason = f"the exchange rejects {len(rejected)} subscriptions of {name}: {named}"
            yield Diagnosis(ServiceState.DEGRADED, reason)
        age = channel.get("data_age_seconds")
        if age is not None and name in CHANNELS and age > CHANNELS[name].stale_seconds:
            yield Diagnosis(ServiceState.STALE, f"no data on {name} for {duration(age)}")


def _stale_writer(snapshot: Snapshot, beat: Heartbeat) -> Iterator[Diagnosis]:
    if snapshot.universe is None:
        return
    allowance = WRITTEN_STALE_SECONDS + cadence_of("writer", snapshot.heartbeats).every_seconds
    mark = snapshot.watermarks.get("written_until")
    if mark is None:
        if _up_seconds(beat) > allowance:
            yield Diagnosis(ServiceState.STALE, f"no candle written yet, after {duration(_up_seconds(beat))}")
    elif (late := _overdue_seconds(snapshot, mark, allowance)) is not None:
        yield _behind("written", mark, late)


def _stale_converter(snapshot: Snapshot, _: Heartbeat) -> Iterator[Diagnosis]:
    mark = snapshot.watermarks.get("converted_until")
    if mark is None:
        return
    cadence = cadence_of("converter", snapshot.heartbeats)
    period = cadence.every_seconds + cadence.delay_seconds
    if (late := _overdue_seconds(snapshot, mark, CONVERTED_STALE_SECONDS, period_seconds=period)) is not None:
        yield _behind("converted", mark, late)


def _behind(done: str, mark: datetime, seconds: float) -> Diagnosis:
    return Diagnosis(ServiceState.STALE, f"{done} until {instant(mark)}, {duration(seconds)} behind the exchange")


_CHECKS = {
    "ranker": _stale_ranker,
    "collector": _stale_collector,
    "writer": _stale_writer,
    "converter": _stale_converter,
}
