"""Whatever lies where a day file belongs: one declared error, or the rows that its name promises."""

import os
import random
from datetime import date

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import LedgerRow
from shared.grid import FIRST_DAY, LAST_DAY
from shared.ledger.minutes import is_mask_text, mask_from_text, mask_to_text
from shared.storage.layout import OutsideError, Partition, day_folder, days, partition_of, partitions
from shared.storage.parquet import ContentError, read_partition, read_rows, table_of, write_table
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


ODD_PERIODS = (-5, 0, 3, 2**31 - 1)


def a_ledger_row(symbol="BTC_USDT", **sets):
    return LedgerRow(exchange="okx", symbol=symbol, day=MIDNIGHT, **sets)


OLD = {
    "candles": [a_candle(open_time=minute(number), price=100.0 + number) for number in range(3)],
    "ledger": [a_ledger_row(wanted="0-1439", received="0-700,702-1439", version="7-8-9")],
    "rankings": list(a_ranking("BTC_USDT", "ETH_USDT").ranks),
    "funding": [a_funding_rate(interval_hours=None), a_funding_rate("ETH_USDT")],
    "predictions": [a_prediction(), a_prediction("ETH_USDT")],
}


@pytest.mark.parametrize("every", [pytest.param(7, id="some"), pytest.param(1, id="all", marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", OLD)
def test_no_flip_in_a_file_without_checksums_gives_an_error_that_nobody_expects(tmp_path, name, every):
    """Old files hold nothing to verify them by. What is left can be wrong, but it ends no process."""
    rows = OLD[name]
    partition = partition_of(rows[0])
    path = partition.path(tmp_path)
    path.parent.mkdir(parents=True)
    pq.write_table(table_of(type(rows[0]), rows), path, compression="snappy")
    whole, chance, refused = path.read_bytes(), random.Random(11), 0
    for position in range(0, len(whole), every):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            read_partition(tmp_path, partition)
        except ContentError:
            refused += 1
    assert refused


def test_a_file_that_the_decoder_has_no_word_for_is_a_file_with_wrong_content(tmp_path):
    """The library raises NotImplementedError, OverflowError, KeyError and others of its own."""
    path = tmp_path / "day.parquet"
    for table in (
        pa.table([pa.array([1]), pa.array([2])], names=["open", "open"]),
        pa.table({"open": pa.array([{"a": 1}])}),
        pa.table({"open_time": pa.array([[1, 2]])}),
    ):
        pq.write_table(table, path)
        with pytest.raises(ContentError):
            read_rows(Candle, path)


def test_a_pipe_where_a_file_belongs_holds_nobody_up(tmp_path):
    partition = Partition("kline_1m", DAY_0, "BTC_USDT")
    path = partition.path(tmp_path)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    with pytest.raises(ContentError, match="no file"):
        read_partition(tmp_path, partition)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_link_to_a_device_is_no_file(tmp_path, target):
    path = tmp_path / "day.parquet"
    path.symlink_to(target)

    with pytest.raises(ContentError, match="no file"):
        read_rows(Candle, path)


def candles(*numbers, **changes):
    return table_of(Candle, [a_candle(open_time=minute(number), **changes) for number in numbers])


def ledger(**sets):
    return table_of(LedgerRow, [a_ledger_row(**sets)])


@pytest.mark.parametrize(
    ("dataset", "table", "why"),
    [
        ("kline_1m", pa.concat_tables([candles(0), candles(0, exchange="binance")]), "'binance' is its exchange"),
        ("kline_1m", pa.concat_tables([candles(0), candles(0, interval="5m")]), "another interval"),
        ("kline_1m", candles(0, interval="1s"), "another interval"),
        ("ledger", ledger(wanted="0-1440"), "wanted: '0-1440' is no set"),
        ("ledger", ledger(received="5-3"), "received"),
        ("ledger", ledger(absent="0-3,3-5"), "absent"),
        ("ledger", ledger(settled="soon"), "settled"),
        ("ledger", ledger(due="0-5,"), "due"),
        ("ledger", table_of(LedgerRow, [LedgerRow(exchange="okx", symbol="B", day=minute(1))]), "another day"),
    ],
)
def test_a_file_that_would_be_read_as_something_else_is_refused(tmp_path, dataset, table, why):
    partition = Partition(dataset, DAY_0, "BTC_USDT" if dataset == "kline_1m" else None)
    write_table(partition.path(tmp_path), table)

    with pytest.raises(ContentError, match=why):
        read_partition(tmp_path, partition)


@given(st.integers(0, (1 << 1440) - 1))
def test_what_is_spelled_as_a_set_of_minutes_is_one(mask):
    assert is_mask_text(mask_to_text(mask))


@given(st.text("0123456789,-", max_size=20))
def test_what_is_taken_for_a_set_of_minutes_is_spelled_as_one(text):
    assert is_mask_text(text) == _is_spelled(text)


def _is_spelled(text):
    """Say the same by reading and spelling it again."""
    try:
        mask = mask_from_text(text)
    except ValueError:
        return False
    return mask < 1 << 1440 and mask_to_text(mask) == text


@pytest.mark.parametrize(
    "symbol", ["", None, "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "a b", "x" * 300, "\udc80"]
)
def test_a_symbol_whose_file_nobody_would_list_has_no_file(tmp_path, symbol):
    with pytest.raises(OutsideError):
        Partition("kline_1m", DAY_0, symbol).path(tmp_path)


@given(st.dates(FIRST_DAY, LAST_DAY))
def test_every_day_is_found_again(tmp_path_factory, day):
    root = tmp_path_factory.mktemp("raw")
    partition = Partition("kline_1m", day, "BTC_USDT")
    path = partition.path(root)
    path.parent.mkdir(parents=True)
    path.touch()

    assert path.parent == day_folder(root, "kline_1m", day)
    assert days(root, "kline_1m") == [day]
    assert [file for file, _ in partitions(root, "kline_1m", day)] == [partition]


def test_the_first_days_of_time_are_spelled_with_four_digits(tmp_path):
    assert Partition("funding", date(999, 1, 2)).path(tmp_path).name == "funding_rates_09990102.parquet"


@pytest.mark.parametrize("day", [date.min, date(2008, 12, 31), date(2099, 12, 31), date.max])
def test_a_day_on_which_there_is_no_market_is_no_day(tmp_path, day):
    day_folder(tmp_path, "kline_1m", day).mkdir(parents=True)

    assert days(tmp_path, "kline_1m") == []


RANK = a_ranking("BTC_USDT").ranks[0]


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        *((row, "interval_hours", value) for row in (a_funding_rate(), a_prediction(), RANK) for value in ODD_PERIODS),
        (RANK, "rank", 0),
        (RANK, "score", -0.5),
        (RANK, "score", float("nan")),
        (a_definition(), "contract_value", -1.0),
        (a_definition(), "tick_size", 0.0),
        (a_definition(), "max_leverage", 1e31),
    ],
)
def test_a_file_with_a_number_that_the_intake_refuses_is_refused(tmp_path, row, field, value):
    wrong = msgspec.structs.replace(row, symbol="WRONG_USDT", **{field: value})
    partition = partition_of(row)
    write_table(partition.path(tmp_path), table_of(type(row), [row, wrong]))

    with pytest.raises(ContentError, match=f"{field}: .* cannot be true"):
        read_partition(tmp_path, partition)
    with pytest.raises(ContentError, match=f"{field}: .* cannot be true"):
        read_partition(tmp_path, partition, [field])


def test_a_number_that_is_not_known_is_no_wrong_one(tmp_path):
    rows = [a_funding_rate(interval_hours=None), a_funding_rate("ETH_USDT", interval_hours=1)]
    write_table(partition_of(rows[0]).path(tmp_path), table_of(FundingRate, rows))

    assert read_partition(tmp_path, partition_of(rows[0]))["interval_hours"].to_pylist() == [None, 1]
