"""Alert rules of the data: what is missing, stale, refused, implausible or set aside. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from services.api.alerts.condition import Condition, Thresholds
from services.api.health.diagnosis import overdue_settlements, unsettled_sentence
from services.api.health.lag import missing_minutes, symbol_ages
from services.api.health.snapshot import RECENT_SECONDS, Snapshot
from services.api.text import duration, instant, some_of

_ORIGINS = 5
"""How many origins of dead letters a sentence names."""


def data_conditions(snapshot: Snapshot, thresholds: Thresholds) -> Iterator[Condition]:
    """Yield what is wrong with the data."""
    yield from _no_ranking(snapshot)
    yield from _symbols(snapshot, thresholds)
    yield from _gaps(snapshot)
    yield from _unsettled(snapshot)
    yield from _audits(snapshot)
    yield from _refused(snapshot)
    yield from _flagged_rates(snapshot)
    yield from _dead_letters(snapshot)


def _no_ranking(snapshot: Snapshot) -> Iterator[Condition]:
    """Find an installation that has never collected anything, such as one without a network."""
    if snapshot.universe is None:
        yield Condition(
            key="nothing",
            severity="critical",
            what="nothing is collected: there has been no ranking yet",
            means="there is no data, and none will come until the exchange can be reached",
            doing="the ranker keeps asking the exchange, and ranks as soon as it answers",
            todo="check that this machine reaches OKX_REST_URL; behind a proxy set HTTPS_PROXY",
        )


def _symbols(snapshot: Snapshot, thresholds: Thresholds) -> Iterator[Condition]:
    """Find members that stand still while most others move. Where most stand still, the collector is the cause."""
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
    newest = snapshot.newest_candles
    for symbol, age in stale.items():
        state = _state_of(symbol, snapshot)
        yield Condition(
            key=f"symbol:{symbol}",
            severity="warning",
            what=f"{symbol} is stale: {_newest(newest.get(symbol))}" + (f"; at the exchange: {state}" if state else ""),
            means=f"it lacks its last {duration(age)}; {len(ages) - len(stale)} of {len(ages)} members are fresh",
            doing="the collector keeps asking the exchange for it",
            todo="" if state else "check whether the exchange has halted it",
            lasted_seconds=age / (snapshot.clock.rate or 1.0),  # a clock may stand still
        )


def _state_of(symbol: str, snapshot: Snapshot) -> str | None:
    """Return the state of an instrument that the collector reports as unusual, such as `suspend`."""
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
            what=f"{missing:,} minutes are missing, and their number does not fall",
            means="these candles are not in the data yet",
            doing="the collector keeps requesting them, the newest first",
            amount=missing,
        )


def _unsettled(snapshot: Snapshot) -> Iterator[Condition]:
    if unsettled := overdue_settlements(snapshot):
        yield Condition(
            key="settlements",
            severity="warning",
            what=unsettled_sentence(unsettled),
            means="these funding rates are not in the data yet",
            doing="the collector requests them from the exchange's history",
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
                doing="the audit goes on; what the exchange corrected is stored again",
                todo="read the report of the audit",
                notify_after_seconds=0.0,
            )


def _refused(snapshot: Snapshot) -> Iterator[Condition]:
    refused = _detail(snapshot, "collector", "refused_minutes")
    if count := sum(refused.values()):
        yield Condition(
            key="refused",
            severity="warning",
            what=f"the exchange has {count:,} minutes that cannot be true: {some_of(sorted(refused))}",
            means="these candles are not stored, and the bars that they belong to are empty in Qlib",
            doing="the audit requests them again; what the exchange corrects is stored",
            todo="see /gaps?verdict=refused, and the dead letters for the rows",
            notify_after_seconds=0.0,
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
            doing="settled rates are compared with the exchange's history",
            todo="compare with what the exchange shows",
            notify_after_seconds=0.0,
        )


def _detail(snapshot: Snapshot, service: str, name: str) -> dict[str, Any]:
    """Return what a service reports by symbol; 1 each where it lists symbols alone."""
    beat = snapshot.heartbeats.get(service)
    found = beat.details.get(name) if beat else None
    if isinstance(found, Mapping):
        return dict(found)
    return dict.fromkeys(found, 1) if isinstance(found, list) else {}


def _dead_letters(snapshot: Snapshot) -> Iterator[Condition]:
    origins = snapshot.recent_dead_letters
    if count := sum(origins.values()):
        most = sorted(origins.items(), key=lambda item: (-item[1], item[0]))[:_ORIGINS]
        yield Condition(
            key="dead-letters",
            severity="warning",
            what=f"{count:,} invalid inputs were set aside within {duration(RECENT_SECONDS)}: "
            + ", ".join(f"{number:,} of {origin}" for origin, number in most),
            means=f"their content is not in the data; {snapshot.dead_letters:,} are kept",
            doing="everything else goes on; minutes without a candle are requested again",
            todo="see /dead-letters; after a fix, `qlib-crypto dead-letters replay`",
            notify_after_seconds=0.0,
        )
