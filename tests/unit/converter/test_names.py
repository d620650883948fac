"""Names in Qlib's folder: any script, and none twice."""

import os
import subprocess
import sys

import pytest

from services.converter.convert import convert
from services.converter.service import is_rebuild_due
from tests.support.builders import a_ranking, minute, store
from tests.support.conversions import rebuilt, some_minutes
from tests.support.provider import tree, values

NAMES = ("龙_USDT", "kPEPE_USDT", "A" * 40 + "_USDT", "ไทย_USDT", "BTC_USDT")


def lines(qlib, market):
    return [line.split("\t")[0] for line in (qlib / "instruments" / f"{market}.txt").read_text("utf-8").splitlines()]


def test_every_symbol_has_one_spelling_in_all_markets(raw, qlib):
    store(raw, [candle for name in NAMES for candle in some_minutes(name, range(1440))])
    store(raw, a_ranking(*NAMES, ranked_time=minute(1)).ranks)

    convert(raw, qlib, until=None)

    assert sorted(lines(qlib, "all")) == sorted(lines(qlib, "top50")) == sorted(NAMES)
    assert all(len(values(qlib, name, "close")) == 1440 for name in NAMES)


def test_a_spelling_outlives_the_raw_files_and_a_new_version(raw, qlib, tmp_path):
    store(raw, some_minutes("kPEPE_USDT", range(1440, 2880)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("kPEPE_USDT", range(1440)))

    convert(raw, qlib, until=None, rebuild=True)

    assert lines(qlib, "all") == ["kPEPE_USDT"]
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")


@pytest.mark.parametrize(("first", "second"), [("AI_USDT", "ai_USDT"), ("ai_USDT", "AI_USDT")])
def test_of_two_that_qlib_takes_for_the_same_the_first_stays_and_nobody_else_is_stopped(raw, qlib, first, second):
    store(raw, some_minutes(first, range(1440)))
    convert(raw, qlib, until=None)
    known = values(qlib, first, "close")
    store(raw, [*some_minutes(second, range(1440, 2880), price=5.0), *some_minutes("BTC_USDT", range(1440, 2880))])

    report = convert(raw, qlib, until=None)

    assert report.unreadable == (second,)
    assert values(qlib, first, "close") == known
    assert lines(qlib, "all") == sorted([first, "BTC_USDT"])


def once(raw, qlib, **environment):
    return subprocess.run(
        [sys.executable, "-m", "services.converter", "--once"],
        env={**os.environ, "DATA_DIR": str(raw), "QLIB_DIR": str(qlib), **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C", "PYTHONUTF8": "1"}])
def test_a_shell_without_a_locale_changes_nothing(raw, qlib, environment):
    store(raw, some_minutes("龙_USDT", range(1440)))

    process = once(raw, qlib, **environment)

    assert process.returncode == 0, process.stderr.decode(errors="replace")
    assert lines(qlib, "all") == ["龙_USDT"]


def test_where_names_can_be_ascii_only_the_start_is_refused_in_a_sentence(raw, qlib):
    store(raw, some_minutes("龙_USDT", range(1440)))

    process = once(raw, qlib, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert process.returncode == 2
    assert b"set PYTHONUTF8=1" in process.stderr


@pytest.mark.parametrize(
    ("complete", "unchanged", "since_last", "due"),
    [
        (True, 59, 1e9, False),
        (True, 61, 1e9, True),
        (True, 61, 599, False),
        (False, 61, 1e9, False),
        (False, 901, 1e9, True),
    ],
)
def test_late_history_is_taken_in_once_it_has_stopped_coming_and_not_too_often(complete, unchanged, since_last, due):
    assert is_rebuild_due(complete, unchanged, since_last) == due
