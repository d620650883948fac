"""What a person reads of the api's answers."""

import io

import pytest
from rich.console import Console

from cli.ask.questions import detail_of
from cli.ask.tables import age, alerts_table, freshness, gaps_table, minute, ranking_table, services_table


def text(drawn):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(drawn)
    return [line.split("  ") for line in console.file.getvalue().splitlines()]


def cells(drawn):
    return [[cell.strip() for cell in row if cell.strip()] for row in text(drawn)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "nothing is ranked yet"}, "nothing is ranked yet"),
        (
            {"detail": [{"loc": ["query", "begin"], "msg": "no time"}, {"loc": ["query", "limit"], "msg": "x"}]},
            "begin: no time; limit: x",
        ),
        ({}, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_the_reason_of_the_api_is_a_sentence(body, detail):
    assert detail_of(body) == detail


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 min"), (59, "0 min"), (3_599, "59 min"), (3_600, "1 h 0 min"), (90_000, "1 d 1 h")]
)
def test_an_age_has_its_two_largest_units(seconds, shown):
    assert age(seconds) == shown


def test_a_time_is_shown_to_the_minute():
    assert minute("2026-03-01T23:36:59.123Z") == "2026-03-01 23:36"


def test_a_service_is_named_once():
    found = cells(services_table([{"service": "writer", "verdict": "down", "reason": "writer: no [heartbeat]"}]))

    assert found[1] == ["writer", "down", "no [heartbeat]"]


def test_candles_have_the_age_of_the_newest_and_the_oldest():
    symbols = [
        {"symbol": "B_USDT", "age_seconds": None},
        {"symbol": "A_USDT", "age_seconds": 90.0},
        {"symbol": "C_USDT", "age_seconds": 20.4},
    ]

    assert freshness({"symbols": symbols}).startswith("2 symbols stored; newest candle 20 s old, oldest 90 s")
    assert freshness({"symbols": []}) == freshness(None) == ""


def test_a_gap_has_its_span_and_its_age():
    gap = {"symbol": "A_USDT", "begin": "2026-03-01T00:00:00Z", "end": "2026-03-01T00:05:00Z", "minutes": 5}

    assert cells(gaps_table([gap | {"age_seconds": 7200.0}]))[1] == [
        "A_USDT",
        "2026-03-01 00:00",
        "2026-03-01 00:05",
        "5",
        "2 h 0 min",
    ]


def test_a_member_of_which_only_the_name_is_kept_has_no_figures():
    known = {"rank": 1, "symbol": "A_USDT", "funding_rate": -0.00375, "score": 0.00375, "interval_hours": 4}
    only_named = {"rank": 2, "symbol": "B_USDT", "funding_rate": None, "score": None, "interval_hours": None}

    assert cells(ranking_table([known, only_named]))[1:] == [
        ["1", "A_USDT", "-0.3750%", "+0.3750%", "4 h"],
        ["2", "B_USDT"],
    ]


def test_an_alert_says_what_to_do_and_nothing_where_there_is_nothing():
    alert = {"since": "2026-03-01T00:00:00Z", "severity": "critical", "what": "disk full", "todo": "make room"}

    assert cells(alerts_table([alert, alert | {"todo": ""}]))[1:] == [
        ["2026-03-01 00:00", "critical", "disk full", "make room"],
        ["2026-03-01 00:00", "critical", "disk full", "nothing"],
    ]
