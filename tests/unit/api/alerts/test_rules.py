"""Each rule: when its condition holds, when it does not, and when that is unknown."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from services.api.alerts.condition import Thresholds
from services.api.alerts.rules import evaluate
from services.api.completeness.days import Day, LedgerView
from services.api.disk import Space, spaces
from shared.bus.connection import Memory
from shared.bus.heartbeat import Cadence
from shared.ledger.day import DayLedger

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "XRP_USDT")
ROOMY = [Space(setting="DATA_DIR", folder="okx_data", device=1, free_bytes=500, total_bytes=1000)]


@pytest.fixture
def well(healthy, now):
    """Return a snapshot in which nothing is wrong, with four members whose newest candle is a minute old."""
    marks = {f"newest:{symbol}": now - timedelta(seconds=90) for symbol in SYMBOLS}
    return replace(
        healthy,
        universe=healthy.universe.__class__(
            exchange="okx",
            ranked_time=now - timedelta(hours=4),
            rank_by="raw",
            top_n=4,
            members=SYMBOLS,
            added=(),
            removed=(),
        ),
        watermarks={**healthy.watermarks, **marks},
    )


def evaluated(snapshot, disks=ROOMY, **thresholds):
    return evaluate(snapshot, disks, Thresholds(**thresholds))


def keys(snapshot, disks=ROOMY, **thresholds):
    return [condition.key for condition in evaluated(snapshot, disks, **thresholds).conditions]


def only(snapshot, disks=ROOMY, **thresholds):
    (condition,) = evaluated(snapshot, disks, **thresholds).conditions
    return condition


def with_beat(snapshot, beat):
    return replace(snapshot, heartbeats={**snapshot.heartbeats, beat.service: beat})


def without_beat(snapshot, service):
    return replace(snapshot, heartbeats={name: beat for name, beat in snapshot.heartbeats.items() if name != service})


def test_nothing_is_wrong_where_everything_works(well):
    evaluation = evaluated(well)

    assert evaluation.conditions == ()
    assert evaluation.unknown == frozenset()


def test_redis_away_is_one_condition_and_the_rest_is_unknown(well):
    evaluation = evaluated(replace(well, redis_problem="Redis at box:6379 does not answer", heartbeats={}))

    (away,) = evaluation.conditions
    assert (away.key, away.severity, away.what) == ("redis", "critical", "Redis at box:6379 does not answer")
    assert evaluation.knows("redis")
    assert evaluation.knows("disk:DATA_DIR")
    unknown = ("down:writer", "problem:ranker:ranking", "late:writer:stale", "symbol:BTC_USDT", "gaps")
    assert not any(map(evaluation.knows, (*unknown, "audit:writer", "dead-letters", "memory")))


@pytest.mark.parametrize("service", ["ranker", "collector", "writer", "converter"])
def test_service_without_a_heartbeat_is_down_and_what_it_alone_can_report_is_unknown(well, service):
    evaluation = evaluated(without_beat(well, service))

    assert [condition.key for condition in evaluation.conditions] == [f"down:{service}"]
    assert evaluation.conditions[0].what == f"the {service} is down"
    assert not evaluation.knows(f"problem:{service}:disk")
    assert not evaluation.knows(f"audit:{service}")
    assert evaluation.knows("gaps") is (service not in {"collector", "writer"})


def test_unreadable_heartbeat_is_reported_as_such(well):
    condition = only(replace(without_beat(well, "writer"), unreadable=frozenset({"writer"})))

    assert condition.key == "down:writer"
    assert condition.what == "the heartbeat of the writer is unreadable"


@pytest.mark.parametrize(
    ("service", "cause", "reason"),
    [
        ("ranker", "ranking", "ranking fails, the last universe stays: OkxError: 50011"),
        ("collector", "settlements", "the exchange does not give the funding history: 50001"),
        ("collector", "history", "the exchange does not give history: 50001"),
        ("writer", "disk", "cannot write to okx_data: No space left on device"),
        ("converter", "conversion", "conversion failed, no new bar is visible; late rows of older bars may be: x"),
        ("collector", "something new", "nobody thought of this"),
    ],
)
def test_every_open_cause_of_a_service_is_a_condition_of_its_own(well, make_beat, service, cause, reason):
    beat = make_beat(service, state="degraded", reason=reason, problems={cause: reason})

    condition = only(with_beat(well, beat))

    assert condition.key == f"problem:{service}:{cause}"
    assert condition.what == f"{service}: {reason}"
    assert condition.means
    assert condition.doing


def test_late_ranking_and_conversion_and_a_writer_behind(well, now):
    late = replace(
        well,
        universe=type(well.universe)(
            exchange="okx",
            ranked_time=now - timedelta(hours=9),
            rank_by="raw",
            top_n=4,
            members=SYMBOLS,
            added=(),
            removed=(),
        ),
        watermarks={
            **well.watermarks,
            "written_until": now - timedelta(minutes=30),
            "converted_until": now - timedelta(hours=40),
        },
    )

    assert keys(late) == ["late:ranker:stale", "late:writer:stale", "late:converter:stale"]


@pytest.mark.parametrize(
    ("every_hours", "age", "found"),
    [
        (1, timedelta(minutes=70), []),
        (1, timedelta(hours=2), ["late:ranker:stale"]),
        (24, timedelta(hours=20), []),
        (24, timedelta(hours=25), ["late:ranker:stale"]),
    ],
)
def test_ranking_is_late_by_the_cadence_that_the_ranker_publishes(well, make_beat, now, every_hours, age, found):  # noqa: PLR0917 - a table
    beat = make_beat("ranker", cadence=Cadence(every_seconds=every_hours * 3600))
    universe = msgspec.structs.replace(well.universe, ranked_time=now - age)

    assert keys(with_beat(replace(well, universe=universe), beat)) == found


def test_backlog_of_the_writer_is_a_condition(well, make_lag):
    condition = only(replace(well, lags=(make_lag("candles", "writer", pending=9, age_seconds=600),)))

    assert condition.key == "late:writer:lagging"
    assert "9 entries of candles wait" in condition.what


def test_silent_channel_and_rejected_subscriptions_are_two_conditions(well, make_beat):
    details = {
        "candles": {"data_age_seconds": 500.0, "rejected": {"X-USDT-SWAP": "60018"}},
    }

    found = keys(with_beat(well, make_beat("collector", details=details)))

    assert found == ["late:collector:degraded", "late:collector:stale"]


def test_symbol_that_stands_still_among_fresh_ones_is_reported_with_the_time_of_its_newest_candle(well, now):
    opened = now - timedelta(minutes=20)

    condition = only(replace(well, watermarks={**well.watermarks, "newest:XRP_USDT": opened}))

    assert condition.key == "symbol:XRP_USDT"
    assert condition.what == "XRP_USDT is stale: its newest candle opened at 2025-04-05 11:40 UTC"
    assert condition.lasted_seconds == 19 * 60
    assert "3 of 4 members are fresh" in condition.means


def test_stale_symbol_that_the_exchange_halts_says_so(well, now, make_beat):
    beat = make_beat("collector", details={"instruments": {"XRP_USDT": "suspend"}})
    stale = replace(well, watermarks={**well.watermarks, "newest:XRP_USDT": now - timedelta(minutes=20)})

    condition = only(with_beat(stale, beat))

    assert condition.what.endswith("; at the exchange: suspend")
    assert condition.todo == ""


def test_what_the_collector_says_of_a_channel_is_not_reported_twice(well, make_beat):
    details = {"candles": {"data_age_seconds": 1.0, "rejected": {"X-USDT-SWAP": "60018"}}}
    problems = {"candles": "candles: the exchange rejects X-USDT-SWAP, asking again; REST covers it"}

    assert keys(with_beat(well, make_beat("collector", details=details, problems=problems))) == [
        "problem:collector:candles"
    ]


def test_symbol_is_judged_by_the_exchanges_clock_and_its_rate(well, now):
    hurried = replace(
        well,
        clock=replace(well.clock, rate=60.0),
        watermarks={**well.watermarks, "newest:XRP_USDT": now - timedelta(minutes=20)},
    )

    assert keys(hurried) == []
    assert keys(hurried, symbol_minutes=0) == []  # then all of them are older, not this one


def test_member_without_any_candle_is_stale_some_minutes_after_the_ranking(well):
    marks = {name: mark for name, mark in well.watermarks.items() if name != "newest:XRP_USDT"}

    assert keys(replace(well, watermarks=marks)) == ["symbol:XRP_USDT"]


def test_symbols_that_all_stand_still_are_not_reported_one_by_one(well, now):
    marks = {f"newest:{symbol}": now - timedelta(minutes=20) for symbol in SYMBOLS[:2]}

    assert keys(replace(well, watermarks={**well.watermarks, **marks})) == []


def test_no_symbol_is_judged_by_the_hosts_clock(well, now):
    unasked = replace(
        well,
        clock=replace(well.clock, measured=False),
        watermarks={**well.watermarks, "newest:XRP_USDT": now - timedelta(days=400)},
    )

    evaluation = evaluated(unasked)

    assert evaluation.conditions == ()
    assert not evaluation.knows("symbol:XRP_USDT")


def test_missing_minutes_are_a_condition_with_their_number(well, make_ledger):
    condition = only(replace(well, ledger=make_ledger(missing=7)))

    assert (condition.key, condition.amount) == ("gaps", 7)
    assert condition.what == "7 minutes are missing, and their number does not fall"


def test_without_the_ledger_gaps_are_unknown(well):
    evaluation = evaluated(replace(well, ledger=None))

    assert evaluation.conditions == ()
    assert not evaluation.knows("gaps")


@pytest.mark.parametrize("service", ["collector", "writer"])
def test_audit_mismatches_are_notified_at_once(well, make_beat, service):
    details = {"audit": {"mismatches": 3, "rows": 5000}}

    condition = only(with_beat(well, make_beat(service, details=details)))

    assert (condition.key, condition.severity, condition.notify_after_seconds) == (f"audit:{service}", "critical", 0.0)


@pytest.mark.parametrize("audit", [None, "soon", {}, {"mismatches": 0}, {"mismatches": "?"}])
def test_audit_that_found_nothing_or_says_something_else_is_none(well, make_beat, audit):
    assert keys(with_beat(well, make_beat("writer", details={"audit": audit}))) == []


def test_fresh_dead_letters_are_reported_by_origin(well):
    condition = only(replace(well, dead_letters=80, recent_dead_letters={"collector:candles": 2, "writer:candles": 5}))

    assert condition.key == "dead-letters"
    assert "7 invalid inputs" in condition.what
    assert "5 of writer:candles, 2 of collector:candles" in condition.what
    assert "80 are kept" in condition.means


def test_old_dead_letters_are_no_condition(well):
    assert keys(replace(well, dead_letters=80)) == []


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(Memory(799, 1000), []), (Memory(800, 1000), ["memory"]), (Memory(10**12, 0), []), (None, [])],
)
def test_redis_near_its_ceiling_is_reported(well, memory, expected):
    assert keys(replace(well, memory=memory)) == expected


def disk(setting, device, free, total=1000):
    return Space(setting=setting, folder=setting.lower(), device=device, free_bytes=free, total_bytes=total)


def test_full_disks_are_reported_once_each(well):
    assert keys(well, [disk("DATA_DIR", 1, 99), disk("QLIB_DIR", 2, 100)]) == ["disk:DATA_DIR"]
    assert keys(well, [disk("DATA_DIR", 1, 99), disk("QLIB_DIR", 2, 10)]) == ["disk:DATA_DIR", "disk:QLIB_DIR"]
    shared = only(well, [disk("DATA_DIR", 1, 99), disk("QLIB_DIR", 1, 99)])
    assert "the disk of data_dir and qlib_dir has 99 B of 1 kB left, 10%" in shared.what
    assert keys(well, [disk("DATA_DIR", 1, 99)], free_share=0.05) == []


def test_disk_that_does_not_say_is_unknown(well):
    assert not evaluated(well, None).knows("disk:DATA_DIR")


def test_space_is_that_of_the_folder_or_of_where_it_would_be_made(tmp_path):
    there, to_be = spaces(tmp_path, tmp_path / "not" / "yet")

    assert (there.setting, to_be.setting) == ("DATA_DIR", "QLIB_DIR")
    assert there.device == to_be.device
    assert 0 < there.free_bytes <= there.total_bytes


def with_detail(snapshot, service, name, value):
    beat = snapshot.heartbeats[service]
    return with_beat(snapshot, msgspec.structs.replace(beat, details={**beat.details, name: value}))


@pytest.mark.invariant(7)
def test_minutes_that_the_exchange_has_and_that_cannot_be_true_are_reported(well):
    """Invariant 7: they have a verdict of their own, and somebody is to know."""
    condition = only(with_detail(well, "collector", "refused_minutes", {"BTC_USDT": 2, "ETH_USDT": 1}))

    assert condition.key == "refused"
    assert "3 minutes that cannot be true: BTC_USDT, ETH_USDT" in condition.what


@pytest.mark.parametrize(
    ("service", "flagged"), [("ranker", {"EVIL_USDT": "+99.0000%, beyond 5%"}), ("collector", ["EVIL_USDT"])]
)
def test_an_implausible_rate_is_reported(well, service, flagged):
    condition = only(with_detail(well, service, "flagged_rates", flagged))

    assert condition.key == "rates"
    assert "EVIL_USDT" in condition.what


def test_without_the_collector_it_is_unknown_whether_minutes_were_refused(well):
    assert {"refused", "rates"} <= evaluated(without_beat(well, "collector")).unknown


def test_a_settlement_whose_rate_stays_missing_is_a_condition(well):
    now = well.clock.exchange_time
    at = (now - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
    day = Day(at.date(), {"funding": {"BTC_USDT": DayLedger(wanted=1 << (60 * at.hour))}})

    condition = only(replace(well, ledger=LedgerView({day.day: day}, now)))

    assert condition.key == "settlements"
    assert f"BTC_USDT at {at:%Y-%m-%d %H:%M}" in condition.what
