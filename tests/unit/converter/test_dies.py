"""Whoever dies at whatever instant: run again, it is a run that never died. And who has to wait."""

import errno
import random
import shutil
import time
from fcntl import LOCK_EX, flock
from functools import partial

import pytest

from services.converter.convert import convert
from services.converter.qlib_store import CommitError
from shared.durable import BusyError
from tests.support.builders import (
    a_funding_rate,
    a_ranking,
    minute,
    store,
    wait_for,
)
from tests.support.conversions import rebuilt, some_minutes, started
from tests.support.dying import WRITING, Dying, calls_of, die_at
from tests.support.provider import labels, tree, values


def test_a_first_conversion_that_died_does_not_fix_the_origin(raw, qlib, tmp_path, monkeypatch):
    """Before the first calendar there is no origin; bins left behind by a run that died must not count as one."""
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    die_at(monkeypatch, WRITING, 40, partial(convert, raw, qlib, until=None))
    store(raw, some_minutes("BTC_USDT", range(5, 1440)))

    convert(raw, qlib, until=None)

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


def _history(raw):
    """Lay down a history with a gap, and a symbol that starts in the middle of it."""
    store(raw, some_minutes("BTC_USDT", [*range(500), *range(700, 1440)]) + some_minutes("NEW_USDT", range(900, 1440)))
    store(raw, [a_funding_rate(funding_time=minute(480)), *a_ranking("BTC_USDT").ranks])


def _more(raw):
    """Add a day, late rows, an earlier start, a late rate, another ranking."""
    store(raw, some_minutes("BTC_USDT", range(500, 600)) + some_minutes("BTC_USDT", range(1440, 2900)))
    store(raw, some_minutes("NEW_USDT", range(800, 900)) + some_minutes("NEW_USDT", range(1440, 2880)))
    store(raw, [a_funding_rate("NEW_USDT", minute(960)), *a_ranking("NEW_USDT", ranked_time=minute(1440)).ranks])


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
    instants = calls_of(monkeypatch, WRITING, partial(convert, raw, tmp_path / "counted", until=None))
    assert instants > 50
    # All bins are written alike, so some of them will do; of calendars, instruments and manifest all.
    chosen = {*range(0, instants, max(1, instants // 12)), *range(instants - 40, instants)}

    for instant in sorted(chosen):
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        die_at(monkeypatch, WRITING, instant, partial(convert, raw, qlib, until=None))

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
        die_at(monkeypatch, WRITING, instant, partial(convert, raw, qlib, until=None, rebuild=True))

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
    instants = calls_of(monkeypatch, WRITING, partial(convert, raw, tmp_path / "counted", until=None))
    seen = set()

    for instant in range(0, instants, 2):
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        die_at(monkeypatch, WRITING, instant, partial(convert, raw, qlib, until=None))

        bars = labels(qlib, "1min")
        for field in ("open", "close", "volume", "vwap"):
            assert list(values(qlib, "BTC_USDT", field)) == bars
        days = labels(qlib, "day")
        assert list(values(qlib, "BTC_USDT", "close", "day")) == days
        seen.add((len(bars), len(days)))
        shutil.rmtree(qlib)

    assert {(1440, 1), (2880, 2)} <= seen


@pytest.mark.invariant(8)
def test_the_real_process_killed_at_random_and_run_again_gives_a_rebuild(raw, qlib, tmp_path):
    """Invariant 8, with kill -9."""
    for symbol in range(12):
        store(raw, some_minutes(f"S{symbol}_USDT", range(symbol * 10, 3 * 1440)))
    dice = random.Random(8)
    for _ in range(6):
        process = started(raw, qlib)
        wait_for(lambda process=process: (qlib / "features").exists() or process.poll() is not None)
        time.sleep(dice.random() * 0.25)
        process.kill()
        process.communicate()

    process = started(raw, qlib)
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
        process = started(raw, qlib)
        _, log = process.communicate()

    assert process.returncode == 1
    assert "another converter" in log
    assert "Traceback" not in log
    assert convert(raw, qlib, until=None).bars == 10


# --- whoever is refused by the disk


def visible(qlib):
    """Return what decides what a reader sees: the calendars and the instruments."""
    return {name: content for name, content in tree(qlib).items() if not name.startswith("features")}


@pytest.mark.invariant(8)
def test_a_step_that_fails_leaves_all_as_it_was_or_says_what_is_new_and_the_next_run_makes_good(tmp_path, monkeypatch):
    """Invariant 8: a full disk at the last step must not leave a new calendar beside an old universe unsaid."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    _history(raw)
    convert(raw, base, until=None)
    _more(raw)
    store(raw, some_minutes("龙_USDT", range(1440, 1500)))
    before, expected = visible(base), rebuilt(raw, tmp_path / "fresh")
    shutil.copytree(base, tmp_path / "counted", symlinks=True)
    instants = calls_of(monkeypatch, WRITING, partial(convert, raw, tmp_path / "counted", until=None))
    said = 0
    for instant in range(instants - 60, instants):
        qlib = tmp_path / f"failed{instant}"
        shutil.copytree(base, qlib, symlinks=True)
        with monkeypatch.context() as failing:
            Dying(failing, WRITING, instant, fails_with=OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(OSError, match="No space") as failed:
                convert(raw, qlib, until=None)
        if failed.type is CommitError:
            said += 1
            new = {name for name in before if visible(qlib)[name] != before[name]}
            assert new == {name for name in before if f"{name}," in f"{failed.value};".replace(";", ",")}, instant
        else:
            assert visible(qlib) in (before, visible(tmp_path / "counted")), instant

        convert(raw, qlib, until=None)
        assert tree(qlib) == expected, instant
    assert said >= 10
