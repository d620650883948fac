"""A bin that is damaged stops no other symbol, and costs no value that is still there."""

import os
import shutil
import struct
from datetime import timedelta
from pathlib import Path

import pytest

from services.converter.convert import convert
from services.converter.qlib.bins import DamagedBinError, read_extent
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.qlib.store import QlibStore
from services.converter.versions.snapshots import take_snapshot
from shared.grid import DAY
from shared.storage.layout import Partition, day_folder
from tests.support.builders import DAY_0, minute, store
from tests.support.conversions import rebuilt, some_minutes
from tests.support.provider import tree, values

pytestmark = pytest.mark.invariant(12)

NAMES = ("BTC_USDT", "ETH_USDT")


def _head(value):
    return lambda path: path.write_bytes(struct.pack("<f", value) + path.read_bytes()[4:])


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


def _loop(path):
    path.unlink()
    path.symlink_to(path.name)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut inside of a value": lambda path: os.truncate(path, 7),
    "cut behind the head": lambda path: os.truncate(path, 4),
    "cut behind some values": lambda path: os.truncate(path, 400),
    "gone": Path.unlink,
    "infinite head": _head(float("inf")),
    "NaN head": _head(float("nan")),
    "head -1": _head(-1.0),
    "head 0.5": _head(0.5),
    "head 5": _head(5.0),
    "head 3e8": _head(3e8),
    "head 3e38": _head(3e38),
    "FIFO": _fifo,
    "link to itself": _loop,
}


def _days(raw, first, count):
    for name in NAMES:
        store(raw, some_minutes(name, range(first * 1440, (first + count) * 1440)))


def _retire(raw, day):
    shutil.rmtree(day_folder(raw, "kline_1m", DAY_0 + day * DAY))


@pytest.mark.parametrize(
    ("name", "damage"),
    [*(("close.1min", damage) for damage in DAMAGES.values()), ("volume.60min", DAMAGES["head 3e8"])],
    ids=[*DAMAGES, "volume head 3e8"],
)
def test_a_damaged_bin_is_computed_from_the_raw_days(raw, qlib, tmp_path, damage, name):
    _days(raw, 0, 2)
    convert(raw, qlib, until=None)
    damage(qlib / "features" / "eth_usdt" / f"{name}.bin")
    _days(raw, 2, 1)

    assert convert(raw, qlib, until=None).is_whole

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_damaged_bin_of_a_symbol_of_which_nothing_is_new_is_found(raw, qlib, tmp_path):
    _days(raw, 0, 1)
    convert(raw, qlib, until=None)
    (qlib / "features" / "eth_usdt" / "low.5min.bin").write_bytes(b"")

    assert convert(raw, qlib, until=None).is_whole

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["empty", "gone", "head 5", "cut behind some values"])
def test_bars_that_no_raw_day_has_are_not_given_up_for_a_damaged_bin(raw, qlib, damage):
    """They are in the other bins alone: the symbol is left, by name, and the others go on."""
    _days(raw, 0, 2)
    convert(raw, qlib, until=None)
    _retire(raw, 0)
    damaged = qlib / "features" / "eth_usdt" / "close.1min.bin"
    DAMAGES[damage](damaged)
    before = values(qlib, "ETH_USDT", "open")
    _days(raw, 2, 1)

    for rebuild in (False, True):
        report = convert(raw, qlib, until=None, rebuild=rebuild)

        assert report.unreadable == ("ETH_USDT",)
        assert "close.1min.bin" in report.left["ETH_USDT"]
        assert "--rebuild" in report.left["ETH_USDT"]
        assert values(qlib, "ETH_USDT", "open") == before
        assert len(values(qlib, "BTC_USDT", "close")) == 3 * 1440

    shutil.rmtree(qlib / "features" / "eth_usdt")  # as the sentence says
    assert convert(raw, qlib, until=None, rebuild=True).is_whole
    assert len(values(qlib, "ETH_USDT", "close")) == 2 * 1440


def test_a_damaged_bin_of_a_symbol_without_any_raw_day_is_named(raw, qlib):
    _days(raw, 0, 1)
    convert(raw, qlib, until=None)
    Partition("kline_1m", DAY_0, "ETH_USDT").path(raw).unlink()
    (qlib / "features" / "eth_usdt" / "close.1min.bin").write_bytes(b"")

    report = convert(raw, qlib, until=None)

    assert "close.1min.bin" in report.left["ETH_USDT"]
    assert "ETH_USDT" in (qlib / "instruments" / "all.txt").read_text()


def test_a_day_that_cannot_be_read_is_not_given_up_for_a_damaged_bin(raw, qlib):
    _days(raw, 0, 2)
    convert(raw, qlib, until=None)
    Partition("kline_1m", DAY_0, "ETH_USDT").path(raw).write_bytes(b"torn")
    (qlib / "features" / "eth_usdt" / "close.1min.bin").write_bytes(b"")
    before = values(qlib, "ETH_USDT", "open")

    assert "close.1min.bin" in convert(raw, qlib, until=None).left["ETH_USDT"]
    assert values(qlib, "ETH_USDT", "open") == before


@pytest.mark.parametrize("what", ["a folder for a bin", "a file for the folder"])
def test_what_stands_where_bins_belong_is_named_and_stops_no_other_symbol(raw, qlib, tmp_path, what):
    _days(raw, 0, 1)
    convert(raw, qlib, until=None)
    features = qlib / "features" / "eth_usdt"
    obstacle = features if what == "a file for the folder" else features / "close.1min.bin"
    if obstacle == features:
        shutil.rmtree(features)
        features.touch()
    else:
        obstacle.unlink()
        obstacle.mkdir()
    _days(raw, 1, 1)

    report = convert(raw, qlib, until=None)

    assert f"{obstacle.name}: is " in report.left["ETH_USDT"]
    assert "remove it" in report.left["ETH_USDT"]
    assert len(values(qlib, "BTC_USDT", "close")) == 2 * 1440
    obstacle.unlink() if obstacle == features else obstacle.rmdir()
    assert convert(raw, qlib, until=None).is_whole
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_calendar_that_is_gone_or_short_is_made_from_the_others(raw, qlib):
    _days(raw, 0, 3)
    convert(raw, qlib, until=None)
    expected = tree(qlib)
    _retire(raw, 0)
    (qlib / "calendars" / "day.txt").unlink()
    os.truncate(qlib / "calendars" / "1min.txt", 20_000)
    convert(raw, qlib, until=None)
    assert tree(qlib) == expected

    (qlib / "calendars" / "1min.txt").unlink()
    assert convert(raw, qlib, until=None).is_whole
    assert tree(qlib) == expected


def test_what_a_run_left_behind_the_calendar_is_no_damage(raw, qlib, tmp_path, monkeypatch):
    """Of a run that died some bins have more bars than others; a run up to an earlier instant may come next."""
    _days(raw, 0, 2)
    convert(raw, qlib, until=minute(1440))
    _retire(raw, 0)
    written = []

    def dies(store, *rest, **named):
        written.append(rest)
        if len(written) == 20:
            raise OSError("the disk is gone")
        return write(store, *rest, **named)

    write = QlibStore.write
    monkeypatch.setattr(QlibStore, "write", dies)
    with pytest.raises(OSError, match="the disk is gone"):
        convert(raw, qlib, until=None)
    monkeypatch.undo()

    convert(raw, qlib, until=minute(1440))
    assert convert(raw, qlib, until=minute(1500)).is_whole
    assert convert(raw, qlib, until=None).is_whole

    assert len(values(qlib, "BTC_USDT", "close")) == len(values(qlib, "ETH_USDT", "close")) == 2 * 1440
    for frequency in FREQUENCIES:
        for name in NAMES:
            assert len(set(QlibStore(qlib).extents(name)[frequency.name].values())) == 1


def test_a_snapshot_of_damaged_bins_is_refused_by_name(raw, qlib):
    _days(raw, 0, 1)
    convert(raw, qlib, until=None)
    _fifo(qlib / "features" / "eth_usdt" / "close.1min.bin")

    with pytest.raises(DamagedBinError, match=r"close\.1min\.bin: is no regular file"):
        take_snapshot(qlib, "paper", created=minute(0) + timedelta(days=1))


def test_the_extent_of_a_bin_is_read_with_its_reasons(tmp_path):
    path = tmp_path / "close.day.bin"
    assert read_extent(path) is None
    path.write_bytes(struct.pack("<3f", 2.0, 1.0, 1.0))
    assert read_extent(path) == (2, 4)
    path.write_bytes(b"")
    with pytest.raises(DamagedBinError, match=r"close\.day\.bin: 0 bytes"):
        read_extent(path)
