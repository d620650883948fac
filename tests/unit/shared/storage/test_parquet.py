"""Merging by identity, judged by a dictionary."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.registry import ROWS
from shared.datasets.universe import Rank
from shared.storage.parquet import arrow_schema, merge, read_rows, table_of, write_table
from tests.support.builders import MIDNIGHT, a_candle, a_funding_rate, a_ranking, minute

CANDLES = st.lists(
    st.builds(
        lambda number, known, price: a_candle(
            open_time=minute(number), price=float(price), receive_time=MIDNIGHT + timedelta(seconds=known)
        ),
        st.integers(0, 6),
        st.integers(0, 3),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=25,
)
RATES = st.lists(
    st.builds(
        lambda symbol, hour, known, rate, interval: a_funding_rate(
            symbol,
            MIDNIGHT + timedelta(hours=hour),
            rate / 1000,
            known_time=MIDNIGHT + timedelta(hours=known),
            interval_hours=interval,
        ),
        st.sampled_from(["BTC_USDT", "ETH_USDT"]),
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([None, 4, 8]),
    ),
    min_size=1,
    max_size=25,
)


def model(kind, rows):
    """Say the same with a dictionary: the one known last wins, ties by the other columns."""
    names = kind.__struct_fields__

    def rank(row):
        # nulls come last in Arrow's order, so a copy without a value wins over one with it
        return getattr(row, kind.newest), *((getattr(row, name) is None, getattr(row, name) or 0) for name in names)

    best = {}
    for row in rows:
        identity = tuple(getattr(row, name) for name in (kind.time, *kind.key))
        if identity not in best or rank(row) > rank(best[identity]):
            best[identity] = row
    return [{name: getattr(best[key], name) for name in names} for key in sorted(best)]


@pytest.mark.invariant(2)
@settings(deadline=None)
@given(CANDLES, st.data())
def test_merging_keeps_the_newest_of_each_identity_in_whatever_pieces_rows_arrive(rows, data):
    """Invariant 2: order, duplicates and batches change nothing."""
    arrivals = data.draw(st.permutations([*rows, *data.draw(st.lists(st.sampled_from(rows), max_size=5))]))
    cut = data.draw(st.integers(0, len(arrivals)))

    merged = None
    for piece in (arrivals[:cut], arrivals[cut:]):
        if piece:
            merged = merge(Candle, merged, table_of(Candle, piece))

    assert merged.to_pylist() == model(Candle, rows)


@pytest.mark.invariant(2)
@settings(deadline=None)
@given(RATES, st.data())
def test_merging_rows_of_many_symbols_does_not_depend_on_the_order_either(rows, data):
    """Invariant 2."""
    arrivals = data.draw(st.permutations(rows))

    once = merge(FundingRate, None, table_of(FundingRate, arrivals))

    assert merge(FundingRate, once, table_of(FundingRate, rows)).equals(once)
    assert once.to_pylist() == model(FundingRate, rows)


def test_a_correction_replaces_what_was_known_before():
    early = a_funding_rate(rate=0.001, known_time=minute(1))
    late = a_funding_rate(rate=0.002, known_time=minute(2))

    for rows in ([early, late], [late, early]):
        assert merge(FundingRate, None, table_of(FundingRate, rows))["funding_rate"].to_pylist() == [0.002]


@pytest.mark.parametrize("kind", ROWS)
def test_the_columns_follow_the_declaration(kind):
    schema = arrow_schema(kind)

    assert schema.names == list(kind.__struct_fields__)
    assert all(not schema.field(name).nullable for name in kind.key)
    assert schema.field(kind.time).type == pa.timestamp("ms", tz="UTC")


def test_the_columns_of_a_candle_are_those_of_the_design():
    assert arrow_schema(Candle).names == (
        [
            "exchange",
            "symbol",
            "interval",
            "open_time",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "amount",
            "contracts",
            "source",
            "receive_time",
        ]
    )
    assert arrow_schema(FundingRate).names == (
        [
            "exchange",
            "symbol",
            "funding_time",
            "funding_rate",
            "interval_hours",
            "known_time",
            "source",
            "receive_time",
            "flag",
        ]
    )
    assert [field.name for field in arrow_schema(PredictedFundingRate) if field.nullable] == ["interval_hours", "flag"]
    assert arrow_schema(Rank).field("member").type == pa.bool_()


def test_a_file_reads_back_as_it_was_written(tmp_path):
    rows = [a_candle(open_time=minute(number), price=1.1**number) for number in range(50)]
    path = tmp_path / "day.parquet"

    write_table(path, table_of(Candle, rows))

    assert read_rows(Candle, path).to_pylist() == model(Candle, rows)
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"
    assert list(tmp_path.iterdir()) == [path]


def test_a_column_that_an_older_file_lacks_is_read_as_nulls(tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(table_of(FundingRate, [a_funding_rate()]).drop_columns(["interval_hours"]), path)

    table = read_rows(FundingRate, path)

    assert table.schema.names == arrow_schema(FundingRate).names
    assert table["interval_hours"].to_pylist() == [None]


def test_an_old_file_merges_with_rows_of_today(tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(table_of(FundingRate, [a_funding_rate()]).drop_columns(["interval_hours"]), path)

    fresh = table_of(FundingRate, [a_funding_rate(known_time=minute(5))])
    merged = merge(FundingRate, read_rows(FundingRate, path), fresh)

    assert merged["interval_hours"].to_pylist() == [8]


def test_only_the_columns_asked_for_are_read(tmp_path):
    path = tmp_path / "day.parquet"
    write_table(path, table_of(Candle, [a_candle()]))

    assert read_rows(Candle, path, ["open_time"]).schema.names == ["open_time"]


def test_a_ranking_is_a_timeline_sorted_by_time_then_symbol():
    later, earlier = a_ranking("B", "A", ranked_time=minute(480)), a_ranking("A", "B")

    table = merge(Rank, None, table_of(Rank, [*later.ranks, *earlier.ranks]))

    assert table.select(["ranked_time", "symbol"]).to_pylist() == [
        {"ranked_time": minute(0), "symbol": "A"},
        {"ranked_time": minute(0), "symbol": "B"},
        {"ranked_time": minute(480), "symbol": "A"},
        {"ranked_time": minute(480), "symbol": "B"},
    ]
