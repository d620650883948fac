"""Versions of day files name their content."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from shared.datasets.candle import Candle
from shared.storage.layout import partition_of
from shared.storage.parquet import table_of, version_of, write_table
from shared.storage.versions import content_in, day_digest, digest_of, signature_in
from tests.support.builders import DAY_0, a_candle, minute


def rows(*prices):
    return table_of(Candle, [a_candle(open_time=minute(number), price=price) for number, price in enumerate(prices)])


@pytest.fixture
def path(tmp_path):
    return partition_of(a_candle()).path(tmp_path)


def version(path):
    return version_of(path, path.stat())


def test_the_same_rows_written_again_are_the_same_version_in_another_file(path):
    write_table(path, rows(1.0, 2.0))
    first = version(path)
    write_table(path, rows(1.0, 2.0))
    os.utime(path, ns=(1, 1))

    assert version(path) != first
    assert signature_in(version(path)) != signature_in(first)
    assert content_in(version(path)) == content_in(first) != signature_in(first)


def test_other_rows_are_another_version(path):
    write_table(path, rows(1.0, 2.0))
    first = version(path)
    write_table(path, rows(1.0, 3.0))

    assert content_in(version(path)) != content_in(first)
    assert signature_in(version(path)) != signature_in(first)


def test_a_file_that_does_not_say_its_content_is_known_by_its_signature(path, tmp_path):
    path.parent.mkdir(parents=True)
    pq.write_table(rows(1.0), path)
    copy = tmp_path / "copy.parquet"
    shutil.copy2(path, copy)

    assert content_in(version(path)) == signature_in(version(path))
    assert content_in(version(path)) != content_in(version(copy))  # its inode is another one


@pytest.mark.parametrize("content", [b"", b"torn"])
def test_a_damaged_file_has_a_version_too(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    assert content_in(version(path)) == signature_in(version(path))


def test_a_day_has_the_version_of_its_contents(tmp_path, path):
    write_table(path, rows(1.0))
    first = day_digest(tmp_path, "kline_1m", DAY_0)
    write_table(path, rows(1.0))

    assert day_digest(tmp_path, "kline_1m", DAY_0) == first == digest_of({"BTC_USDT": version(path)})
    write_table(path, rows(2.0))
    assert day_digest(tmp_path, "kline_1m", DAY_0) != first
