"""What is on disk."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from services.api.disk import DiskReader, calendar_span, qlib_frequencies, raw_dataset, scan
from services.api.universe import stored_ranking
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.registry import BY_DATASET
from shared.datasets.universe import Rank
from shared.storage.layout import partition_of
from shared.storage.parquet import table_of, write_table
from tests.support.builders import a_candle, minute


def put(path, content=b"12345"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_empty_folders_are_no_error(tmp_path):
    disk = scan(tmp_path / "raw", tmp_path / "qlib")

    assert [row.files for row in disk.raw] == [0] * len(BY_DATASET)
    assert disk.qlib.symbols == 0
    assert disk.qlib.frequencies == []


def test_rows_that_wait_to_be_merged_are_counted_apart(tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]})
    raw.append({Candle: [a_candle(open_time=minute(1))]})

    found = raw_dataset(tmp_path, "kline_1m")

    assert (found.files, found.waiting_files) == (0, 2)
    assert found.waiting_bytes == sum(segment.path(tmp_path).stat().st_size for segment in raw.segments)


def test_raw_dataset_is_summed_up(tmp_path):
    put(tmp_path / "kline_1m/date=2025-04-05/BTC_USDT_20250405.parquet")
    put(tmp_path / "kline_1m/date=2025-04-05/ETH_USDT_20250405.parquet")
    put(tmp_path / "kline_1m/date=2025-04-05/.ETH_USDT_20250405.parquet.7.tmp")
    put(tmp_path / "kline_1m/date=2025-04-07/BTC_USDT_20250407.parquet")
    (tmp_path / "kline_1m/date=2025-04-08").mkdir()

    candles = raw_dataset(tmp_path, "kline_1m")

    assert (candles.first_day, candles.last_day) == (date(2025, 4, 5), date(2025, 4, 7))
    assert (candles.days, candles.files, candles.bytes, candles.symbols) == (2, 3, 15, 2)


def test_dataset_of_one_file_a_day_has_no_symbols_to_count(tmp_path):
    put(tmp_path / "funding/date=2025-04-05/funding_rates_20250405.parquet")

    assert raw_dataset(tmp_path, "funding").symbols is None
    assert raw_dataset(tmp_path, "funding").files == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (None, None, 0)),
        ("2025-04-05\n", ("2025-04-05", "2025-04-05", 1)),
        ("2025-04-05", ("2025-04-05", "2025-04-05", 1)),
        ("2025-04-05\n2025-04-06\n2025-04-07\n", ("2025-04-05", "2025-04-07", 3)),
        ("2025-04-05\n2025-04-06\n2025-04-07", ("2025-04-05", "2025-04-07", 3)),
    ],
)
def test_calendar_is_read_from_its_ends(tmp_path, text, expected):
    (tmp_path / "day.txt").write_text(text)

    assert calendar_span(tmp_path / "day.txt") == expected


def test_long_calendar_is_counted_exactly(tmp_path):
    first = datetime(2025, 4, 5, tzinfo=UTC)
    lines = [f"{first + timedelta(minutes=minute):%Y-%m-%d %H:%M:%S}\n" for minute in range(10_001)]
    (tmp_path / "1min.txt").write_text("".join(lines))

    assert calendar_span(tmp_path / "1min.txt") == ("2025-04-05 00:00:00", "2025-04-11 22:40:00", 10_001)


def test_qlib_data_is_summed_up_by_frequency(tmp_path):
    put(tmp_path / "calendars/day.txt", b"2025-04-05\n2025-04-06\n")
    put(tmp_path / "calendars/day_future.txt", b"2025-04-05\n2025-04-06\n2025-04-07\n")
    put(tmp_path / "calendars/60min.txt", b"".join(b"2025-04-05 %02d:00:00\n" % hour for hour in range(24)))
    put(tmp_path / "instruments/all.txt", b"BTC_USDT\t2025-04-05\t2025-04-06\nETH_USDT\t2025-04-05\t2025-04-06\n")
    put(tmp_path / "features/btc_usdt/close.day.bin", b"12345678")
    put(tmp_path / "features/btc_usdt/close.60min.bin", b"1234")
    put(tmp_path / "features/eth_usdt/close.60min.bin", b"1234")
    put(tmp_path / "features/eth_usdt/.close.60min.bin.tmp", b"1234")

    found = [(row.frequency, row.bars, row.last_bar, row.symbols, row.bytes) for row in qlib_frequencies(tmp_path)]

    assert found == [("60min", 24, "2025-04-05 23:00:00", 2, 8), ("day", 2, "2025-04-06", 1, 8)]
    assert scan(tmp_path / "raw", tmp_path).qlib.symbols == 2


async def test_scan_is_given_out_again_while_fresh(tmp_path):
    reader = DiskReader(tmp_path, tmp_path)
    first = await reader.read()

    put(tmp_path / "funding/date=2025-04-05/funding_rates_20250405.parquet")

    assert await reader.read() is first


def place(ranked, symbol, rank):
    return Rank(
        exchange="okx",
        symbol=symbol,
        ranked_time=ranked,
        rank=rank,
        funding_rate=-0.01 / rank,
        score=0.01 / rank,
        interval_hours=8,
        funding_time=ranked + timedelta(hours=8),
        member=rank <= 2,
        rank_by="raw",
        known_time=ranked,
    )


def store(root, *rankings):
    ranks = [place(ranked, symbol, rank) for ranked, symbols in rankings for rank, symbol in enumerate(symbols, 1)]
    write_table(partition_of(ranks[0]).path(root), table_of(Rank, ranks))


FIFTH, SIXTH = datetime(2025, 4, 5, 8, tzinfo=UTC), datetime(2025, 4, 6, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (FIFTH - timedelta(seconds=1), []),
        (FIFTH, ["A", "B", "C"]),
        (FIFTH + timedelta(hours=7), ["A", "B", "C"]),
        (FIFTH + timedelta(hours=8), ["B", "A", "C"]),
        (SIXTH - timedelta(seconds=1), ["B", "A", "C"]),
        (SIXTH + timedelta(days=9), ["C", "B", "A"]),
    ],
)
def test_ranking_of_a_time_is_the_last_one_made_by_then(tmp_path, at, expected):
    store(tmp_path, (FIFTH, "ABC"), (FIFTH + timedelta(hours=8), "BAC"))
    store(tmp_path, (SIXTH, "CBA"))

    ranks = stored_ranking(tmp_path, at)

    assert [rank.symbol for rank in sorted(ranks, key=lambda rank: rank.rank)] == expected


def test_damaged_ranking_is_an_error_not_an_older_answer(tmp_path):
    store(tmp_path, (FIFTH, "ABC"))
    put(tmp_path / "universe/date=2025-04-06/universe_20250406.parquet")

    with pytest.raises(ValueError, match="Parquet"):
        stored_ranking(tmp_path, SIXTH)


def test_api_needs_no_table_library_of_research():
    code = "import sys, services.api.__main__; print(sorted({'pandas', 'polars', 'qlib'} & set(sys.modules)))"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"
