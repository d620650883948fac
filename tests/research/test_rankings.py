"""Rankings as a DataFrame, read from files as the writer stores them."""

import shutil

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import pandas as pd
import perps
import pyarrow as pa
import pyarrow.parquet as pq

RATES = {
    "2025-04-05 00:00:07.300": [("A", -0.003), ("B", 0.002), ("C", 0.001)],
    "2025-04-05 08:00:00": [("C", 0.004), ("A", 0.001), ("B", 0.0005)],
    "2025-04-07 16:00:00": [("B", 0.006), ("D", -0.002)],
}
"""Ranked at → symbols and their rates, first to last; the first two are members."""


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "exchange": "okx",
            "symbol": symbol,
            "ranked_time": pd.Timestamp(ranked, tz="UTC"),
            "rank": place,
            "funding_rate": rate,
            "score": abs(rate),
            "interval_hours": 8,
            "funding_time": pd.Timestamp(ranked, tz="UTC").ceil("8h"),
            "member": place <= 2,
            "rank_by": "raw",
        }
        for ranked, order in RATES.items()
        for place, (symbol, rate) in enumerate(order, start=1)
    ]
    frame = pd.DataFrame(rows)
    for day, part in frame.groupby(frame["ranked_time"].dt.date):
        folder = tmp_path / "okx_data" / "universe" / f"date={day}"
        folder.mkdir(parents=True)
        # Rows are stored by key: time, then symbol.
        pq.write_table(pa.Table.from_pandas(part.sort_values("symbol")), folder / f"universe_{day:%Y%m%d}.parquet")
    return tmp_path / "okx_data"


def test_every_ranking_is_there_whole_in_order_of_time_and_place(data):
    found = perps.rankings(data)

    assert [(str(ranked), place, symbol) for (ranked, place), symbol in found["symbol"].items()] == [
        (str(pd.Timestamp(ranked)), place, symbol)
        for ranked, order in RATES.items()
        for place, (symbol, _) in enumerate(order, start=1)
    ]


@pytest.mark.parametrize(
    ("at", "ranked"),
    [
        ("2025-04-05 00:00:08", "2025-04-05 00:00:07.300"),
        ("2025-04-05 07:59", "2025-04-05 00:00:07.300"),
        ("2025-04-05 08:00", "2025-04-05 08:00:00"),
        ("2025-04-07 15:59", "2025-04-05 08:00:00"),
        ("2025-04-07 18:00+02:00", "2025-04-07 16:00:00"),
        ("2026-01-01", "2025-04-07 16:00:00"),
    ],
)
def test_who_was_in_the_universe_at_an_instant_and_at_which_rate(data, at, ranked):
    found = perps.rankings(data, at=at)

    assert list(zip(found["symbol"], found["funding_rate"], strict=True)) == RATES[ranked]
    assert list(found[found["member"]].index) == [1, 2]


def test_an_instant_before_the_first_ranking_is_an_error_that_says_when_that_was(data):
    with pytest.raises(LookupError, match="2025-04-05"):
        perps.rankings(data, at="2025-04-05 00:00:07")


def test_a_span_of_time_holds_the_rankings_that_were_made_in_it(data):
    found = perps.rankings(data, "2025-04-05 08:00", "2025-04-07 16:00")

    assert list(found["symbol"]) == ["C", "A", "B"]


def test_a_folder_without_rankings_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="okx_data"):
        perps.rankings(tmp_path)


def test_a_copy_of_a_file_counts_no_symbol_twice(data):
    before = perps.rankings(data)
    file = data / "universe" / "date=2025-04-05" / "universe_20250405.parquet"
    shutil.copy(file, file.with_name("universe_20250405_copy.parquet"))
    shutil.copy(file, data / "universe" / "date=2025-04-07")
    (data / "universe" / "date=2025-02-30").mkdir()

    pd.testing.assert_frame_equal(perps.rankings(data), before)
    assert list(perps.rankings(data, at="2025-04-05 08:00")["symbol"]) == ["C", "A", "B"]


def test_a_ranking_of_another_day_is_an_error_that_names_the_file(data):
    file = data / "universe" / "date=2025-04-07" / "universe_20250407.parquet"
    shutil.copy(data / "universe" / "date=2025-04-05" / "universe_20250405.parquet", file)

    with pytest.raises(ValueError, match=r"universe_20250407\.parquet: 6 of its rows are not of 2025-04-07"):
        perps.rankings(data)


@pytest.mark.parametrize("name", ["begin", "end", "at"])
@pytest.mark.parametrize("value", [pd.NaT, 5.5, "soon"])
def test_what_is_no_instant_is_refused_by_name(data, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: it must be an instant"):
        perps.rankings(data, **{name: value})


def test_what_is_no_folder_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^data is 5.5: it must be the collector's DATA_DIR"):
        perps.rankings(5.5)
