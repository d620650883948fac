"""Folders and files that are not what they are taken for cost nobody anything, and are not believed."""

import os
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.converter.convert import convert
from services.converter.settings import ConverterSettings
from services.converter.stages.calendar import NothingToConvertError
from services.converter.versions.versions import VersionError
from shared.grid import DAY
from shared.runtime.settings import read_settings
from shared.storage.layout import Partition, day_folder
from tests.support.builders import DAY_0, a_definition, minute, store
from tests.support.conversions import rebuilt, some_minutes
from tests.support.provider import labels, tree, values

pytestmark = pytest.mark.invariant(12)


@pytest.mark.parametrize("day", [date(2009, 1, 1), date(2023, 1, 1), date(2026, 1, 1), date(2099, 12, 30)])
def test_a_day_file_without_a_candle_moves_neither_end_of_the_dataset(raw, qlib, tmp_path, day):
    store(raw, some_minutes("BTC_USDT", range(2880)))
    expected = rebuilt(raw, tmp_path / "expected")
    Partition("kline_1m", day, "BTC_USDT").path(raw).parent.mkdir(parents=True)
    Partition("kline_1m", day, "BTC_USDT").path(raw).touch()

    convert(raw, qlib, until=None)
    assert labels(qlib, "1min") == labels(tmp_path / "expected", "1min")

    convert(raw, qlib, until=None, history=True)
    assert tree(qlib).keys() == expected.keys()
    assert labels(qlib, "1min") == labels(tmp_path / "expected", "1min")


def test_where_no_candle_can_be_read_nothing_is_converted(raw, qlib):
    Partition("kline_1m", DAY_0, "BTC_USDT").path(raw).parent.mkdir(parents=True)
    Partition("kline_1m", DAY_0, "BTC_USDT").path(raw).touch()

    with pytest.raises(NothingToConvertError, match="no raw candle"):
        convert(raw, qlib, until=None)
    with pytest.raises(NothingToConvertError, match="can be read"):
        convert(raw, qlib, until=minute(1440))


def test_a_folder_with_other_things_is_not_made_a_dataset(raw, qlib):
    """As a version it would be moved away, and deleted in the end."""
    store(raw, some_minutes("BTC_USDT", range(1440)))
    qlib.mkdir(parents=True)
    (qlib / "thesis.txt").write_text("years of work")

    with pytest.raises(VersionError, match=r"thesis\.txt"):
        convert(raw, qlib, until=None)

    assert (qlib / "thesis.txt").read_text() == "years of work"


def test_a_file_is_not_replaced_by_a_dataset(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    qlib.write_text("notes")

    with pytest.raises(VersionError, match="is a file"):
        convert(raw, qlib, until=None)

    assert qlib.read_text() == "notes"


def test_what_qlib_and_file_systems_put_into_a_dataset_is_no_obstacle(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    for name in ("features_cache", "lost+found", ".DS_Store"):
        (qlib / name).mkdir(parents=True)

    convert(raw, qlib, until=None)

    assert values(qlib, "BTC_USDT", "open")


@pytest.mark.parametrize(
    ("data", "qlib"),
    [
        ("data/raw", "data"),
        ("data", "data"),
        ("raw", "raw/kline_1m"),
        ("data.versions/raw", "data"),
        ("data/../data/raw", "./data"),
    ],
)
def test_raw_data_inside_the_dataset_or_the_reverse_stops_the_start(monkeypatch, capsys, data, qlib):
    monkeypatch.setenv("DATA_DIR", data)
    monkeypatch.setenv("QLIB_DIR", qlib)

    with pytest.raises(SystemExit):
        read_settings(ConverterSettings)

    assert "lie one inside the other" in capsys.readouterr().err


def test_a_dataset_beside_the_raw_datasets_is_fine(monkeypatch):
    monkeypatch.setenv("DATA_DIR", "data")
    monkeypatch.setenv("QLIB_DIR", "data/qlib_data")

    assert read_settings(ConverterSettings)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("contract_value", pa.scalar(float("nan"))),
        ("contract_value", pa.scalar(float("inf"))),
        ("contract_value", pa.scalar(-1.0)),
        ("list_time", pa.scalar(-99_999_999_999_999, pa.timestamp("ms", tz="UTC"))),
        ("list_time", pa.scalar(99_999_999_999_999, pa.timestamp("ms", tz="UTC"))),
        ("end_time", pa.scalar(-884_541_340_800_000, pa.timestamp("ms", tz="UTC"))),
    ],
)
def test_what_cannot_be_true_of_an_instrument_is_not_known_of_it(raw, qlib, column, value):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    store(raw, [a_definition(state="expired")])
    path = Partition("instruments", DAY_0).path(raw)
    table = pq.read_table(path, partitioning=None)
    place = table.schema.get_field_index(column)
    odd = pa.array([value.as_py()] if column == "contract_value" else [value.value], table.schema.field(column).type)
    pq.write_table(table.set_column(place, column, odd).replace_schema_metadata(None), path)

    for day in (1, 2):
        convert(raw, qlib, until=minute(1440 * day))
        store(raw, some_minutes("BTC_USDT", range(1440 * day, 1440 * (day + 1))))

    assert values(qlib, "BTC_USDT", "open")[minute(2000)]


@pytest.mark.parametrize("dataset", ["funding", "funding_predicted"])
def test_a_file_of_many_symbols_that_cannot_be_read_costs_the_days_that_it_concerns(raw, qlib, dataset):
    store(raw, some_minutes("BTC_USDT", range(3 * 1440)) + some_minutes("ETH_USDT", range(3 * 1440)))
    broken = Partition(dataset, DAY_0 + DAY * 2).path(raw)
    broken.parent.mkdir(parents=True)
    broken.touch()

    report = convert(raw, qlib, until=None)

    assert values(qlib, "BTC_USDT", "open")[minute(2000)]
    assert str(broken) in report.left_sentence
    assert minute(3000) not in values(qlib, "BTC_USDT", "open")
    broken.unlink()
    day_folder(raw, dataset, DAY_0 + DAY * 2).rmdir()
    assert not convert(raw, qlib, until=None).left
    assert values(qlib, "BTC_USDT", "open")[minute(3000)]


def _random(path):
    path.write_bytes(b"\xff\xfe\x80" * 50)


def _zeros(path):
    path.write_bytes(bytes(20_000))


def _folder(path):
    path.unlink()
    path.mkdir()


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("frequency", ["1min", "day"])
@pytest.mark.parametrize(
    "damage", [_random, _zeros, _folder, _fifo, lambda path: path.write_text("2025-04-04 00:00:00\n")]
)
def test_a_calendar_that_makes_no_sense_is_named_and_made_again_once_it_is_deleted(raw, qlib, damage, frequency):
    store(raw, some_minutes("BTC_USDT", range(2880)))
    convert(raw, qlib, until=None)
    expected = tree(qlib)
    path = qlib / "calendars" / f"{frequency}.txt"
    damage(path)

    with pytest.raises(ValueError, match=rf"{frequency}\.txt: .*; delete it"):
        convert(raw, qlib, until=None)

    path.rmdir() if path.is_dir() else path.unlink()
    assert convert(raw, qlib, until=None).is_whole
    assert tree(qlib) == expected


@pytest.mark.parametrize("damage", [_random, _fifo])
def test_instruments_that_cannot_be_read_are_written_again(raw, qlib, damage):
    store(raw, some_minutes("kPEPE_USDT", range(1440)))
    convert(raw, qlib, until=None)
    expected = tree(qlib)
    damage(qlib / "instruments" / "all.txt")
    (qlib / ".converter" / "manifest.json").unlink()
    store(raw, some_minutes("kPEPE_USDT", range(1440, 1450)))

    convert(raw, qlib, until=minute(1440))

    assert tree(qlib) == expected


def test_a_folder_in_the_place_of_instruments_is_named_before_anything_is_shown(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    _folder(qlib / "instruments" / "all.txt")
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))

    with pytest.raises(OSError, match=r"all\.txt is a folder, .*: remove it"):
        convert(raw, qlib, until=None)

    assert len(labels(qlib, "1min")) == 1440


@pytest.mark.parametrize("row", ["btc_usdt", "eth_USDT"])
def test_a_name_that_somebody_wrote_into_the_instruments_shuts_no_symbol_out(raw, qlib, row):
    """Neither one with bins, nor a new one."""
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    (qlib / "instruments" / "all.txt").write_text(f"{row}\t2025-04-05\t2025-04-06\n")
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)) + some_minutes("ETH_USDT", range(1440, 2880)))

    assert convert(raw, qlib, until=None).is_whole

    names = [line.split("\t")[0] for line in (qlib / "instruments" / "all.txt").read_text().splitlines()]
    assert names == ["BTC_USDT", "ETH_USDT"]
