"""What cannot be is not published, and what cannot be read is named and stops nothing else."""

import os
import re
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from services.converter.convert import convert
from services.converter.features.fields import BarRecipe, as_float32
from services.converter.stages.calendar import NothingToConvertError
from services.converter.stages.checks import ValidationError
from shared.grid import DAY
from shared.storage.layout import Partition
from shared.storage.parquet import version_of
from shared.storage.versions import day_digest
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
    store,
)
from tests.support.conversions import a_ledger_row, rebuilt, some_minutes, started
from tests.support.provider import labels, tree, values

# --- what is refused to be published


@pytest.mark.invariant(8)
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"high": 1.0}, "high or low does not enclose"),
        ({"close": 1000.0}, "high or low does not enclose"),
        ({"open": 1.0}, "high or low does not enclose"),
        ({"volume": -1.0}, "volume: -1.0 at"),
        ({"amount": float("inf")}, "amount: inf at"),
        ({"close": 1e39, "high": 1e39}, r"1e\+39 at"),
        ({"low": 1e-46}, "low: 1e-46 at"),
        ({"close": float("nan")}, "close: nan at"),
    ],
)
def test_candles_that_cannot_be_stop_their_day_and_nothing_else(raw, qlib, tmp_path, changes, what):
    """Invariant 8: they are not published, and named; the other days of the symbol and all others are."""
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("ETH_USDT", range(4320)))
    convert(raw, qlib, until=minute(1440))
    store(raw, some_minutes("BTC_USDT", [*range(1440, 1500), *range(1501, 4320)]))
    file = Partition("kline_1m", DAY_0 + DAY, "BTC_USDT").path(raw)
    good = file.read_bytes()
    store(raw, [a_candle("BTC_USDT", minute(1500), **changes)])

    report = convert(raw, qlib, until=None)

    assert report.unreadable == ("BTC_USDT",)
    assert re.search(what, report.left["BTC_USDT"])
    assert len(values(qlib, "ETH_USDT", "close")) == 4320
    assert list(values(qlib, "BTC_USDT", "close")) == [minute(number) for number in (*range(1440), *range(2880, 4320))]
    assert report.digests["kline_1m/2025-04-06"] != day_digest(raw, "kline_1m", DAY_0 + DAY)  # so it is not retired

    file.write_bytes(good)  # as the writer mends it
    assert convert(raw, qlib, until=None).left == {}
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_of_many_bad_days_one_reason_is_given_and_how_many_there_are(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(5 * 1440)) + some_minutes("ETH_USDT", range(5 * 1440)))
    for day in (1, 3):
        Partition("kline_1m", DAY_0 + day * DAY, "BTC_USDT").path(raw).write_bytes(b"torn")

    report = convert(raw, qlib, until=None, recipe=BarRecipe(stock_fields=True))

    assert len(values(qlib, "BTC_USDT", "close")) == 3 * 1440
    assert "BTC_USDT_20250406.parquet" in report.left["BTC_USDT"]
    assert "; 2 days in all" in report.left["BTC_USDT"]
    assert report.left["BTC_USDT"] in report.left_sentence


@pytest.mark.invariant(8)
@pytest.mark.parametrize("kind", ["settled", "predicted"])
@pytest.mark.parametrize("rate", [1e39, -2.0, float("nan")])
def test_a_rate_that_cannot_be_stops_the_days_of_its_symbol_that_it_concerns_and_nothing_else(
    raw, qlib, tmp_path, kind, rate
):
    """Invariant 8: one file holds the rates of all symbols, and one odd rate must not keep the others out."""
    store(raw, [candle for name in ("BTC_USDT", "ETH_USDT") for candle in some_minutes(name, range(10 * 1440))])
    good, odd, reach = {
        "settled": (a_funding_rate("ETH_USDT", minute(1500)), a_funding_rate("BTC_USDT", minute(1500), rate), 8),
        "predicted": (a_prediction("ETH_USDT", 1e-4, minute(1500)), a_prediction("BTC_USDT", rate, minute(1500)), 2),
    }[kind]
    store(raw, [good])
    file = Partition(good.dataset, DAY_0 + DAY).path(raw)
    without = file.read_bytes()
    store(raw, [odd])

    report = convert(raw, qlib, until=None)

    assert report.unreadable == ("BTC_USDT",)
    assert f"{file}: funding_rate: " in report.left["BTC_USDT"]
    assert len(values(qlib, "ETH_USDT", "close")) == 10 * 1440
    assert len(values(qlib, "BTC_USDT", "close")) == (10 - reach) * 1440

    file.write_bytes(without)  # as the writer mends it
    os.utime(file.parent)
    assert convert(raw, qlib, until=None).left == {}
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


@pytest.mark.parametrize("volume", [1e-29, 1e29])
def test_what_float32_cannot_hold_is_nan_and_never_0_or_infinite(raw, qlib, volume):
    """Each column of the candle fits, what is made of them does not: amount / volume, a rate of 1e-46."""
    store(raw, some_minutes("BTC_USDT", range(1439)))
    store(raw, [a_candle("BTC_USDT", minute(1439), volume=volume, amount=1 / volume)])
    store(raw, [a_funding_rate(funding_time=minute(1439), rate=1e-46)])

    report = convert(raw, qlib, until=None)

    assert report.left == {}
    for field in ("vwap", "funding_paid"):
        assert minute(1438) in values(qlib, "BTC_USDT", field)
        assert minute(1439) not in values(qlib, "BTC_USDT", field)
    assert values(qlib, "BTC_USDT", "volume")[minute(1439)] == np.float32(volume)


@given(arrays(np.float64, 20))
def test_what_is_stored_is_the_value_to_float32s_precision_or_nan(computed):
    stored = as_float32(computed)

    kept = ~np.isnan(stored)
    assert np.isfinite(stored[kept]).all()
    assert (np.abs(stored[kept] - computed[kept]) <= np.abs(computed[kept]) * 2.0**-24).all()
    fits = (computed == 0) | ((np.abs(computed) > 1.2e-38) & (np.abs(computed) < 3.4e38))
    assert kept[fits].all()


@pytest.mark.invariant(7)
def test_a_candle_file_that_lacks_what_the_ledger_says_it_holds_is_not_published(raw, qlib):
    """Invariant 7."""
    store(raw, some_minutes("BTC_USDT", range(10)))
    file = Partition("kline_1m", DAY_0, "BTC_USDT").path(raw)
    store(raw, [a_ledger_row("BTC_USDT", received="0-9,12-13", version=version_of(file, file.stat()))])

    report = convert(raw, qlib, until=minute(1440))

    assert re.search(r"2025-04-05: .*: minutes 12-13 lack in the file, none in the", report.left["BTC_USDT"])
    assert values(qlib, "BTC_USDT", "close") == {}
    store(raw, [a_ledger_row("BTC_USDT", received="0-9,12-13", version="of another version")])
    convert(raw, qlib, until=minute(1440))


@pytest.mark.invariant(8)
def test_a_bin_that_is_not_what_was_written_is_not_published(raw, qlib, monkeypatch):
    """Invariant 8: read back before it is shown."""
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, content, at: pwrite(handle, content, at + 4))

    with pytest.raises(ValidationError, match="BTC_USDT"):
        convert(raw, qlib, until=None)

    assert len(labels(qlib, "1min")) == 1440


# --- damage


@pytest.mark.invariant(12)
@pytest.mark.parametrize("content", [b"", b"PAR1 torn", b"x" * 5000])
@pytest.mark.parametrize("until", [None, minute(2880)])
def test_a_damaged_file_stops_only_its_symbol_and_is_named(raw, qlib, tmp_path, content, until):
    """Invariant 12: bad input has an address and stops nobody else."""
    store(raw, some_minutes("BTC_USDT", range(2880)) + some_minutes("BAD_USDT", range(2880)))
    damaged = Partition("kline_1m", DAY_0 + timedelta(days=1), "BAD_USDT").path(raw)
    good = damaged.read_bytes()
    damaged.write_bytes(content)

    report = convert(raw, qlib, until=until)

    assert report.unreadable == ("BAD_USDT",)
    assert len(values(qlib, "BTC_USDT", "close")) == 2880
    assert "kline_1m/2025-04-06" not in report.digests or report.digests["kline_1m/2025-04-06"] != day_digest(
        raw, "kline_1m", DAY_0 + timedelta(days=1)
    )

    damaged.write_bytes(good)
    assert convert(raw, qlib, until=until).unreadable == ()
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", until)


def test_a_file_from_before_a_column_was_added_is_nan_there_and_whole_elsewhere(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440, 1450)))
    store(raw, some_minutes("BTC_USDT", range(1430, 1440)))
    old = Partition("kline_1m", DAY_0, "BTC_USDT").path(raw)
    pq.write_table(pq.ParquetFile(old).read().drop_columns(["amount"]).replace_schema_metadata(None), old)

    convert(raw, qlib, until=None)

    assert list(values(qlib, "BTC_USDT", "amount")) == [minute(number) for number in range(1440, 1450)]
    assert list(values(qlib, "BTC_USDT", "close")) == [minute(number) for number in range(1430, 1450)]


def test_nothing_to_convert_is_said(raw, qlib):
    with pytest.raises(NothingToConvertError, match=str(raw)):
        convert(raw, qlib, until=None)

    store(raw, some_minutes("BTC_USDT", range(10)))
    with pytest.raises(NothingToConvertError):
        convert(raw, qlib, until=MIDNIGHT)


def test_once_says_what_is_missing_and_ends_with_1(raw, qlib):
    process = started(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "no raw candle" in log
    assert "Traceback" not in log


def test_once_with_a_damaged_file_names_it_and_ends_with_1(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(10)) + some_minutes("BAD_USDT", range(10)))
    Partition("kline_1m", DAY_0, "BAD_USDT").path(raw).write_bytes(b"torn")

    process = started(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "BAD_USDT" in log
    assert "Traceback" not in log
    assert len(values(qlib, "BTC_USDT", "close")) == 10


def test_a_damaged_funding_file_is_named_and_the_days_that_it_concerns_stay_as_they_were(raw, qlib):
    store(raw, [*some_minutes("BTC_USDT", range(10)), a_funding_rate()])
    convert(raw, qlib, until=None)
    before = values(qlib, "BTC_USDT", "open"), values(qlib, "BTC_USDT", "funding_rate")
    path = Partition("funding", DAY_0).path(raw)
    path.write_bytes(b"torn")
    store(raw, some_minutes("BTC_USDT", range(10, 20)))

    process = started(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "funding_rates_20250405" in log
    assert "Traceback" not in log
    assert (values(qlib, "BTC_USDT", "open"), values(qlib, "BTC_USDT", "funding_rate")) == before


@pytest.mark.invariant(12)
@pytest.mark.parametrize(("dataset", "concerned"), [("universe", {1, 2}), ("ledger", {1})])
def test_a_damaged_file_of_all_symbols_stops_only_the_days_that_it_concerns(raw, qlib, tmp_path, dataset, concerned):
    """Invariant 12: the others are converted, the file is named, and once it is whole all is as from nothing."""
    store(raw, some_minutes("BTC_USDT", range(4 * 1440)))
    store(raw, [row for day in (0, 1, 2) for row in a_ranking("BTC_USDT", ranked_time=minute(day * 1440 + 60)).ranks])
    store(raw, [a_ledger_row("BTC_USDT", day) for day in range(4)])
    damaged = Partition(dataset, DAY_0 + timedelta(days=1)).path(raw)
    good = damaged.read_bytes()
    damaged.write_bytes(b"torn")

    for _ in range(2):
        process = started(raw, qlib)
        _, log = process.communicate()

        assert process.returncode == 1
        assert damaged.name in log
        assert "move it away" in log
        assert "Traceback" not in log
        days = {(at - MIDNIGHT).days for at in values(qlib, "BTC_USDT", "close")}
        assert days == {0, 1, 2, 3} - concerned

    damaged.write_bytes(good)
    assert convert(raw, qlib, until=None).is_whole
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


@pytest.mark.invariant(12)
@pytest.mark.parametrize("dataset", ["universe", "instruments"])
def test_what_was_read_of_a_file_before_it_was_damaged_counts_on_and_the_file_is_named(raw, qlib, dataset):
    """Invariant 12."""
    store(raw, some_minutes("BTC_USDT", range(1440)))
    store(raw, [a_definition(), *a_ranking("BTC_USDT", ranked_time=minute(60)).ranks])
    convert(raw, qlib, until=None)
    before = (qlib / "instruments" / "top50.txt").read_text()
    damaged = Partition(dataset, DAY_0).path(raw)
    damaged.write_bytes(b"torn")

    reports = [convert(raw, qlib, until=None, every_file=True) for _ in range(2)]

    for report in reports:
        assert damaged.name in report.left_sentence
        assert not report.is_whole
    assert (qlib / "instruments" / "top50.txt").read_text() == before != ""
