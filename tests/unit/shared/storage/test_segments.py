"""Segments: rows that are durable and in no day file yet."""

from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.storage.layout import Partition, partition_of
from shared.storage.parquet import ContentError, merge, table_of, write_table
from shared.storage.segments import (
    Pending,
    PendingRows,
    RawRows,
    Segment,
    append,
    by_partition,
    read_segment,
    segments_of,
)
from tests.support.builders import DAY_0, a_candle, a_prediction, minute, store

NEXT = DAY_0 + timedelta(days=1)


def candles(*minutes, symbol="BTC_USDT", price=1.0):
    return table_of(Candle, [a_candle(symbol, minute(number), price) for number in minutes])


@pytest.mark.invariant(3)
def test_a_segment_and_its_name_are_durable_when_it_is_appended(tmp_path, disk):
    """Invariant 3."""
    segment = append(tmp_path, Candle, candles(0, 1))

    path = segment.path(tmp_path)
    assert disk.synced(path) < disk.named(path)
    for folder in (path.parent, path.parent.parent, tmp_path):
        assert disk.named(path) < disk.synced(folder)
    assert read_segment(tmp_path, segment).equals(candles(0, 1))
    assert not list((tmp_path / "_wip").iterdir())


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuses(path):
        raise OSError(28, "No space left on device", str(path))

    append(tmp_path, Candle, candles(1))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("shared.storage.segments.fsync_path", refuses)

    with pytest.raises(OSError, match="No space left"):
        append(tmp_path, Candle, candles(0))

    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["A_USDT", "B_USDT", "C_USDT"]), st.integers(-1500, 3000)), min_size=1))
def test_rows_are_split_by_the_day_file_that_they_belong_to(places):
    rows = [a_candle(symbol, minute(number)) for symbol, number in places]

    parts = by_partition(Candle, table_of(Candle, rows))

    assert parts.keys() == {partition_of(row) for row in rows}
    for partition, part in parts.items():
        assert part.equals(table_of(Candle, [row for row in rows if partition_of(row) == partition]))


def test_rows_of_many_symbols_in_one_file_are_split_by_day():
    rows = [
        a_prediction("A_USDT", known_time=minute(1439)),
        a_prediction("B_USDT", known_time=minute(5)),
        a_prediction("A_USDT", known_time=minute(1441)),
    ]

    parts = by_partition(PredictedFundingRate, table_of(PredictedFundingRate, rows))

    assert {file: part.num_rows for file, part in parts.items()} == {
        Partition("funding_predicted", DAY_0): 2,
        Partition("funding_predicted", NEXT): 1,
    }


@pytest.mark.parametrize("name", [".x.tmp", "notes.txt", "00000000000000000001-abc.parquet", "x.parquet.damaged"])
def test_whatever_else_lies_in_the_folder_is_no_segment(tmp_path, name):
    segment = append(tmp_path, Candle, candles(0))
    (segment.path(tmp_path).parent / name).write_text("?")

    assert segments_of(tmp_path) == [segment]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("content", ["empty", "cut", "zeros", "foreign"])
def test_a_segment_that_is_not_what_was_written_is_found_and_hides_no_other(tmp_path, content):
    """Invariant 12."""
    bad, good = append(tmp_path, Candle, candles(0, 1)), append(tmp_path, Candle, candles(2))
    path = bad.path(tmp_path)
    match content:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        case "foreign":  # it looks right, and says not what was written
            pa.parquet.write_table(candles(0, 1), path)

    with pytest.raises(ContentError):
        read_segment(tmp_path, bad)
    pending = Pending(tmp_path, Candle)

    assert pending.refresh() == [good]
    assert str(path) in pending.unreadable[bad]


@pytest.mark.invariant(12)
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """Invariant 12: no row is ever silently wrong."""
    segment, rows = append(tmp_path, Candle, candles(0, 1, 2)), candles(0, 1, 2)
    content, found = segment.path(tmp_path).read_bytes(), 0
    for at in range(0, len(content), 7):
        segment.path(tmp_path).write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            assert read_segment(tmp_path, segment).equals(rows)
        except ContentError:
            found += 1
    assert found > len(content) // 20


def test_each_segment_is_read_once_and_forgotten_once_it_is_gone(tmp_path):
    pending = Pending(tmp_path, Candle)
    first = append(tmp_path, Candle, candles(0))

    assert pending.refresh() == [first]
    second = append(tmp_path, Candle, candles(1, 1440))
    assert pending.refresh() == [second]
    versions = pending.versions()
    assert versions.keys() == {
        Partition("kline_1m", DAY_0, "BTC_USDT"),
        Partition("kline_1m", NEXT, "BTC_USDT"),
    }
    assert len({*versions.values()}) == 2
    first.path(tmp_path).unlink()
    assert pending.refresh() == []
    (waiting,) = pending.tables()[Partition("kline_1m", DAY_0, "BTC_USDT")]
    assert waiting.equals(candles(1))


@pytest.mark.invariant(2)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=20))
def test_a_day_reads_the_same_wherever_its_rows_are(tmp_path_factory, rows):
    """Invariant 2: in the day file, in segments, or in both."""
    root, file = tmp_path_factory.mktemp("raw"), Partition("kline_1m", DAY_0, "BTC_USDT")
    expected = None
    for number, known, merged in rows:
        row = a_candle(open_time=minute(number), price=1.0 + known, receive_time=minute(known))
        expected = merge(Candle, expected, table_of(Candle, [row]))
        append(root, Candle, table_of(Candle, [row]))
        if merged:
            store(root, [row])
    pending = PendingRows(root)
    pending.refresh([Candle])

    for found in (pending.rows(), pending.rows().only([file])):
        assert found.read(file).equals(expected)
        assert found.read(file, ["open_time", "open"]).equals(expected.select(["open_time", "open"]))


def test_where_there_is_neither_a_file_nor_a_row_nothing_is_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        RawRows(tmp_path).read(Partition("kline_1m", DAY_0, "BTC_USDT"))


def test_names_order_by_time_and_never_return(tmp_path):
    segments = [append(tmp_path, Candle, candles(number)) for number in range(5)]

    assert segments_of(tmp_path) == segments == sorted(segments)
    assert len({segment.name for segment in segments}) == 5
    assert isinstance(segments[0], Segment)


def test_day_files_are_read_without_segments_as_before(tmp_path):
    file = Partition("kline_1m", DAY_0, "BTC_USDT")
    write_table(file.path(tmp_path), candles(0, 1))

    assert RawRows(tmp_path).read(file, ["open_time"]).equals(candles(0, 1).select(["open_time"]))


@pytest.mark.parametrize("what", ["file", "link to nowhere", "link in a circle"])
def test_what_is_no_folder_of_segments_holds_none(tmp_path, what):
    folder = tmp_path / "_segments" / "kline_1m"
    folder.parent.mkdir()
    match what:
        case "file":
            folder.touch()
        case "link to nowhere":
            folder.symlink_to(tmp_path / "nowhere")
        case "link in a circle":
            folder.symlink_to(folder.name)

    assert segments_of(tmp_path) == []


@pytest.mark.invariant(12)
def test_rows_of_another_dataset_with_the_same_columns_are_none_of_this_one(tmp_path):
    """Invariant 12: a prediction in the folder of the settled rates would be one of the future."""
    segment = append(tmp_path, PredictedFundingRate, table_of(PredictedFundingRate, [a_prediction()]))
    moved = Segment("funding", segment.name)
    moved.path(tmp_path).parent.mkdir()
    segment.path(tmp_path).rename(moved.path(tmp_path))

    with pytest.raises(ContentError, match="does not say that it holds rows of funding"):
        read_segment(tmp_path, moved)
    pending = Pending(tmp_path, FundingRate)
    assert pending.refresh() == []
    assert moved in pending.unreadable


@pytest.mark.invariant(12)
@pytest.mark.parametrize("what", ["link in a circle", "folder"])
def test_what_is_no_file_under_the_name_of_a_segment_hides_no_other(tmp_path, what):
    """Invariant 12."""
    good = append(tmp_path, Candle, candles(0))
    odd = good.path(tmp_path).with_name("00000000000000000001-aaaaaaaa.parquet")
    odd.mkdir() if what == "folder" else odd.symlink_to(odd.name)

    pending = Pending(tmp_path, Candle)

    assert pending.refresh() == [good]
    assert len(pending.unreadable) == 1
