"""Files that are not what they were: one flipped bit, another file's content, something that is no file."""

import contextlib
import random
from datetime import date, timedelta

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.ranker.history import keep, kept
from shared.datasets.candle import Candle
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET
from shared.storage.layout import Partition, partition_of
from shared.storage.parquet import ContentError, arrow_schema, read_partition, read_rows, table_of, write_table
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
)

pytestmark = pytest.mark.invariant(12)

DECLARED = (ValueError, OSError, MemoryError, pa.ArrowException)
"""What whoever reads a day file expects, and puts it aside for."""


def a_ledger_row(symbol, **sets):
    return LedgerRow(exchange="okx", symbol=symbol, day=MIDNIGHT, **sets)


FILES = {
    "candles": [a_candle(open_time=minute(number), price=100.0 + number / 7) for number in range(20)],
    "ledger": [a_ledger_row("BTC_USDT", wanted="0-1439", received="0-700,702-1439", absent="701-701", version="7-8-9")],
    "rankings": list(a_ranking("BTC_USDT", "ETH_USDT", others=["XRP_USDT"]).ranks),
    "instruments": [a_definition(), a_definition(known_time=minute(5), state="expired", list_time=None)],
    "predictions": [a_prediction(), a_prediction(rate=2e-4, known_time=minute(1))],
    "funding": [a_funding_rate(interval_hours=None), a_funding_rate("ETH_USDT", flag="beyond 5%")],
}


def written(tmp_path, rows):
    partition = partition_of(rows[0])
    write_table(partition.path(tmp_path), table_of(type(rows[0]), sorted(rows, key=lambda row: row.symbol)))
    return partition, partition.path(tmp_path)


SOME_AND_ALL = pytest.mark.parametrize(
    "every", [pytest.param(7, id="some"), pytest.param(1, id="all", marks=pytest.mark.proof)]
)
"""How many of the bytes: one in seven, or each."""


@SOME_AND_ALL
@pytest.mark.parametrize("name", FILES)
def test_a_flip_of_any_byte_is_found_or_changes_no_value(tmp_path, name, every):
    partition, path = written(tmp_path, FILES[name])
    whole, true = path.read_bytes(), read_partition(tmp_path, partition).to_pylist()
    chance, found, positions = random.Random(7), 0, range(0, len(whole), every)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            rows = read_partition(tmp_path, partition).to_pylist()
        except DECLARED:
            found += 1
        else:
            assert rows == true, f"byte {position} of {len(whole)}"
    assert found > len(positions) / 4


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 5000, b"PAR1" * 3])
def test_what_is_no_parquet_file_is_found(tmp_path, content):
    partition, path = written(tmp_path, FILES["candles"])
    path.write_bytes(content)

    with pytest.raises(DECLARED):
        read_partition(tmp_path, partition)


def test_a_file_that_is_cut_anywhere_is_found(tmp_path):
    partition, path = written(tmp_path, FILES["candles"])
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DECLARED):
            read_partition(tmp_path, partition)


def candles(*numbers, symbol="BTC_USDT", **changes):
    return table_of(Candle, [a_candle(symbol, minute(number), **changes) for number in numbers])


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (candles(-1440, -1439), "another day"),
        (candles(0, 1440), "another day"),
        (candles(0, 1, symbol="ETH_USDT"), "another symbol"),
        (pa.concat_tables([candles(0), candles(1, symbol="ETH_USDT")]), "another symbol"),
        (candles(0, 0), "two rows of one identity"),
        (candles(1, 0), "order of time"),
        (table_of(Candle, [a_candle(open_time=minute(0) + timedelta(seconds=1))]), "off the minute grid"),
        (pa.concat_tables([candles(0), candles(1, close=float("nan"))]), "close: nan"),
        (candles(0, volume=1e39), "volume: 1e\\+39"),
        (candles(0, low=0.0), "low: 0.0"),
        (candles(0, high=1.0), "does not enclose"),
        (candles(), "holds no row"),
        (table_of(type(FILES["funding"][0]), FILES["funding"]), "missing"),
        (candles(0).set_column(4, "open", pa.array(["a lot"])), "another type"),
        (candles(0).drop_columns(["open_time"]), "missing"),
    ],
)
def test_a_file_that_does_not_hold_what_its_name_says_is_found(tmp_path, table, why):
    partition = Partition("kline_1m", DAY_0, "BTC_USDT")
    write_table(partition.path(tmp_path), table)

    with pytest.raises(ContentError, match=why):
        read_partition(tmp_path, partition)


def test_a_column_that_was_written_is_never_taken_for_one_that_an_older_file_lacks(tmp_path):
    partition, path = written(tmp_path, FILES["funding"])
    with pq.ParquetFile(path) as file:
        metadata, table = file.schema_arrow.metadata, file.read()
    pq.write_table(table.drop_columns(["flag"]).replace_schema_metadata(metadata), path)

    with pytest.raises(ContentError, match="column flag: missing"):
        read_partition(tmp_path, partition)


@pytest.mark.parametrize("kind", BY_DATASET.values(), ids=BY_DATASET)
def test_a_file_from_before_there_were_checksums_is_read(tmp_path, kind):
    rows = next(rows for rows in FILES.values() if isinstance(rows[0], kind))
    path = tmp_path / "old.parquet"
    pq.write_table(table_of(kind, rows), path, compression="snappy")

    assert read_rows(kind, path).to_pylist() == [msgspec.structs.asdict(row) for row in rows]


def test_other_readers_open_a_file_with_checksums(tmp_path):
    import pandas as pd
    import polars as pl

    _, path = written(tmp_path, FILES["candles"])

    assert list(pd.read_parquet(path)["open"]) == pl.read_parquet(path)["open"].to_list()
    assert pl.read_parquet(path).columns == arrow_schema(Candle).names


@SOME_AND_ALL
def test_a_flip_of_any_byte_of_the_kept_rankings_is_found_or_changes_nothing(tmp_path, every):
    ranking = a_ranking("BTC_USDT", "ETH_USDT")
    keep(tmp_path, ranking)
    path = tmp_path / "rankings.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), every):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            assert kept(tmp_path, "okx") in ([ranking], []), f"byte {position}"


def test_rankings_that_were_kept_before_there_was_a_digest_are_read(tmp_path):
    ranking = a_ranking("BTC_USDT")
    (tmp_path / "rankings.json").write_bytes(msgspec.json.encode([ranking]) + b"\n")

    assert kept(tmp_path, "okx") == [ranking]


def test_a_name_never_leads_out_of_its_folder(tmp_path):
    for symbol in ("../../../EVIL", "a/b", "..", "a\0b", "a\\b"):
        with contextlib.suppress(ValueError):
            path = Partition("kline_1m", date(2025, 4, 5), symbol).path(tmp_path)
            assert path.resolve().parent == (tmp_path / "kline_1m" / "date=2025-04-05").resolve(), symbol
