"""Candles of a day that has not begun, as of a host whose clock was wrong, do not become the end of the dataset."""

import shutil
from datetime import UTC, date, datetime

import pytest

from services.converter.convert import convert
from services.converter.late import late_days
from services.converter.raw.files import DayFiles, RawFiles, until_latest
from services.converter.stages.calendar import NothingToConvertError
from shared.grid import DAY, day_start
from shared.storage.layout import Partition, day_folder
from shared.storage.segments import RawRows
from tests.support.builders import DAY_0, a_candle, minute, store
from tests.support.conversions import rebuilt, some_minutes, started
from tests.support.provider import labels, tree, values

LATE = 2100
"""Days after the first one: 2031."""
LATEST = minute(2 * 1440)


def _one_day(raw):
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("ETH_USDT", range(1440)))


def _later(raw):
    store(raw, [a_candle("ETH_USDT", minute(LATE * 1440 + number)) for number in range(3)])
    return Partition("kline_1m", DAY_0 + LATE * DAY, "ETH_USDT").path(raw)


def test_days_that_begin_after_an_instant_are_left_out_and_their_files_named(raw):
    """The day of the instant itself is not."""
    files = DayFiles({"ETH_USDT": "1", "BTC_USDT": "1"})
    days = {"kline_1m": {DAY_0: files, DAY_0 + DAY: files}, "ledger": {DAY_0 + DAY: DayFiles({"": "1"})}}
    listing = RawFiles(raw, days, RawRows(raw))

    kept, later = until_latest(listing, day_start(DAY_0 + DAY))
    assert (kept, later) == (listing, [])

    kept, later = until_latest(listing, minute(1439))
    assert kept.datasets == {"kline_1m": {DAY_0: files}, "ledger": {}}
    assert [(file.dataset, file.day, file.symbol) for file in later] == [
        ("kline_1m", DAY_0 + DAY, "BTC_USDT"),
        ("kline_1m", DAY_0 + DAY, "ETH_USDT"),
        ("ledger", DAY_0 + DAY, None),
    ]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("until", [None, minute(1440), minute(LATE * 1440)])
def test_a_file_of_a_day_that_has_not_begun_is_left_out_by_name(raw, qlib, tmp_path, until):
    _one_day(raw)
    expected = rebuilt(raw, tmp_path / "expected", LATEST if until and until > LATEST else None)
    file = _later(raw)

    report = convert(raw, qlib, until=until, latest=LATEST)

    assert tree(qlib) == expected
    assert str(file) in report.left_sentence
    assert not report.is_whole
    assert f"kline_1m/{DAY_0 + LATE * DAY}" not in report.digests
    assert late_days(raw, qlib, latest=LATEST).patches == 0


def test_candles_of_this_day_that_are_later_than_now_make_no_bar(raw, qlib):
    store(raw, some_minutes("BTC_USDT", [*range(700), 1439]))

    convert(raw, qlib, until=None, latest=minute(720))

    assert len(labels(qlib, "1min")) == 720


def test_where_only_later_days_are_nothing_is_converted(raw, qlib):
    _later(raw)

    with pytest.raises(NothingToConvertError, match="no raw candle"):
        convert(raw, qlib, until=None, latest=LATEST)


@pytest.mark.parametrize("is_still_there", [False, True])
def test_a_calendar_that_goes_beyond_now_is_named_and_a_rebuild_makes_it_end_with_the_data(
    raw, qlib, tmp_path, is_still_there
):
    _one_day(raw)
    expected = rebuilt(raw, tmp_path / "expected")
    file = _later(raw)
    convert(raw, qlib, until=None)
    if not is_still_there:
        shutil.rmtree(file.parent)

    report = convert(raw, qlib, until=None, latest=LATEST)
    assert "--rebuild" in report.left_sentence
    assert labels(qlib, "day")[-1] == minute((LATE - 1) * 1440)

    report = convert(raw, qlib, until=None, latest=LATEST, rebuild=True)
    assert report.is_whole is not is_still_there
    assert tree(qlib) == expected


def test_a_rebuild_that_shortens_the_calendar_keeps_bars_without_raw_days(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(2880)) + some_minutes("OLD_USDT", range(100, 200)))
    convert(raw, qlib, until=None)
    shutil.rmtree(_later(raw).parent.parent / f"date={DAY_0}")
    convert(raw, qlib, until=None)
    before = {name: values(qlib, name, "close") for name in ("BTC_USDT", "OLD_USDT")}
    shutil.rmtree(day_folder(raw, "kline_1m", DAY_0 + DAY))  # the last day is in the bins alone

    convert(raw, qlib, until=None, latest=minute(5 * 1440), rebuild=True)

    assert labels(qlib, "1min")[-1] == minute(2879)
    assert {name: values(qlib, name, "close") for name in before} == before
    assert "ETH_USDT" not in (qlib / "instruments" / "all.txt").read_text()


def test_once_leaves_a_later_file_out_by_name_and_ends_with_1(raw, qlib):
    _one_day(raw)
    day = date(datetime.now(UTC).year + 5, 1, 1)
    store(raw, [a_candle("ETH_USDT", day_start(day))])

    process = started(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert Partition("kline_1m", day, "ETH_USDT").path(raw).name in log
    assert labels(qlib, "1min")[-1] == minute(1439)
