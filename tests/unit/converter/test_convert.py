"""Whole conversions on real files: what Qlib sees, whatever the order in which the data arrived and whatever died."""

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from fcntl import LOCK_EX, flock

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.calendars import FREQUENCIES
from services.converter.convert import NothingToConvertError, convert, late_days
from services.converter.fields import FIELDS, Recipe
from services.converter.snapshots import take_snapshot
from services.converter.validation import ValidationError
from services.converter.versions import changing, head_folder
from shared.dataset import Partition, day_digest, day_folder, signature
from shared.durable import BusyError
from shared.events import LedgerRow
from shared.grid import DAY, day_start
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
    store,
    wait_for,
)
from tests.support.provider import labels, tree, values
from tests.support.simulator import ROOT


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "okx_data"


@pytest.fixture
def qlib(tmp_path):
    return tmp_path / "qlib_data"


def a_ledger_row(symbol, day=0, **sets):
    """Return what the ledger says of a day, counted from DAY_0."""
    return LedgerRow(exchange="okx", symbol=symbol, day=minute(day * 1440), **sets)


def some_minutes(symbol, numbers, price=100.0):
    return [a_candle(symbol, minute(number), price + number % 97) for number in numbers]


def rebuilt(raw, folder, until=None):
    """Convert into a fresh folder."""
    convert(raw, folder, until=until)
    return tree(folder)


# --- values at their times


@pytest.mark.invariant(4)
def test_each_candle_is_at_its_own_minute_and_a_gap_is_nan(raw, qlib):
    """Invariant 4: the grid is whole, a gap shifts nothing and fills nothing."""
    numbers = [*range(10), *range(15, 30), *range(1430, 1450)]
    store(raw, some_minutes("BTC_USDT", numbers))

    convert(raw, qlib, until=None)

    assert labels(qlib, "1min") == [minute(number) for number in range(1450)]
    assert values(qlib, "BTC_USDT", "open") == {minute(number): 100.0 + number % 97 for number in numbers}


@pytest.mark.invariant(4)
def test_an_outage_of_the_whole_market_leaves_nan_and_the_grid_whole(raw, qlib):
    """Invariant 4: the calendar is never the union of the data."""
    store(raw, some_minutes("BTC_USDT", [0, 1, 4 * 1440]) + some_minutes("ETH_USDT", [1, 4 * 1440 + 1]))

    convert(raw, qlib, until=None)

    assert len(labels(qlib, "1min")) == 4 * 1440 + 2
    assert labels(qlib, "day") == [MIDNIGHT + day * DAY for day in range(4)]
    assert list(values(qlib, "ETH_USDT", "close")) == [minute(1), minute(4 * 1440 + 1)]


@pytest.mark.invariant(4)
def test_a_symbol_listed_in_the_middle_of_a_day_begins_at_its_first_minute(raw, qlib):
    """Invariant 4."""
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("NEW_USDT", range(723, 1440)))

    convert(raw, qlib, until=None)

    assert min(values(qlib, "NEW_USDT", "close")) == minute(723)
    assert min(values(qlib, "NEW_USDT", "close", "60min")) == minute(13 * 60)
    assert not values(qlib, "NEW_USDT", "close", "day")
    assert values(qlib, "NEW_USDT", "coverage", "day") == {MIDNIGHT: np.float32(717 / 1440)}
    assert "NEW_USDT\t2025-04-05 00:00:00\t2025-04-05 23:59:59\n" in (qlib / "instruments" / "all.txt").read_text()


@pytest.mark.invariant(5)
def test_a_day_that_is_not_over_has_no_bar_yet(raw, qlib):
    """Invariant 5: a bar of which minutes are still to come is not shown."""
    store(raw, some_minutes("BTC_USDT", range(1440 + 700)))

    convert(raw, qlib, until=None)

    assert labels(qlib, "day") == [MIDNIGHT]
    assert labels(qlib, "1min")[-1] == minute(1440 + 699)


@pytest.mark.invariant(5)
def test_a_conversion_up_to_an_instant_knows_nothing_of_later(raw, qlib, tmp_path):
    """Invariant 5: with the data after T or without it, what is visible until T is the same."""
    rates = [a_funding_rate(funding_time=minute(hour * 60), rate=hour / 1000 + 1e-5) for hour in (0, 8, 16, 24, 32)]
    store(raw, [*some_minutes("BTC_USDT", range(2880)), *rates])
    early = [rate for rate in rates if rate.funding_time < minute(2000)]
    store(tmp_path / "cut", [*some_minutes("BTC_USDT", range(2000)), *early])

    convert(raw, qlib, until=minute(2000))

    assert tree(qlib) == rebuilt(tmp_path / "cut", tmp_path / "fresh")


def test_the_funding_rate_is_the_last_settled_before_the_close(raw, qlib):
    rates = [a_funding_rate(funding_time=minute(480), rate=0.25), a_funding_rate(funding_time=minute(960), rate=0.5)]
    store(raw, [*some_minutes("BTC_USDT", range(1440)), *rates])

    convert(raw, qlib, until=None)

    seen = values(qlib, "BTC_USDT", "funding_rate")
    assert set(seen) == {minute(number) for number in range(480, 1440)}
    assert {seen[minute(number)] for number in range(480, 960)} == {0.25}
    assert seen[minute(960)] == 0.5
    assert values(qlib, "BTC_USDT", "funding_rate", "day") == {MIDNIGHT: 0.5}


# --- bars that lack minutes


HOUR = [number for number in range(60) if number not in (7, 31)]


def hourly(qlib, field="close"):
    return values(qlib, "BTC_USDT", field, "60min")


@pytest.mark.invariant(7)
def test_a_bar_that_lacks_minutes_is_nan_and_says_how_many(raw, qlib):
    """Invariant 7: nobody knows whether the exchange had them."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), a_ledger_row("BTC_USDT", wanted="0-1439", absent="7-7")])

    convert(raw, qlib, until=minute(60))

    assert not hourly(qlib)
    assert hourly(qlib, "coverage") == {MIDNIGHT: np.float32(58 / 60)}
    assert len(values(qlib, "BTC_USDT", "close")) == 58


@pytest.mark.invariant(7)
@pytest.mark.parametrize("sets", [{"absent": "7-7,31-31"}, {"absent": "7-7", "halted": "31-40"}])
def test_a_bar_is_made_of_the_minutes_that_the_exchange_has(raw, qlib, sets):
    """Invariant 7: it has said that there were no others, or stood still."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), a_ledger_row("BTC_USDT", wanted="0-1439", **sets)])

    convert(raw, qlib, until=minute(60))

    assert hourly(qlib, "volume") == {MIDNIGHT: 58 * 2.0}
    assert hourly(qlib, "coverage") == {MIDNIGHT: np.float32(58 / 60)}


@pytest.mark.invariant(7)
def test_a_minute_that_is_found_to_be_absent_later_makes_its_bars_whole(raw, qlib, tmp_path):
    """Invariant 7: the candle file has not changed, what is known of it has."""
    store(raw, [*some_minutes("BTC_USDT", HOUR), *some_minutes("BTC_USDT", range(1440, 2880))])
    convert(raw, qlib, until=None)
    assert MIDNIGHT not in hourly(qlib)

    store(raw, [a_ledger_row("BTC_USDT", absent="7-7,31-31,60-1439")])

    assert late_days(raw, qlib) == (minute(2880), 1)
    assert convert(raw, qlib, until=None).days == 1
    assert hourly(qlib)[MIDNIGHT] == values(qlib, "BTC_USDT", "close")[minute(59)]
    assert late_days(raw, qlib) == (minute(2880), 0)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def test_a_setting_makes_bars_of_the_minutes_that_there_are(raw, qlib):
    store(raw, some_minutes("BTC_USDT", HOUR))

    convert(raw, qlib, until=minute(60), recipe=Recipe(partial_bars="keep"))

    assert hourly(qlib, "volume") == {MIDNIGHT: 58 * 2.0}


def test_another_recipe_computes_everything_anew(raw, qlib, tmp_path):
    """Fields that were not written yet, and bars that were made by another rule."""
    store(raw, [*some_minutes("BTC_USDT", range(0, 3000, 3)), *some_minutes("ETH_USDT", range(2000))])
    convert(raw, qlib, until=None)
    stocks = Recipe(partial_bars="keep", stock_fields=True)

    convert(raw, qlib, until=None, recipe=stocks)

    convert(raw, tmp_path / "fresh", until=None, recipe=stocks)
    assert tree(qlib) == tree(tmp_path / "fresh")
    assert set(values(qlib, "BTC_USDT", "factor").values()) == {1.0}


def test_change_looks_back_over_midnight_also_where_the_day_before_comes_late(raw, qlib, tmp_path):
    stocks = Recipe(stock_fields=True)
    store(raw, some_minutes("BTC_USDT", range(10, 2 * 1440)))
    convert(raw, qlib, until=None, recipe=stocks)
    closes = values(qlib, "BTC_USDT", "close")
    changes = values(qlib, "BTC_USDT", "change")
    assert min(changes) == minute(11)
    assert changes[minute(1440)] == pytest.approx(closes[minute(1440)] / closes[minute(1439)] - 1, abs=1e-6)

    store(raw, [a_candle("BTC_USDT", minute(1439), 7.0, receive_time=minute(9999))])
    convert(raw, qlib, until=None, recipe=stocks)

    assert values(qlib, "BTC_USDT", "change")[minute(1440)] == pytest.approx(closes[minute(1440)] / 7.875 - 1, rel=1e-5)
    convert(raw, tmp_path / "fresh", until=None, recipe=stocks)
    assert tree(qlib) == tree(tmp_path / "fresh")


# --- what is refused to be published


@pytest.mark.invariant(8)
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"high": 1.0}, "high is below low"),
        ({"close": 1000.0}, "close is above high"),
        ({"open": 1.0}, "open is below low"),
        ({"volume": -1.0}, "volume is negative"),
        ({"amount": float("inf")}, "amount is infinite"),
    ],
)
def test_bars_that_cannot_be_are_not_published_and_named(raw, qlib, changes, what):
    """Invariant 8: it fails closed."""
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    store(raw, [*some_minutes("BTC_USDT", range(1440, 1500)), a_candle("BTC_USDT", minute(1500), **changes)])

    with pytest.raises(ValidationError, match=rf"BTC_USDT, 1min bar 2025-04-06 01:00:00.*: {what}"):
        convert(raw, qlib, until=None)

    assert len(labels(qlib, "1min")) == 1440


@pytest.mark.invariant(7)
def test_a_candle_file_that_lacks_what_the_ledger_says_it_holds_is_not_published(raw, qlib):
    """Invariant 7."""
    store(raw, some_minutes("BTC_USDT", range(10)))
    file = Partition("kline_1m", DAY_0, "BTC_USDT").path(raw)
    store(raw, [a_ledger_row("BTC_USDT", received="0-9,12-13", version=signature(file.stat()))])

    with pytest.raises(ValidationError, match=r"BTC_USDT 2025-04-05: .*: minutes 12-13 lack in the file, none in the"):
        convert(raw, qlib, until=minute(1440))

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


@pytest.mark.invariant(6)
def test_membership_reaches_qlib_as_spans_and_a_delisted_symbol_stays(raw, qlib):
    """Invariant 6."""
    first = a_ranking("BTC_USDT", "GONE_USDT", others=["ETH_USDT"])
    second = a_ranking("BTC_USDT", "ETH_USDT", ranked_time=minute(480))
    store(raw, [*first.ranks, *second.ranks])
    store(raw, some_minutes("BTC_USDT", range(600)) + some_minutes("GONE_USDT", range(480)))

    convert(raw, qlib, until=None)

    assert (qlib / "instruments" / "top50.txt").read_text().splitlines() == [
        "BTC_USDT\t2025-04-05 00:00:00\t2099-12-31 23:59:59",
        "ETH_USDT\t2025-04-05 08:00:00\t2099-12-31 23:59:59",
        "GONE_USDT\t2025-04-05 00:00:00\t2025-04-05 07:59:59",
    ]
    assert "GONE_USDT" in (qlib / "instruments" / "all.txt").read_text()


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
        st.just("ledger"), st.sampled_from(SYMBOLS), st.integers(0, 4), st.integers(0, 1439), st.integers(0, 1439)
    ),
    st.tuples(st.just("convert"), st.integers(1, 6 * 1440)),
    st.just(("convert", None)),
    st.just(("rebuild",)),
    st.tuples(st.just("retire"), st.integers(1, 4)),
)


def _rows_of(step, known):
    """Return the rows that a step brings; `known` grows from step to step, so that later ones correct earlier ones."""
    if step[0] == "candles":
        _, symbol, first, count, price = step
        return [
            a_candle(symbol, minute(number), price + number / 7, receive_time=minute(known))
            for number in range(first, first + count)
        ]
    if step[0] == "funding":
        _, symbol, hour, rate = step
        return [a_funding_rate(symbol, minute(hour * 60), rate / 1000, known_time=minute(known))]
    if step[0] == "prediction":
        _, symbol, number, hours = step
        due = minute(number) + timedelta(hours=hours)
        return [a_prediction(symbol, hours / 1000, minute(number), funding_time=due, receive_time=minute(known))]
    if step[0] == "ledger":
        _, symbol, day, first, last = step
        return [a_ledger_row(symbol, day, absent=f"{min(first, last)}-{max(first, last)}")]
    if step[0] == "ranking":
        return a_ranking(step[1], ranked_time=minute(step[2] * 60) + timedelta(milliseconds=known)).ranks
    return []


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
        store(raw, rows)
        store(archive, rows)
    if not (archive / "kline_1m").exists():
        return

    report = convert(raw, qlib, until=None)
    if report.left_out:
        report = convert(raw, qlib, until=None, rebuild=True)

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


def test_days_that_changed_since_they_were_converted_are_late(raw, qlib):
    assert late_days(raw, qlib) is None
    store(raw, some_minutes("BTC_USDT", range(2880)))
    convert(raw, qlib, until=MIDNIGHT + DAY)
    assert late_days(raw, qlib) == (MIDNIGHT + DAY, 0)  # the second day is not in Qlib yet, so not late

    store(raw, [a_candle("BTC_USDT", minute(5), 7.0, receive_time=minute(9999)), a_candle("ETH_USDT", minute(5))])

    assert late_days(raw, qlib) == (MIDNIGHT + DAY, 2)
    convert(raw, qlib, until=MIDNIGHT + DAY)
    assert late_days(raw, qlib) == (MIDNIGHT + DAY, 0)
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


def test_history_before_the_origin_is_left_out_and_told_until_a_rebuild_takes_it_in(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", range(2 * 1440, 3 * 1440)))
    convert(raw, qlib, until=None)
    before = tree(qlib)
    store(raw, some_minutes("BTC_USDT", range(100, 2 * 1440)))

    told = [convert(raw, qlib, until=None).left_out for _ in range(3)]

    assert told == [2, 2, 2]
    assert tree(qlib) == before
    assert convert(raw, qlib, until=None, rebuild=True).left_out == 0
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")
    assert min(values(qlib, "BTC_USDT", "close")) == minute(100)


@pytest.mark.invariant(8)
def test_a_rebuild_that_moves_the_origin_makes_a_version_and_disturbs_nobody_who_reads(
    raw, qlib, tmp_path, monkeypatch
):
    """Invariant 8: until it is whole nobody sees it, also where it dies before."""
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    reader, before = qlib.resolve(), tree(qlib)
    store(raw, some_minutes("BTC_USDT", range(1440)))
    with monkeypatch.context() as dying:
        Dying(dying, after=60)
        with pytest.raises(KilledError):
            convert(raw, qlib, until=None, rebuild=True)
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

    assert late_days(raw, qlib) == (minute(2880), 0)
    assert len(labels(qlib, "1min")) == 1440
    assert len(labels(head_folder(qlib), "1min")) == 2880


@pytest.mark.invariant(11)
def test_a_day_that_was_left_out_is_not_told_to_be_converted(raw, qlib):
    """Invariant 11: the retention deletes what is told here, so a day that is not in Qlib must not be."""
    store(raw, some_minutes("BTC_USDT", range(2 * 1440, 3 * 1440)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440)))

    report = convert(raw, qlib, until=None)

    assert set(report.digests) == {"kline_1m/2025-04-07"}


def test_a_first_conversion_that_died_does_not_fix_the_origin(raw, qlib, tmp_path, monkeypatch):
    """Before the first calendar there is no origin; bins left behind by a run that died must not count as one."""
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    with monkeypatch.context() as dying:
        Dying(dying, after=40)
        with pytest.raises(KilledError):
            convert(raw, qlib, until=None)
    store(raw, some_minutes("BTC_USDT", range(5, 1440)))

    convert(raw, qlib, until=None)

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


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
def test_only_a_whole_day_is_told_to_be_converted_and_as_it_stands(raw, qlib):
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
    pq.write_table(pq.ParquetFile(old).read().drop_columns(["amount"]), old)

    convert(raw, qlib, until=None)

    assert list(values(qlib, "BTC_USDT", "amount")) == [minute(number) for number in range(1440, 1450)]
    assert list(values(qlib, "BTC_USDT", "close")) == [minute(number) for number in range(1430, 1450)]


def test_nothing_to_convert_is_said(raw, qlib):
    with pytest.raises(NothingToConvertError, match=str(raw)):
        convert(raw, qlib, until=None)

    store(raw, some_minutes("BTC_USDT", range(10)))
    with pytest.raises(NothingToConvertError):
        convert(raw, qlib, until=MIDNIGHT)


# --- who dies, and who waits


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Dying:
    """Lets the n-th call to the operating system that changes the folder be the last."""

    NAMES = ("pwrite", "fsync", "replace", "rename", "unlink")

    def __init__(self, monkeypatch, after):
        self.left = after
        self.calls = 0
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call):
        def counted(*arguments, **options):
            self.calls += 1
            if self.calls > self.left:
                raise KilledError
            return call(*arguments, **options)

        return counted


def _history(raw):
    """Lay down a history with a gap, and a symbol that starts in the middle of it."""
    store(raw, some_minutes("BTC_USDT", [*range(500), *range(700, 1440)]) + some_minutes("NEW_USDT", range(900, 1440)))
    store(raw, [a_funding_rate(funding_time=minute(480)), *a_ranking("BTC_USDT").ranks])


def _more(raw):
    """Add a day, late rows, an earlier start, a late rate, another ranking."""
    store(raw, some_minutes("BTC_USDT", range(500, 600)) + some_minutes("BTC_USDT", range(1440, 2900)))
    store(raw, some_minutes("NEW_USDT", range(800, 900)) + some_minutes("NEW_USDT", range(1440, 2880)))
    store(raw, [a_funding_rate("NEW_USDT", minute(960)), *a_ranking("NEW_USDT", ranked_time=minute(1440)).ranks])


def _instants(raw, qlib, monkeypatch):
    """Count the calls of a whole run, on copies."""
    with monkeypatch.context() as counting:
        dying = Dying(counting, after=10**9)
        convert(raw, qlib, until=None)
    return dying.calls


@pytest.mark.invariant(8)
@pytest.mark.parametrize("phase", ["first", "next"])
def test_killed_at_any_instant_and_run_again_it_is_a_rebuild(tmp_path, monkeypatch, phase):
    """Invariant 8: crash anywhere, run again, and every byte is that of a run that never died."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    _history(raw)
    if phase == "next":
        convert(raw, base, until=None)
        _more(raw)
    expected = rebuilt(raw, tmp_path / "fresh")
    base.mkdir(exist_ok=True)
    shutil.copytree(base, tmp_path / "counted")
    instants = _instants(raw, tmp_path / "counted", monkeypatch)
    assert instants > 50
    # All bins are written alike, so some of them will do; of calendars, instruments and manifest all.
    chosen = {*range(0, instants, max(1, instants // 12)), *range(instants - 40, instants)}

    for instant in sorted(chosen):
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        with monkeypatch.context() as dying:
            Dying(dying, after=instant)
            with pytest.raises(KilledError):
                convert(raw, qlib, until=None)

        convert(raw, qlib, until=None)

        assert tree(qlib) == expected, f"killed at call {instant} of {instants}"
        shutil.rmtree(qlib)


@pytest.mark.invariant(8)
def test_killed_while_the_origin_moves_and_run_again_it_is_a_rebuild(tmp_path, monkeypatch):
    """Invariant 8, for --rebuild with history from before the origin."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    store(raw, some_minutes("BTC_USDT", range(1440, 2900)))
    convert(raw, base, until=None)
    store(raw, some_minutes("BTC_USDT", range(30, 1440)))
    expected = rebuilt(raw, tmp_path / "fresh")

    for instant in (*range(12), *range(12, 300, 16)):  # a directory becomes a version within the first calls
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        with monkeypatch.context() as dying:
            Dying(dying, after=instant)
            with pytest.raises(KilledError):
                convert(raw, qlib, until=None, rebuild=True)

        convert(raw, qlib, until=None, rebuild=True)

        assert tree(qlib) == expected, f"killed at call {instant}"


@pytest.mark.invariant(8)
def test_what_is_visible_when_it_dies_is_the_old_state_until_the_calendar_comes(tmp_path, monkeypatch):
    """Invariant 8: the calendar is the commit record; before it nothing new is seen, after it nothing is missing."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, base, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    shutil.copytree(base, tmp_path / "counted")
    instants = _instants(raw, tmp_path / "counted", monkeypatch)
    seen = set()

    for instant in range(0, instants, 2):
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        with monkeypatch.context() as dying:
            Dying(dying, after=instant)
            with pytest.raises(KilledError):
                convert(raw, qlib, until=None)

        bars = labels(qlib, "1min")
        for field in ("open", "close", "volume", "vwap"):
            assert list(values(qlib, "BTC_USDT", field)) == bars
        days = labels(qlib, "day")
        assert list(values(qlib, "BTC_USDT", "close", "day")) == days
        seen.add((len(bars), len(days)))
        shutil.rmtree(qlib)

    assert {(1440, 1), (2880, 2)} <= seen


def _once(raw, qlib, *options):
    environment = os.environ | {
        "DATA_DIR": str(raw),
        "QLIB_DIR": str(qlib),
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "LOG_FORMAT": "json",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "services.converter", *(options or ("--once",))],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.invariant(8)
def test_the_real_process_killed_at_random_and_run_again_gives_a_rebuild(raw, qlib, tmp_path):
    """Invariant 8, with kill -9."""
    for symbol in range(12):
        store(raw, some_minutes(f"S{symbol}_USDT", range(symbol * 10, 3 * 1440)))
    dice = random.Random(8)
    for _ in range(6):
        process = _once(raw, qlib)
        wait_for(lambda process=process: (qlib / "features").exists() or process.poll() is not None)
        time.sleep(dice.random() * 0.25)
        process.kill()
        process.communicate()

    process = _once(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 0, log
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")
    assert not list(qlib.rglob(".*.tmp"))


def test_a_second_converter_is_refused(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(10)))
    (qlib / ".converter").mkdir(parents=True)
    with (qlib / ".converter" / "lock").open("w") as handle:
        flock(handle, LOCK_EX)

        with pytest.raises(BusyError, match="another converter"):
            convert(raw, qlib, until=None)
        process = _once(raw, qlib)
        _, log = process.communicate()

    assert process.returncode == 1
    assert "another converter" in log
    assert "Traceback" not in log
    assert convert(raw, qlib, until=None).bars == 10


def test_once_says_what_is_missing_and_ends_with_1(raw, qlib):
    process = _once(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "no raw candle" in log
    assert "Traceback" not in log


def test_once_with_a_damaged_file_names_it_and_ends_with_1(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(10)) + some_minutes("BAD_USDT", range(10)))
    Partition("kline_1m", DAY_0, "BAD_USDT").path(raw).write_bytes(b"torn")

    process = _once(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "BAD_USDT" in log
    assert "Traceback" not in log
    assert len(values(qlib, "BTC_USDT", "close")) == 10


def test_a_damaged_funding_file_is_named_and_qlib_stays_as_it_was(raw, qlib):
    store(raw, [*some_minutes("BTC_USDT", range(10)), a_funding_rate()])
    convert(raw, qlib, until=None)
    before = tree(qlib)
    path = Partition("funding", DAY_0).path(raw)
    path.write_bytes(b"torn")
    store(raw, some_minutes("BTC_USDT", range(10, 20)))

    process = _once(raw, qlib)
    _, log = process.communicate()

    assert process.returncode == 1
    assert "funding_rates_20250405" in log
    assert "Traceback" not in log
    assert tree(qlib) == before


def test_days_are_utc_whatever_the_hosts_zone(raw, qlib, monkeypatch):
    store(raw, some_minutes("BTC_USDT", [0, 1439, 1440]))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        convert(raw, qlib, until=None)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()

    assert list(values(qlib, "BTC_USDT", "close")) == [minute(0), minute(1439), minute(1440)]
    assert labels(qlib, "1min")[0] == day_start(DAY_0) == datetime(2025, 4, 5, tzinfo=UTC)
