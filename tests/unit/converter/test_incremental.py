"""Whatever the order in which the data arrived: converting what changed is a rebuild, and costs what changed."""

import os
import re
import shutil
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.convert import convert
from services.converter.features.fields import FIELDS, BarRecipe
from services.converter.late import late_days
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.stages.calendar import NothingToConvertError
from services.converter.versions.changing import changing
from services.converter.versions.snapshots import take_snapshot
from services.converter.versions.versions import VersionError, head_folder
from shared.grid import DAY
from shared.storage.layout import day_folder
from shared.storage.versions import day_digest
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_ranking,
    minute,
    store,
)
from tests.support.conversions import a_ledger_row, rebuilt, rows_of_step, some_minutes, started
from tests.support.dying import WRITING, die_at
from tests.support.provider import labels, tree, values

# --- incremental equals rebuild

SYMBOLS = ("AAA_USDT", "BBB_USDT")
STEPS = st.one_of(
    st.tuples(
        st.just("candles"),
        st.sampled_from(SYMBOLS),
        st.integers(0, 5 * 1440 - 1),
        st.integers(1, 300),
        st.integers(1, 9),
    ),
    st.tuples(st.just("funding"), st.sampled_from(SYMBOLS), st.integers(-48, 119), st.integers(1, 9)),
    st.tuples(st.just("ranking"), st.sampled_from(SYMBOLS), st.integers(0, 119)),
    st.tuples(st.just("prediction"), st.sampled_from(SYMBOLS), st.integers(0, 5 * 1440), st.integers(0, 9)),
    st.tuples(
        st.just("definition"),
        st.sampled_from(SYMBOLS),
        st.integers(-1440, 5 * 1440),
        st.sampled_from(["live", "rebase", "expired", "preopen"]),
        st.none() | st.integers(-1440, 5 * 1440),
        st.sampled_from([None, 0.1, 1.0]),
    ),
    st.tuples(
        st.just("ledger"), st.sampled_from(SYMBOLS), st.integers(0, 4), st.integers(0, 1439), st.integers(0, 1439)
    ),
    st.tuples(st.just("convert"), st.integers(1, 6 * 1440)),
    st.just(("convert", None)),
    st.just(("rebuild",)),
    st.just(("history",)),
    st.tuples(st.just("retire"), st.integers(1, 4)),
)


def _rows_of(step, known):
    """Return the rows that a step brings; `known` grows from step to step, so that later ones correct earlier ones."""
    if rows := rows_of_step(step, known):
        return rows
    if step[0] in {"ledger", "definition"}:
        return [_row_of(step)]
    ranked = (
        a_ranking(step[1], ranked_time=minute(step[2] * 60) + timedelta(milliseconds=known))
        if step[0] == "ranking"
        else None
    )
    return ranked.ranks if ranked else []


def _row_of(step):
    if step[0] == "ledger":
        _, symbol, day, first, last = step
        return a_ledger_row(symbol, day, absent=f"{min(first, last)}-{max(first, last)}")
    _, symbol, number, state, listed, value = step
    begin = None if listed is None else minute(listed)
    return a_definition(symbol, minute(number), state, list_time=begin, contract_value=value)


@pytest.mark.invariant(2)
@pytest.mark.invariant(8)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=2, max_size=10))
def test_whatever_the_history_the_result_is_that_of_a_rebuild(tmp_path_factory, steps):
    """Invariants 2 and 8: new days, late rows, corrections, late funding, earlier history, retired days.

    `raw` is what the converter works on; `archive` never loses a day and is converted once, at the end.
    """
    folder = tmp_path_factory.mktemp("history")
    raw, archive, qlib = (folder / name for name in ("raw", "archive", "qlib"))
    kept_from = 0
    for known, step in enumerate(steps, start=10_000):
        if step[0] == "convert":
            with suppress(NothingToConvertError):
                convert(raw, qlib, until=minute(step[1]) if step[1] else None)
        elif step[0] == "history":
            with suppress(NothingToConvertError):
                convert(raw, qlib, until=None, history=True)
        elif step[0] == "rebuild" or (step[0] == "retire" and not (raw / "kline_1m").exists()):
            with suppress(NothingToConvertError):
                convert(raw, qlib, until=None, rebuild=True)
        elif step[0] == "retire":
            report = convert(raw, qlib, until=None, rebuild=True)  # what is retired is in Qlib, whole
            kept_from = max(kept_from, min(step[1], (report.until - minute(0)) // timedelta(days=1)))
            for day in range(kept_from):
                shutil.rmtree(day_folder(raw, "kline_1m", DAY_0 + timedelta(days=day)), ignore_errors=True)
        rows = [
            row for row in _rows_of(step, known) if not kept_from or getattr(row, row.time) >= minute(kept_from * 1440)
        ]
        if kept_from and step[0] == "definition":
            continue  # it may say what an instrument was on a day that is gone
        store(raw, rows)
        store(archive, rows)
    if not (archive / "kline_1m").exists():
        return

    report = convert(raw, qlib, until=None, history=True)

    assert report.left_out == 0
    assert tree(qlib) == rebuilt(archive, folder / "fresh", report.until)


def test_converting_twice_changes_nothing(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(2000)))
    convert(raw, qlib, until=None)
    before = tree(qlib)

    convert(raw, qlib, until=None)
    convert(raw, qlib, until=minute(1440))  # what is visible stays visible

    assert tree(qlib) == before


def test_rows_that_came_late_are_patched_at_their_place(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", [*range(100), *range(200, 1440)]))
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)

    store(raw, some_minutes("BTC_USDT", range(100, 200), price=7.0))
    convert(raw, qlib, until=None)

    assert values(qlib, "BTC_USDT", "open")[minute(150)] == 7.0 + 150 % 97
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_day_is_computed_again_when_it_is_learnt_late_whose_candles_they_are(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", range(4320)))
    store(raw, [a_definition(known_time=minute(-10))])
    convert(raw, qlib, until=None)

    store(raw, [a_definition(known_time=minute(4000), list_time=minute(1500))])
    report = convert(raw, qlib, until=None)

    lives = values(qlib, "BTC_USDT", "life")
    assert (lives[minute(1499)], lives[minute(1500)]) == (1.0, 2.0)
    assert report.days == 2
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_day_that_is_learnt_late_to_be_another_instruments_is_late(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(4320)))
    store(raw, [a_definition(known_time=minute(-10))])
    convert(raw, qlib, until=minute(4320))
    assert late_days(raw, qlib).patches == 0

    store(raw, [a_definition(known_time=minute(4000), list_time=minute(1500))])

    assert late_days(raw, qlib).patches == 2


def test_what_was_said_of_instruments_counts_on_where_its_file_is_damaged(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    store(raw, [a_definition()])
    convert(raw, qlib, until=None)
    (file,) = (raw / "instruments").glob("date=*/*.parquet")
    file.write_bytes(b"no Parquet")
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))

    convert(raw, qlib, until=None)

    assert values(qlib, "BTC_USDT", "life")[minute(2000)] == 1.0


@pytest.mark.parametrize("gone", ["file", "row"])
@pytest.mark.parametrize("how", [{}, {"history": True}, {"rebuild": True}])
def test_rankings_and_definitions_that_were_in_qlib_stay_when_their_files_are_gone(raw, qlib, gone, how):
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    store(raw, [a_definition(known_time=minute(1450))])
    rankings = [a_ranking("BTC_USDT", ranked_time=minute(1500)), a_ranking("ETH_USDT", ranked_time=minute(2000))]
    store(raw, [place for ranking in rankings for place in ranking.ranks])
    convert(raw, qlib, until=None)
    before = (qlib / "instruments" / "top50.txt").read_text()
    for dataset in ("universe", "instruments"):
        shutil.rmtree(raw / dataset)
    if gone == "row":
        store(raw, rankings[1].ranks)
    store(raw, some_minutes("BTC_USDT", range(100)))  # before the calendar's first day

    convert(raw, qlib, until=None, **how)

    assert (qlib / "instruments" / "top50.txt").read_text() == before
    assert before.count("\n") == 2
    assert values(qlib, "BTC_USDT", "life")[minute(2879)] == 1.0


def test_days_that_changed_since_they_were_converted_are_late(raw, qlib):
    assert late_days(raw, qlib) is None
    store(raw, some_minutes("BTC_USDT", range(2880)))
    convert(raw, qlib, until=MIDNIGHT + DAY)
    assert late_days(raw, qlib)[:3] == (MIDNIGHT + DAY, 0, 0)  # the second day is not in Qlib yet, so not late

    store(raw, [a_candle("BTC_USDT", minute(5), 7.0, receive_time=minute(9999)), a_candle("ETH_USDT", minute(5))])

    assert late_days(raw, qlib)[:3] == (MIDNIGHT + DAY, 2, 0)
    convert(raw, qlib, until=MIDNIGHT + DAY)
    assert late_days(raw, qlib)[:3] == (MIDNIGHT + DAY, 0, 0)
    assert values(qlib, "BTC_USDT", "open")[minute(5)] == 7.0


def test_funding_that_came_late_reaches_every_bar_it_concerns(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", range(3 * 1440)))
    convert(raw, qlib, until=None)

    store(raw, [a_funding_rate(funding_time=minute(480), rate=0.125)])
    convert(raw, qlib, until=None)

    assert len(values(qlib, "BTC_USDT", "funding_rate")) == 3 * 1440 - 480
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_symbol_whose_history_is_taken_in_later_starts_earlier(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", range(3 * 1440)) + some_minutes("ETH_USDT", range(2 * 1440, 3 * 1440)))
    convert(raw, qlib, until=None)

    store(raw, some_minutes("ETH_USDT", range(700, 2 * 1440)))
    convert(raw, qlib, until=None)

    assert min(values(qlib, "ETH_USDT", "close")) == minute(700)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


# --- the origin


@pytest.mark.parametrize("how", [{"rebuild": True}, {"history": True}])
def test_history_before_the_origin_is_left_out_and_reported_until_it_is_to_be_taken_in(raw, qlib, tmp_path, how):
    store(raw, some_minutes("BTC_USDT", range(2 * 1440, 3 * 1440)))
    convert(raw, qlib, until=None)
    before = tree(qlib)
    store(raw, some_minutes("BTC_USDT", range(100, 2 * 1440)))

    counts = [convert(raw, qlib, until=None).left_out for _ in range(3)]

    assert counts == [2, 2, 2]
    assert tree(qlib) == before
    assert late_days(raw, qlib).before == 2
    assert convert(raw, qlib, until=None, **how).left_out == 0
    assert late_days(raw, qlib)[:3] == (minute(3 * 1440), 0, 0)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")
    assert min(values(qlib, "BTC_USDT", "close")) == minute(100)


@pytest.mark.invariant(9)
@pytest.mark.parametrize("stock_fields", [False, True])
def test_taking_in_history_reads_the_history_alone_and_is_a_rebuild(raw, qlib, tmp_path, stock_fields):
    """Invariant 9: what is in Qlib already is copied, not computed again; though the first bar of it looks back."""
    recipe = BarRecipe(stock_fields=stock_fields)
    store(
        raw, some_minutes("BTC_USDT", range(3 * 1440, 9 * 1440)) + some_minutes("ETH_USDT", range(8 * 1440, 9 * 1440))
    )
    store(raw, [a_funding_rate(funding_time=minute(480)), a_funding_rate(funding_time=minute(3 * 1440 + 5))])
    convert(raw, qlib, until=None, recipe=recipe)
    store(raw, some_minutes("BTC_USDT", range(3 * 1440)) + some_minutes("OLD_USDT", range(100, 1440)))

    report = convert(raw, qlib, until=None, recipe=recipe, history=True)

    assert report.days == 4 + stock_fields
    convert(raw, tmp_path / "fresh", until=None, recipe=recipe)
    assert tree(qlib) == tree(tmp_path / "fresh")


@pytest.mark.invariant(11)
def test_however_often_history_comes_two_versions_are_kept_and_the_old_one_is_readable(raw, qlib):
    """Invariant 11: bounded, and a reader that began before still reads."""
    store(raw, some_minutes("BTC_USDT", range(5 * 1440, 6 * 1440)))
    convert(raw, qlib, until=None)
    for day in (4, 3, 2, 1):
        reader, before = qlib.resolve(), tree(qlib)
        store(raw, some_minutes("BTC_USDT", range(day * 1440, (day + 1) * 1440)))
        convert(raw, qlib, until=None, history=True)
        assert tree(reader) == before

    assert {path.name for path in head_folder(qlib).parent.glob("v*")} == {"v0004", "v0005"}
    assert len(values(qlib, "BTC_USDT", "close")) == 5 * 1440


def test_where_there_is_no_room_for_a_version_history_stays_out_with_the_reason_and_new_days_do_not(
    raw, qlib, monkeypatch
):
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", [*range(1440), *range(2880, 4320)]))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    report = convert(raw, qlib, until=None, history=True)

    assert report.left_out == 1
    assert re.fullmatch(r"a new version needs \d+\.\d GB .*, free are 0\.0: make room, .*", report.why_left_out)
    assert len(values(qlib, "BTC_USDT", "close")) == 2 * 1440
    assert qlib.resolve().name == "v0001"
    with pytest.raises(VersionError, match="make room"):
        convert(raw, qlib, until=None, rebuild=True)


def refusing(*_, **__):
    raise PermissionError(1, "refused")


@pytest.mark.parametrize("call", [(os, "symlink"), (shutil, "copytree")])
def test_where_a_version_cannot_be_made_history_stays_out_with_the_reason_and_new_days_do_not(
    raw, qlib, monkeypatch, call
):
    """A file system without symlinks, and one that refuses in the middle of the copy."""
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    head = head_folder(qlib)
    qlib.unlink()
    head.rename(qlib)  # as an older installation has it
    shutil.rmtree(head.parent)
    store(raw, some_minutes("BTC_USDT", [*range(1440), *range(2880, 4320)]))
    with monkeypatch.context() as patched:
        patched.setattr(*call, refusing)
        report = convert(raw, qlib, until=None, history=True)

    assert report.left_out == 1
    assert "refused" in report.why_left_out
    assert len(values(qlib, "BTC_USDT", "close")) == 2 * 1440
    assert convert(raw, qlib, until=None, history=True).left_out == 0
    assert len(values(qlib, "BTC_USDT", "close")) == 3 * 1440


def test_once_takes_in_what_came_before_the_first_day(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440)))

    process = started(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 0, log
    assert len(values(qlib, "BTC_USDT", "close")) == 2880


@pytest.mark.invariant(8)
def test_a_rebuild_that_moves_the_origin_makes_a_version_and_disturbs_nobody_who_reads(
    raw, qlib, tmp_path, monkeypatch
):
    """Invariant 8: until it is whole nobody sees it, also where it dies before."""
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    reader, before = qlib.resolve(), tree(qlib)
    store(raw, some_minutes("BTC_USDT", range(1440)))
    die_at(monkeypatch, WRITING, 60, partial(convert, raw, qlib, until=None, rebuild=True))
    assert tree(qlib) == before

    convert(raw, qlib, until=None, rebuild=True)

    assert tree(reader) == before
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")
    assert qlib.resolve().name == "v0002"


def test_while_a_snapshot_is_pinned_the_conversion_goes_on_with_the_head(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    take_snapshot(qlib, "paper", created=MIDNIGHT)
    with changing(qlib) as versions:
        versions.pin("paper")
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))

    convert(raw, qlib, until=None)

    assert late_days(raw, qlib)[:3] == (minute(2880), 0, 0)
    assert len(labels(qlib, "1min")) == 1440
    assert len(labels(head_folder(qlib), "1min")) == 2880


@pytest.mark.invariant(11)
def test_a_day_that_was_left_out_is_not_reported_as_converted(raw, qlib):
    """Invariant 11: the retention deletes what is reported here, so a day that is not in Qlib must not be."""
    store(raw, some_minutes("BTC_USDT", range(2 * 1440, 3 * 1440)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440)))

    report = convert(raw, qlib, until=None)

    assert set(report.digests) == {"kline_1m/2025-04-07"}


# --- retired days


@pytest.mark.invariant(11)
def test_retired_days_keep_their_values_also_on_a_rebuild(raw, qlib):
    """Invariant 11: Qlib keeps its full history when raw days are deleted."""
    store(raw, [*some_minutes("BTC_USDT", range(3 * 1440)), a_funding_rate(rate=0.5)])
    convert(raw, qlib, until=None)
    before = tree(qlib)
    for day in range(2):
        shutil.rmtree(day_folder(raw, "kline_1m", DAY_0 + timedelta(days=day)))

    convert(raw, qlib, until=None)
    assert tree(qlib) == before

    convert(raw, qlib, until=None, rebuild=True)
    assert tree(qlib) == before


@pytest.mark.invariant(11)
def test_only_a_whole_day_is_reported_as_converted_and_as_it_stands(raw, qlib):
    """Invariant 11."""
    store(raw, some_minutes("BTC_USDT", range(2000)))

    report = convert(raw, qlib, until=None)

    assert report.digests == {"kline_1m/2025-04-05": day_digest(raw, "kline_1m", DAY_0)}
    store(raw, some_minutes("ETH_USDT", range(5)))
    assert report.digests["kline_1m/2025-04-05"] != day_digest(raw, "kline_1m", DAY_0)


# --- cost


@pytest.mark.invariant(9)
def test_one_more_day_costs_the_same_on_any_history(tmp_path, monkeypatch):
    """Invariant 9: counted in bytes written into bins, not in seconds; and every bin stays the file that it was."""
    written = {}
    for days in (2, 25):
        raw, qlib = tmp_path / f"raw{days}", tmp_path / f"qlib{days}"
        store(raw, some_minutes("BTC_USDT", range(0, days * 1440, 7)))
        convert(raw, qlib, until=None)
        inodes = {path: path.stat().st_ino for path in (qlib / "features").rglob("*.bin")}
        store(raw, some_minutes("BTC_USDT", range(days * 1440, (days + 1) * 1440)))

        with monkeypatch.context() as counting:
            calls = _sizes_written(counting)
            report = convert(raw, qlib, until=None)

        assert report.days <= 2  # the new one, and the one before where it was not whole
        assert {path: path.stat().st_ino for path in inodes} == inodes
        written[days] = len(calls)
        bars = sum(frequency.bars_per_day for frequency in FREQUENCIES)
        assert sum(calls) <= 2 * len(FIELDS) * bars * 4

    assert written[2] == written[25]


@pytest.mark.invariant(9)
def test_only_files_that_changed_are_read(raw, qlib):
    """Invariant 9: what did not change is not even opened; here it could not be read any more."""
    symbols = ("BTC_USDT", "ETH_USDT")
    for symbol in symbols:
        store(raw, some_minutes(symbol, range(12 * 1440)))
    store(raw, [a_funding_rate(funding_time=minute(day * 1440)) for day in range(12)])
    convert(raw, qlib, until=minute(12 * 1440))
    before = tree(qlib)
    _spoil_keeping_the_signature(path for path in raw.rglob("*.parquet") if _day_of(path) < DAY_0 + timedelta(days=4))
    _spoil_keeping_the_signature((raw / "kline_1m").rglob("*.parquet"))
    for symbol in symbols:
        store(raw, [a_candle(symbol, minute(12 * 1440 + number)) for number in range(1440)])

    report = convert(raw, qlib, until=minute(13 * 1440))

    assert report.unreadable == ()
    assert report.days == 2
    after = tree(qlib)
    assert all(after[name].startswith(content) for name, content in before.items() if name.endswith(".bin"))


@pytest.mark.invariant(9)
def test_a_symbol_without_new_data_is_not_touched(raw, qlib):
    """Invariant 9."""
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("GONE_USDT", range(1440)))
    convert(raw, qlib, until=None)
    untouched = {path: path.stat() for path in (qlib / "features" / "gone_usdt").iterdir()}
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))

    convert(raw, qlib, until=None)

    for path, stat in untouched.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)


def _sizes_written(monkeypatch):
    """Note the size of every write into a bin."""
    sizes, pwrite = [], os.pwrite

    def counted(descriptor, data, offset):
        sizes.append(len(data))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    return sizes


def _spoil_keeping_the_signature(paths):
    for path in paths:
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _day_of(path):
    return date.fromisoformat(path.parent.name.removeprefix("date="))


@pytest.mark.invariant(7)
@pytest.mark.parametrize("name", ["crypto[2025]", "data*", "a?b", "{x,y}", "with space", "100%", "-n", "龙"])
def test_a_folder_is_read_by_its_name_and_not_as_a_pattern(tmp_path, name):
    """Invariant 7: else a day would count as converted of which nothing was read, and its raw files be retired."""
    store(tmp_path / "data-old", some_minutes("OLD_USDT", range(1440)))
    store(tmp_path / name, some_minutes("BTC_USDT", range(1440)))

    report = convert(tmp_path / name, tmp_path / "qlib", until=None)

    assert report.bars == 1440
    assert len(values(tmp_path / "qlib", "BTC_USDT", "close")) == 1440
    assert values(tmp_path / "qlib", "OLD_USDT", "close") == {}


@pytest.mark.invariant(8)
@pytest.mark.parametrize("what", ["gone", "junk"])
def test_a_calendar_ahead_that_is_lost_is_made_again_though_no_bar_is_new(raw, qlib, what):
    """Invariant 8: a backtest could not reach the last bar, until the next one."""
    store(raw, some_minutes("BTC_USDT", range(2 * 1440)))
    convert(raw, qlib, until=None)
    whole = tree(qlib)
    for name in ("day_future.txt", "60min_future.txt"):
        path = qlib / "calendars" / name
        path.unlink() if what == "gone" else path.write_text("junk")

    convert(raw, qlib, until=None)

    assert tree(qlib) == whole
