"""Verdicts and their sentences."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from services.api.completeness.days import Day, LedgerView
from services.api.health.snapshot import SERVICES
from services.api.health.status import not_ready, status_of
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.ledger.day import DayLedger


def row(snapshot, service):
    (found,) = (row for row in status_of(snapshot).services if row.service == service)
    return found.verdict.value, found.reason


def with_beat(snapshot, beat):
    return replace(snapshot, heartbeats={**snapshot.heartbeats, beat.service: beat})


def with_cadence(snapshot, service, settings):
    beat = snapshot.heartbeats[service]
    return with_beat(snapshot, msgspec.structs.replace(beat, cadence=settings.cadence))


def without_beat(snapshot, service):
    return replace(snapshot, heartbeats={name: beat for name, beat in snapshot.heartbeats.items() if name != service})


def with_mark(snapshot, name, mark):
    return replace(snapshot, watermarks={**snapshot.watermarks, name: mark})


def test_everything_works(healthy):
    status = status_of(healthy)

    assert status.verdict == "ok"
    assert status.reason == "everything works"
    assert status.redis == "ok"
    assert [row.service for row in status.services] == ["ranker", "collector", "writer", "converter", "api"]
    assert row(healthy, "writer") == ("ok", "writer: written until 2025-04-05 12:00 UTC")
    assert row(healthy, "ranker") == ("ok", "ranker: 2 members since 2025-04-05 08:00 UTC")
    assert not_ready(healthy) == []


@pytest.mark.parametrize("service", SERVICES)
def test_service_without_heartbeat_is_down(healthy, service):
    broken = without_beat(healthy, service)

    assert row(broken, service) == ("down", f"{service}: no heartbeat for more than 20 s")
    assert status_of(broken).verdict == "down"
    assert not_ready(broken) == [f"{service}: no heartbeat for more than 20 s"]


def test_starting_service_is_not_ready(healthy, make_beat, now):
    beat = make_beat("converter", state="starting", reason="starting", started=now - timedelta(seconds=12))
    broken = with_beat(healthy, beat)

    assert row(broken, "converter") == ("degraded", "converter: starting for 12 s")
    assert not_ready(broken) == ["converter: starting for 12 s"]


def test_degraded_service_reports_why_in_its_own_words_and_is_ready(healthy, make_beat):
    broken = with_beat(healthy, make_beat("collector", state="degraded", reason="candles: not connected"))

    assert row(broken, "collector") == ("degraded", "collector: candles: not connected")
    assert status_of(broken).reason == "collector: candles: not connected"
    assert not_ready(broken) == []


def test_unreadable_heartbeat_is_unknown(healthy):
    broken = replace(without_beat(healthy, "writer"), unreadable=frozenset({"writer"}))

    assert row(broken, "writer")[0] == "unknown"


def test_redis_down_makes_the_whole_down_and_the_services_unknown(healthy):
    broken = replace(healthy, redis_problem="Redis at box:6379 does not answer (TimeoutError)")

    status = status_of(broken)

    assert status.verdict == "down"
    assert status.reason.startswith("Redis at box:6379 does not answer (TimeoutError)")
    assert status.dead_letters is None
    assert [row.verdict.value for row in status.services] == ["unknown"] * 4 + ["degraded"]
    assert not_ready(broken) == ["Redis at box:6379 does not answer (TimeoutError)"]


def test_own_problem_degrades_the_api(healthy):
    broken = replace(healthy, problems={"clock": "the exchange does not report its time"})

    assert row(broken, "api") == ("degraded", "api: the exchange does not report its time")


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (
            {"pending": 412, "age_seconds": 180},
            ("lagging", "writer: 412 entries of candles wait (412 pending), the oldest 3 min old"),
        ),
        (
            {"pending": 2, "lag": 10, "age_seconds": 7200},
            ("lagging", "writer: 12 entries of candles wait (2 pending, 10 unread), the oldest 2 h old"),
        ),
        ({"pending": 412, "age_seconds": 100}, ("ok", "writer: written until 2025-04-05 12:00 UTC")),
        (
            {"lag": 450_000, "age_seconds": 5},
            (
                "lagging",
                (
                    "writer: 450000 entries of candles wait (450000 unread), near the cap of 500000: "
                    "then the oldest are lost"
                ),
            ),
        ),
    ],
)
def test_lagging_is_judged_by_age_and_by_the_cap(healthy, make_lag, waiting, expected):
    lags = (
        make_lag("candles", "writer", **waiting),
        make_lag("funding", "writer", pending=1, age_seconds=1),
    )

    assert row(replace(healthy, lags=lags), "writer") == expected


def test_a_long_flush_is_no_lag(healthy, make_lag):
    waiting = replace(healthy, lags=(make_lag("candles", "writer", pending=50, age_seconds=400),))

    assert row(waiting, "writer")[0] == "lagging"
    assert row(with_cadence(waiting, "writer", WriterSettings(flush_seconds=300)), "writer")[0] == "ok"


def test_only_the_groups_own_service_lags(healthy, make_lag):
    broken = replace(healthy, lags=(make_lag("universe", "collector", lag=1, age_seconds=600),))

    assert row(broken, "collector")[0] == "lagging"
    assert row(broken, "writer")[0] == "ok"


@pytest.mark.parametrize(
    ("name", "behind", "service", "expected"),
    [
        ("written_until", timedelta(seconds=300), "writer", "ok"),
        ("written_until", timedelta(seconds=320), "writer", "stale"),
        ("converted_until", timedelta(hours=25), "converter", "ok"),
        ("converted_until", timedelta(hours=27), "converter", "stale"),
    ],
)
def test_old_watermark_is_stale(healthy, name, behind, service, expected):
    mark = healthy.clock.exchange_time - behind

    assert row(with_mark(healthy, name, mark), service)[0] == expected


def test_later_conversion_may_leave_an_older_mark(healthy, now):
    late = with_mark(healthy, "converted_until", now - timedelta(hours=29))

    assert row(late, "converter")[0] == "stale"
    assert row(with_cadence(late, "converter", ConverterSettings(convert_at="04:30")), "converter")[0] == "ok"


def test_converter_says_what_it_waits_for(healthy, make_beat, now):
    first = {"waiting": "first conversion waits: 3,000 minutes of history to go"}
    starting = make_beat("converter", state="starting", started=now - timedelta(minutes=4), details=first)
    daily = make_beat("converter", details={"waiting": "for the writer to pass 2025-04-05 00:00"})

    assert row(with_beat(healthy, starting), "converter")[1] == (
        "converter: starting for 4 min: first conversion waits: 3,000 minutes of history to go"
    )
    assert row(with_beat(healthy, daily), "converter") == (
        "ok",
        "converter: converted until 2025-04-05 00:00 UTC, waits for the writer to pass 2025-04-05 00:00",
    )


def test_frequent_conversion_is_stale_sooner(healthy):
    assert row(with_cadence(healthy, "converter", ConverterSettings(convert_every=3600)), "converter")[0] == "stale"


def test_stale_sentence_names_the_instant_and_the_distance(healthy, now):
    broken = with_mark(healthy, "written_until", now - timedelta(minutes=10))

    assert row(broken, "writer") == (
        "stale",
        "writer: written until 2025-04-05 11:50 UTC, 10 min behind the exchange",
    )


def test_patience_grows_with_the_rate_of_the_exchanges_clock(healthy, now):
    """A replay at 600 times the speed passes ten minutes while a row waits a second for its flush."""
    broken = with_mark(healthy, "written_until", now - timedelta(minutes=10))
    fast = replace(broken, clock=replace(broken.clock, rate=600.0))

    assert row(broken, "writer")[0] == "stale"
    assert row(fast, "writer")[0] == "ok"


def test_the_hosts_clock_makes_nothing_stale(healthy, now):
    """A simulator replays last year: until the exchange has given its time, every age would be a year."""
    replay = replace(healthy, clock=replace(healthy.clock, measured=False, exchange_time=now + timedelta(days=365)))

    assert status_of(replay).verdict == "ok"
    assert status_of(replay).clock.source == "host"


@pytest.mark.parametrize(("up", "expected"), [(timedelta(minutes=2), "ok"), (timedelta(minutes=9), "stale")])
def test_writer_that_has_never_written_is_stale_after_a_while(healthy, make_beat, now, up, expected):
    fresh = replace(with_beat(healthy, make_beat("writer", started=now - up)), watermarks={})

    assert row(fresh, "writer")[0] == expected


def test_overdue_ranking_is_stale(healthy, now):
    ranking = replace_ranked(healthy, now - timedelta(hours=9))

    assert row(ranking, "ranker") == ("stale", "ranker: the last ranking is 9 h old, and one is due every 8 h")


@pytest.mark.parametrize(
    ("every_hours", "age", "expected"),
    [
        (1, timedelta(minutes=70), ("ok", "ranker: 1 members since 2025-04-05 10:50 UTC")),
        (1, timedelta(minutes=80), ("stale", "ranker: the last ranking is 80 min old, and one is due every 1 h")),
        (24, timedelta(hours=23), ("ok", "ranker: 1 members since 2025-04-04 13:00 UTC")),
        (24, timedelta(hours=25), ("stale", "ranker: the last ranking is 25 h old, and one is due every 24 h")),
    ],
)
def test_ranker_is_late_by_its_own_cadence_and_not_by_a_setting_of_the_api(healthy, now, every_hours, age, expected):
    hourly = with_cadence(healthy, "ranker", RankerSettings(rank_every_hours=every_hours))

    assert row(replace_ranked(hourly, now - age), "ranker") == expected


def replace_ranked(snapshot, ranked):
    universe = type(snapshot.universe)(
        exchange="okx", ranked_time=ranked, rank_by="raw", top_n=2, members=("BTC_USDT",), added=(), removed=()
    )
    return replace(snapshot, universe=universe)


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (
            {"data_age_seconds": 3.0},
            ("ok", "collector: works, 7 minutes of 1 symbol missing since 2025-04-05 06:00 UTC; being healed"),
        ),
        (
            {"data_age_seconds": None},
            ("ok", "collector: works, 7 minutes of 1 symbol missing since 2025-04-05 06:00 UTC; being healed"),
        ),
        ({"data_age_seconds": 240.0}, ("stale", "collector: no data on candles for 4 min")),
        (
            {"data_age_seconds": 3.0, "rejected": {"X-USDT-SWAP": "60018"}},
            ("degraded", "collector: the exchange rejects 1 subscriptions of candles: X-USDT-SWAP (60018)"),
        ),
    ],
)
def test_silent_or_rejected_channel_is_shown(healthy, make_beat, make_ledger, channel, expected):
    beat = make_beat("collector", details={"candles": channel})
    snapshot = replace(with_beat(healthy, beat), ledger=make_ledger(missing=7))

    assert row(snapshot, "collector") == expected


def test_collector_says_how_complete_the_data_is(healthy):
    assert row(healthy, "collector") == ("ok", "collector: works, no minute missing")
    assert row(replace(healthy, ledger=None), "collector")[1] == ("collector: works, completeness is not known yet")


def test_worst_verdict_is_the_whole_and_all_reasons_are_given(healthy, make_beat, now):
    broken = with_mark(healthy, "written_until", now - timedelta(hours=1))
    broken = with_beat(broken, make_beat("ranker", state="degraded", reason="ranking fails"))

    status = status_of(broken)

    assert status.verdict == "degraded"
    assert status.reason == (
        "ranker: ranking fails; writer: written until 2025-04-05 11:00 UTC, 60 min behind the exchange"
    )


@pytest.mark.invariant(7)
@pytest.mark.parametrize(("hours", "verdict"), [(0.25, "ok"), (1.0, "stale")])
def test_a_settlement_whose_rate_stays_missing_is_named(healthy, hours, verdict):
    """Invariant 7: nothing is missing silently."""
    now = healthy.clock.exchange_time
    at = (now - timedelta(hours=hours)).replace(second=0, microsecond=0)
    minute_of_day = 1 << (60 * at.hour + at.minute)
    settled = {"BTC_USDT": DayLedger(wanted=minute_of_day), "ETH_USDT": DayLedger(wanted=1, received=1)}
    day = Day(at.date(), {"funding": settled})
    snapshot = replace(healthy, ledger=LedgerView({day.day: day}, now))

    found = row(snapshot, "collector")

    assert found[0] == verdict
    assert (f"BTC_USDT at {at:%Y-%m-%d %H:%M} UTC" in found[1]) == (verdict == "stale")
