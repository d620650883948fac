"""Settled rates as a DataFrame, read from files as the writer stores them."""

import re
import shutil

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import pandas as pd
import perps
import pyarrow as pa
import pyarrow.parquet as pq

RATES = {
    "2025-04-05 08:00:00": [("A", 0.0001, 8), ("B", -0.002, None)],
    "2025-04-05 16:00:00.003": [("A", 0.0002, 8)],
    "2025-04-06 00:00:00": [("B", 0.0003, 4), ("A", 0.0004, 8)],
}


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "exchange": "okx",
            "symbol": symbol,
            "funding_time": pd.Timestamp(time, tz="UTC"),
            "funding_rate": rate,
            "interval_hours": hours,
            "known_time": pd.Timestamp(time, tz="UTC") + pd.Timedelta("5s"),
        }
        for time, settled in RATES.items()
        for symbol, rate, hours in settled
    ]
    frame = pd.DataFrame(rows)
    for day, part in frame.groupby(frame["funding_time"].dt.date):
        folder = tmp_path / "okx_data" / "funding" / f"date={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(part), folder / f"funding_rates_{day:%Y%m%d}.parquet")
    return tmp_path / "okx_data"


def test_all_that_was_settled_comes_in_the_order_of_time(data):
    found = perps.settlements(data)

    assert list(found.columns) == ["funding_time", "symbol", "funding_rate", "interval_hours"]
    assert found["funding_rate"].tolist() == [0.0001, -0.002, 0.0002, 0.0004, 0.0003]
    assert found["funding_time"].tolist() == [pd.Timestamp(time) for time, rows in RATES.items() for _ in rows]


def test_a_span_begins_with_its_first_instant_and_ends_before_its_last(data):
    found = perps.settlements(data, "2025-04-05 16:00", "2025-04-06")

    assert found["symbol"].tolist() == ["A"]


def test_a_folder_without_rates_says_which_one_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))

    with pytest.raises(FileNotFoundError, match="no funding rates there; `data` is the collector's DATA_DIR"):
        perps.settlements()


def file_of(data, day):
    return data / "funding" / f"date={day}" / f"funding_rates_{day.replace('-', '')}.parquet"


def test_only_the_file_of_the_very_day_counts(data):
    before = perps.settlements(data)
    file = file_of(data, "2025-04-05")
    shutil.copy(file, file.with_name("funding_rates_20250405_copy.parquet"))
    shutil.copy(file, file_of(data, "2025-04-06").with_name(file.name))
    file.with_name("funding_rates_x.parquet").touch()
    for name in ("date=2025-02-30", "date=20250405", "date=", "date=2025-04-07"):
        (data / "funding" / name).mkdir()
    shutil.copy(file, data / "funding" / "date=20250405")

    pd.testing.assert_frame_equal(perps.settlements(data), before)


def test_days_without_a_file_are_no_funding_rates(data):
    for day in ("2025-04-05", "2025-04-06"):
        file_of(data, day).unlink()

    with pytest.raises(FileNotFoundError, match="no funding rates there"):
        perps.settlements(data)


def test_a_span_without_files_has_no_rows(data):
    assert perps.settlements(data, "2026-01-01", "2026-02-01").empty


def test_rows_of_another_day_are_an_error_that_names_the_file(data):
    file = file_of(data, "2025-04-06")
    shutil.copy(file_of(data, "2025-04-05"), file)

    with pytest.raises(ValueError, match=f"{re.escape(str(file))}: 3 of its rows are not of 2025-04-06"):
        perps.settlements(data)


def test_rows_that_are_there_twice_are_an_error_that_names_the_file(data):
    file = file_of(data, "2025-04-06")
    table = pq.read_table(file, partitioning=None)
    pq.write_table(pa.concat_tables([table, table]), file)

    with pytest.raises(ValueError, match=f"{re.escape(str(file))}: 2 of its rows are there twice, such as exchange"):
        perps.settlements(data)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None], ids=["empty", "cut", "without columns"])
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(data, content):
    file = file_of(data, "2025-04-05")
    pq.write_table(pa.table({"symbol": ["A"]}), file)
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ValueError, match=f"{re.escape(str(file))}: the file cannot be read .*fetched again"):
        perps.settlements(data)
