"""Settled rates as a DataFrame, read from files as the writer stores them."""

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
