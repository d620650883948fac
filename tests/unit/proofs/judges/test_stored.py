"""A judge that misses a mistake is worse than none: each kind of mistake is made here, and found."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proofs.judges import stored as truth
from proofs.rig.recording import Recorded, read_recording
from proofs.units import DAY_MS as DAY
from proofs.units import HOUR_MS as HOUR
from proofs.units import MINUTE_MS as MINUTE
from tests.support.truth import BEGIN, a_truth, faults_of, stored_as


def judged(stored: truth.Stored, true: Recorded, wanted: np.ndarray | None = None) -> dict[str, int]:
    must = np.ones(len(true.opens), bool) if wanted is None else wanted
    found = truth.judge_candles("BTC_USDT", stored, true, must)
    return faults_of(found)


def test_everything_stored_as_it_was_is_clean():
    true = a_truth()

    assert judged(stored_as(true, list(range(100))), true) == {}


def test_a_wanted_minute_that_is_not_there_is_lost_and_an_unwanted_one_is_not():
    true = a_truth()
    wanted = truth.inside(true.opens, [(BEGIN, BEGIN + 50 * MINUTE)])

    assert judged(stored_as(true, list(range(1, 40))), true, wanted) == {"lost": 11}


def test_a_minute_that_is_there_twice_is_doubled():
    true = a_truth()

    assert judged(stored_as(true, [*range(100), 17]), true) == {"doubled": 1}


@pytest.mark.parametrize("field", truth.FIELDS)
def test_a_figure_that_differs_in_its_last_bit_is_wrong(field: str):
    true = a_truth()
    stored = stored_as(true, list(range(100)))
    stored.values[field][40] = np.nextafter(stored.values[field][40], np.inf)

    assert judged(stored, true) == {"wrong": 1}


def test_the_figures_of_a_neighbour_are_shifted():
    true = a_truth()
    stored = stored_as(true, list(range(100)))
    for column in stored.values.values():
        column[40] = column[43]

    assert judged(stored, true) == {"wrong": 1, "shifted": 1}


def test_a_minute_that_never_was_is_invented():
    true = a_truth()
    stored = stored_as(true, list(range(100)))
    stored.opens[99] += 10 * MINUTE

    assert judged(stored, true) == {"lost": 1, "invented": 1}


def test_differences_say_what_was_stored_and_what_was_true_earliest_first():
    true = a_truth()
    found = truth.judge_candles("BTC_USDT", stored_as(true, [*range(5), *range(6, 100), 3]), true, true.opens > 0)

    assert [(one.problem, one.at_ms) for one in found.differences] == [
        ("doubled", BEGIN + 3 * MINUTE),
        ("lost", BEGIN + 5 * MINUTE),
    ]
    assert found.differences[1].stored == "nothing"
    assert found.differences[1].true.startswith("[5.0, 5.1, ")


def test_settlements_are_lost_doubled_or_wrong():
    true = a_truth(settled={BEGIN + hour * HOUR: 0.001 * hour for hour in range(4)})
    stored = {BEGIN: [0.0, 0.0], BEGIN + HOUR: [0.001], BEGIN + 2 * HOUR: [0.5], BEGIN + 9 * HOUR: [0.1]}
    found = truth.judge_settlements("BTC_USDT", stored, true, true.settled_times < BEGIN + 4 * HOUR)

    assert faults_of(found) == {"funding lost": 1, "funding doubled": 1, "funding wrong": 2}


def test_a_member_is_wanted_from_days_before_its_ranking_to_the_minute_open_when_it_was_dropped():
    since, until = BEGIN + 9 * HOUR, BEGIN + 17 * HOUR + 1
    members = {"A": [(since, until)], "B": [(since, None)]}
    found = truth.wanted_windows(members, backfill_days=2, pickup_ms=HOUR, end_ms=BEGIN + DAY)

    assert found == {
        "A": [(BEGIN - 2 * DAY, BEGIN + 17 * HOUR + MINUTE)],
        "B": [(BEGIN - 2 * DAY, BEGIN + DAY)],
    }


def test_a_ranking_just_before_midnight_may_be_taken_over_on_the_next_day():
    since = BEGIN + 23 * HOUR + 30 * MINUTE
    found = truth.wanted_windows({"A": [(since, None)]}, backfill_days=1, pickup_ms=HOUR, end_ms=BEGIN + 2 * DAY)

    assert found == {"A": [(BEGIN, BEGIN + 2 * DAY)]}


def test_memberships_far_apart_are_windows_of_their_own_and_near_ones_one():
    members = {
        "A": [(BEGIN, BEGIN + HOUR), (BEGIN + 10 * DAY, None)],
        "B": [(BEGIN, BEGIN + HOUR), (BEGIN + DAY, None)],
    }
    found = truth.wanted_windows(members, backfill_days=1, pickup_ms=0, end_ms=BEGIN + 11 * DAY)

    assert found["A"] == [(BEGIN - DAY, BEGIN + HOUR), (BEGIN + 9 * DAY, BEGIN + 11 * DAY)]
    assert found["B"] == [(BEGIN - DAY, BEGIN + 11 * DAY)]


def rows_of_a_ranking(rates: dict[str, float], members: set[str]) -> list[dict]:
    known = datetime(2026, 3, 1, tzinfo=UTC)
    return [
        {"symbol": symbol, "funding_rate": rate, "member": symbol in members, "known_time": known}
        for symbol, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("rates", "members", "wrong"),
    [
        ({"A_USDT": 0.1, "B_USDT": -0.3, "C_USDT": 0.2}, {"B_USDT", "C_USDT"}, 0),
        ({"A_USDT": 0.1, "B_USDT": -0.3, "C_USDT": 0.2}, {"A_USDT", "C_USDT"}, 1),
        ({"A_USDT": 0.1, "B_USDT": -0.3, "C_USDT": 0.2}, {"B_USDT"}, 1),
        ({"A_USDT": 0.1, "B_USDT": -0.3, "C_USDT": 0.25}, {"B_USDT", "C_USDT"}, 1),
    ],
    ids=["right", "another order", "too few", "another rate"],
)
def test_rankings_are_ranked_again(rates: dict[str, float], members: set[str], wrong: int):
    published = {"A-USDT-SWAP": "0.1", "B-USDT-SWAP": "-0.3", "C-USDT-SWAP": "0.2"}
    found = truth.judge_rankings(lambda _: published, {BEGIN: rows_of_a_ranking(rates, members)}, top_n=2)

    assert found.ranking_wrong == wrong


def test_a_published_ranking_that_is_not_stored_is_lost():
    found = truth.judge_published_rankings([BEGIN, BEGIN + HOUR], {BEGIN + 1: []})

    assert found.ranking_lost == 1


def test_truth_is_asked_in_pages_and_spelled_as_a_recording(tmp_path: Path):
    asked = []

    def ask(path: str) -> list:
        asked.append(path)
        begin = int(path.partition("begin=")[2].partition("&")[0])
        if "funding" in path:
            return [{"fundingTime": str(begin), "fundingRate": "0.25"}]
        return [[str(begin), "1", "4", "0.5", "2", "7", "70", "140", "1"]]

    true = truth.read_truth(ask, "BTC_USD_UM", BEGIN, BEGIN + 6 * DAY)
    truth.write_recording(tmp_path, {"BTC_USDT": true})
    again = read_recording(tmp_path)["BTC_USDT"]

    assert [path.partition("instId=")[2].partition("&")[0] for path in asked] == ["BTC-USD_UM-SWAP"] * 3
    assert true.opens.tolist() == again.opens.tolist() == [BEGIN, BEGIN + 5 * DAY]
    assert {name: column[0] for name, column in true.values.items()} == {
        "open": 1.0,
        "high": 4.0,
        "low": 0.5,
        "close": 2.0,
        "contracts": 7.0,
        "volume": 70.0,
        "amount": 140.0,
    }
    assert again.values["volume"].tolist() == [70.0, 70.0]
    assert (again.settled_times.tolist(), again.settled_rates.tolist()) == ([BEGIN], [0.25])


def a_file(root: Path, symbol: str, true: Recorded, rows: list[int]) -> Path:
    path = root / "kline_1m" / "date=2026-03-01" / f"{symbol}_20260301.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: true.values[name][rows] for name in truth.FIELDS}
    times = pa.array(true.opens[rows], pa.timestamp("ms", tz="UTC"))
    table = pa.table({"open_time": times, "source": ["ws"] * len(rows)} | columns)
    pq.write_table(table, path)
    return path


def test_stored_rows_are_read_and_a_damaged_file_is_named(tmp_path: Path):
    true = a_truth(2000)
    a_file(tmp_path, "A_USDT", true, [0, 1, 1500])
    damaged = a_file(tmp_path, "B_USDT", true, [0])
    damaged.write_bytes(damaged.read_bytes()[:50])
    stored, unreadable = truth.read_stored(tmp_path, "A_USDT")

    assert stored.opens.tolist() == true.opens[[0, 1, 1500]].tolist()
    assert (stored.misplaced, unreadable) == (1, [])
    assert truth.read_stored(tmp_path, "B_USDT")[1] == [damaged]
    assert truth.stored_symbols(tmp_path) == {"A_USDT", "B_USDT"}


def test_minutes_unlike_the_truth_are_counted_again_when_their_file_changes(tmp_path: Path):
    true = a_truth()
    wanted = np.arange(100) < 4
    stored = truth.StoredMinutes(tmp_path)
    counts = [stored.unlike("A_USDT", true, wanted)]
    path = a_file(tmp_path, "A_USDT", true, [0, 9])
    counts.append(stored.unlike("A_USDT", true, wanted))
    a_file(tmp_path, "A_USDT", true, [0, 1, 2, 3])
    counts.append(stored.unlike("A_USDT", true, wanted))
    corrected = a_truth()
    corrected.values["close"][2] += 1
    counts.append(stored.unlike("A_USDT", corrected, wanted))
    path.write_bytes(b"PAR1")
    counts.append(stored.unlike("A_USDT", true, wanted))

    assert counts == [4, 3, 0, 1, 4]
