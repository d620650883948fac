"""Whoever dies at whatever instant: run again, it is a run that never died. And who has to wait."""

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import time
from fcntl import LOCK_EX, flock
from functools import partial

import pytest

from services.converter.convert import convert
from services.converter.qlib.store import CommitError
from services.converter.raw.days import UnreadableError
from shared.storage.files import BusyError
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
from tests.support.simulator import ROOT

SOME_AND_ALL = pytest.mark.parametrize(
    "every", [pytest.param(7, id="some"), pytest.param(1, id="all", marks=pytest.mark.proof)]
)
"""How many of the instants: one in seven, or each."""


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
@SOME_AND_ALL
@pytest.mark.parametrize("phase", ["first", "next"])
def test_killed_at_any_instant_and_run_again_it_is_a_rebuild(tmp_path, monkeypatch, phase, every):
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

    for instant in sorted(chosen)[::every]:
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        die_at(monkeypatch, WRITING, instant, partial(convert, raw, qlib, until=None))

        convert(raw, qlib, until=None)

        assert tree(qlib) == expected, f"killed at call {instant} of {instants}"
        shutil.rmtree(qlib)


@pytest.mark.invariant(8)
@SOME_AND_ALL
def test_killed_while_the_origin_moves_and_run_again_it_is_a_rebuild(tmp_path, monkeypatch, every):
    """Invariant 8, for --rebuild with history from before the origin."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    store(raw, some_minutes("BTC_USDT", range(1440, 2900)))
    convert(raw, base, until=None)
    store(raw, some_minutes("BTC_USDT", range(30, 1440)))
    expected = rebuilt(raw, tmp_path / "fresh")

    instants = (*range(12), *range(12, 300, 16))
    for instant in instants[::every]:  # a directory becomes a version within the first calls
        qlib = tmp_path / f"killed{instant}"
        shutil.copytree(base, qlib)
        die_at(monkeypatch, WRITING, instant, partial(convert, raw, qlib, until=None, rebuild=True))

        convert(raw, qlib, until=None, rebuild=True)

        assert tree(qlib) == expected, f"killed at call {instant}"


@pytest.mark.invariant(8)
@SOME_AND_ALL
def test_what_is_visible_when_it_dies_is_the_old_state_until_the_calendar_comes(tmp_path, monkeypatch, every):
    """Invariant 8: the calendar is the commit record; before it nothing new is seen, after it nothing is missing."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, base, until=None)
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    shutil.copytree(base, tmp_path / "counted")
    instants = calls_of(monkeypatch, WRITING, partial(convert, raw, tmp_path / "counted", until=None))
    seen = set()

    for instant in range(0, instants, 2)[::-every]:
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


ALL_CALLS = (*WRITING, "open", "mkdir", "sendfile", "truncate")
ERRORS = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EPERM, errno.EIO)]


def outcome_of(do):
    """Return the report, or None, and what the system refused, or None where it could be done all the same."""
    try:
        return do(), None
    except (OSError, UnreadableError) as error:
        return None, error


def named(error):
    """Return which files a failed conversion says are new; of those that are like the old ones nothing."""
    said = re.search("new are (.*?);", str(error))
    return set(said[1].split(", ")) if said else None


@pytest.mark.invariant(8)
@SOME_AND_ALL
def test_a_step_that_fails_leaves_all_as_it_was_or_says_what_is_new_and_the_next_run_makes_good(
    tmp_path, monkeypatch, every
):
    """Invariant 8: a full disk, a refusal, at any call; no new calendar beside an old universe without a word.

    Which calls of the many are tried depends on how many there are, and so on the number of fields.
    """
    raw, base = tmp_path / "raw", tmp_path / "base"
    _history(raw)
    convert(raw, base, until=None)
    _more(raw)
    store(raw, some_minutes("龙_USDT", range(1440, 1500)))
    before, expected = visible(base), rebuilt(raw, tmp_path / "fresh")
    shutil.copytree(base, tmp_path / "counted")
    instants = calls_of(monkeypatch, ALL_CALLS, partial(convert, raw, tmp_path / "counted", until=None))
    after = visible(tmp_path / "counted")
    said = set()
    for instant in sorted({*range(0, instants, max(1, instants // 25)), *range(instants - 75, instants)})[::every]:
        qlib, refusal = tmp_path / f"failed{instant}", ERRORS[instant % 3]
        shutil.copytree(base, qlib)
        with monkeypatch.context() as failing:
            Dying(failing, ALL_CALLS, instant, fails_with=refusal)
            report, failed = outcome_of(partial(convert, raw, qlib, until=None))
        seen = visible(qlib)
        if report is not None:  # it can do without that call, or names the raw file that it could not read
            assert tree(qlib) == expected or not report.is_whole, instant
        elif not isinstance(failed, CommitError):
            assert seen == before, instant
        elif (new := named(failed)) is not None:
            changing = {name for name in after if after[name] != before.get(name)}
            assert {name for name in after if seen.get(name) != before.get(name)} == new & changing, instant
        else:
            assert seen == after, instant
        assert failed is None or refusal.strerror in str(failed), instant
        said.add(type(failed))

        convert(raw, qlib, until=None)
        assert tree(qlib) == expected, instant
        shutil.rmtree(qlib)
    assert CommitError in said
    assert said & {OSError, PermissionError}


@pytest.mark.invariant(8)
@SOME_AND_ALL
def test_a_new_version_that_cannot_be_finished_is_not_seen_and_takes_no_room(tmp_path, monkeypatch, every):
    """Invariant 8: whichever call fails while history from before the first day is taken in."""
    raw, base = tmp_path / "raw", tmp_path / "base"
    store(raw, some_minutes("BTC_USDT", range(1440, 2900)))
    convert(raw, base, until=None)
    store(raw, some_minutes("BTC_USDT", range(30, 1440)))
    before, expected = tree(base), rebuilt(raw, tmp_path / "fresh")
    shutil.copytree(tmp_path / "base.versions", tmp_path / "counted.versions", symlinks=True)
    (tmp_path / "counted").symlink_to("counted.versions/head")
    rebuild = partial(convert, raw, until=None, rebuild=True)
    instants = calls_of(monkeypatch, ALL_CALLS, partial(rebuild, tmp_path / "counted"))
    for instant in sorted({*range(0, instants, max(1, instants // 25)), *range(instants - 30, instants)})[::every]:
        qlib, refusal = tmp_path / f"failed{instant}", ERRORS[instant % 3]
        shutil.copytree(tmp_path / "base.versions", tmp_path / f"{qlib.name}.versions", symlinks=True)
        qlib.symlink_to(f"{qlib.name}.versions/head")
        with monkeypatch.context() as failing:
            Dying(failing, ALL_CALLS, instant, fails_with=refusal)
            _, failed = outcome_of(partial(rebuild, qlib))
        assert tree(qlib) in ((before, expected) if failed else (expected,)), instant
        left = {path.name for path in qlib.with_name(f"{qlib.name}.versions").iterdir()} - {
            ".lock",
            "head",
            ".head.tmp",
        }
        assert left == ({"v0001"} if tree(qlib) == before else {"v0001", "v0002"}), instant
        assert isinstance(failed, CommitError) == (failed is not None and tree(qlib) == expected), instant

        rebuild(qlib)
        assert tree(qlib) == expected, instant


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from services.converter.__main__ import main
main(once=True)
"""


@pytest.mark.invariant(8)
@pytest.mark.parametrize("limit", [0, 60, 200, 1000, 5000, 20_000, 50_000])
def test_a_file_that_can_be_written_in_part_only_is_shown_in_no_part(tmp_path, limit):
    """Invariant 8: the system itself refuses what goes beyond a size, in the middle of a write."""
    raw, qlib = tmp_path / "raw", tmp_path / "qlib"
    _history(raw)
    convert(raw, qlib, until=None)
    _more(raw)
    before, expected = visible(qlib), rebuilt(raw, tmp_path / "fresh")

    process = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit)],
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(raw), "QLIB_DIR": str(qlib)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 1, process.stderr
    assert "File too large" in process.stderr
    assert "Traceback" not in process.stderr
    assert visible(qlib) == before
    convert(raw, qlib, until=None)
    assert tree(qlib) == expected
