from datetime import date
from pathlib import Path

import pytest

from shared.storage.files import replace_text
from shared.storage.layout import (
    OutsideError,
    Partition,
    days,
    partition_of,
    partitions,
    signature,
)
from shared.storage.versions import day_digest, digest_of
from tests.support.builders import DAY_0, a_candle, a_funding_rate, a_prediction, a_ranking, minute

ROOT = Path("okx_data")


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (a_candle("BTC_USDT"), "kline_1m/date=2025-04-05/BTC_USDT_20250405.parquet"),
        (a_candle("1000PEPE_USDT"), "kline_1m/date=2025-04-05/1000PEPE_USDT_20250405.parquet"),
        (a_candle("BTC_USD_UM"), "kline_1m/date=2025-04-05/BTC_USD_UM_20250405.parquet"),
        (a_funding_rate(), "funding/date=2025-04-05/funding_rates_20250405.parquet"),
        (a_prediction(), "funding_predicted/date=2025-04-05/funding_predicted_20250405.parquet"),
        (a_ranking("BTC_USDT").ranks[0], "universe/date=2025-04-05/universe_20250405.parquet"),
    ],
)
def test_a_row_lies_where_the_design_says(row, path):
    assert partition_of(row).path(ROOT) == ROOT / path


@pytest.mark.parametrize(
    ("number", "day"), [(0, DAY_0), (1439, DAY_0), (1440, date(2025, 4, 6)), (-1, date(2025, 4, 4))]
)
def test_a_candle_belongs_to_the_utc_day_of_its_open(number, day):
    assert partition_of(a_candle(open_time=minute(number))).day == day


def test_only_data_is_listed_never_temporary_or_foreign_files(tmp_path):
    folder = tmp_path / "kline_1m" / "date=2025-04-05"
    for name in (
        "BTC_USDT_20250405.parquet",
        ".BTC_USDT_20250405.parquet.77.tmp",
        ".hidden_20250405.parquet",
        "BTC_USDT_20250406.parquet",
        "notes.txt",
    ):
        replace_text(folder / name, "x")
    (tmp_path / "kline_1m" / "date=soon").mkdir()

    assert days(tmp_path, "kline_1m") == [DAY_0]
    assert [partition for partition, _ in partitions(tmp_path, "kline_1m", DAY_0)] == [
        Partition("kline_1m", DAY_0, "BTC_USDT")
    ]


@pytest.mark.invariant(12)
def test_a_link_in_a_circle_is_no_folder_and_hides_none_of_its_neighbours(tmp_path):
    """Invariant 12."""
    path = Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path)
    path.parent.mkdir(parents=True)
    path.touch()
    circle = path.parent.with_name("date=2026-02-23")
    circle.symlink_to(circle.name)
    (tmp_path / "universe").symlink_to("universe")

    assert days(tmp_path, "kline_1m") == [DAY_0]
    assert days(tmp_path, "universe") == []
    assert list(partitions(tmp_path, "kline_1m", date(2026, 2, 23))) == []
    assert list(partitions(tmp_path, "universe", DAY_0)) == []


def test_an_absent_folder_holds_nothing(tmp_path):
    assert days(tmp_path, "kline_1m") == []
    assert list(partitions(tmp_path, "kline_1m", DAY_0)) == []


def test_a_file_has_another_signature_after_every_replace(tmp_path):
    path = tmp_path / "file"
    seen = set()

    for _ in range(5):
        replace_text(path, "the same text")
        seen.add(signature(path.stat()))

    assert len(seen) == 5


def test_the_digest_of_a_day_changes_with_any_of_its_files(tmp_path):
    first = Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path)
    second = Partition("kline_1m", DAY_0, "ETH_USDT").path(tmp_path)
    digests = set()

    for path, text in [(first, "a"), (second, "a"), (second, "b"), (first, "b")]:
        replace_text(path, text)
        digests.add(day_digest(tmp_path, "kline_1m", DAY_0))

    assert len(digests) == 4


def test_the_digest_does_not_depend_on_the_order_of_the_listing():
    versions = {symbol: f"{symbol}-1" for symbol in "ABC"}

    assert digest_of(versions) == digest_of(dict(reversed(versions.items())))


@pytest.mark.parametrize(
    ("symbol", "exchange"), [("X_USDT", "binance"), ("X_USDT.BINANCE", "okx"), ("X_USDT.BYBIT", "binance")]
)
def test_a_row_whose_symbol_is_not_one_of_its_exchange_has_no_file(symbol, exchange):
    """Invariant 2: else two exchanges' minutes would be one file."""
    with pytest.raises(OutsideError, match="is no symbol of"):
        partition_of(a_candle(symbol, exchange=exchange))


def test_two_exchanges_of_one_name_are_two_files(tmp_path):
    paths = {partition_of(a_candle(symbol, exchange=exchange)).path(tmp_path).name for symbol, exchange in TWO}

    assert paths == {"BTC_USDT_20250405.parquet", "BTC_USDT.BINANCE_20250405.parquet"}


TWO = [("BTC_USDT", "okx"), ("BTC_USDT.BINANCE", "binance_usdm")]
