"""Names in Qlib's folder: any script, and none twice."""

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.convert import convert
from services.converter.qlib.names import Names, folder_of
from services.converter.versions.snapshots import take_snapshot
from services.converter.versions.verify import verify
from tests.support.builders import a_ranking, minute, store
from tests.support.conversions import rebuilt, some_minutes
from tests.support.provider import tree, values

NAMES = ("龙_USDT", "kPEPE_USDT", "A" * 40 + "_USDT", "ไทย_USDT", "ß_USDT", "İST_USDT", "CON", "lpt1", "BTC_USDT")


def lines(qlib, market):
    return [line.split("\t")[0] for line in (qlib / "instruments" / f"{market}.txt").read_text("utf-8").splitlines()]


def test_every_symbol_has_one_spelling_in_all_markets(raw, qlib):
    store(raw, [candle for name in NAMES for candle in some_minutes(name, range(1440))])
    store(raw, a_ranking(*NAMES, ranked_time=minute(1)).ranks)

    convert(raw, qlib, until=None)

    assert sorted(lines(qlib, "all")) == sorted(lines(qlib, "top50")) == sorted(NAMES)
    folders = [f"_qlib_{name}" if name in {"CON", "lpt1"} else name for name in NAMES]
    assert all(len(values(qlib, folder, "close")) == 1440 for folder in folders)


def test_what_has_odd_names_is_verified_and_frozen_like_anything_else(raw, qlib):
    store(raw, [candle for name in NAMES for candle in some_minutes(name, range(1440))])
    store(raw, a_ranking(*NAMES, ranked_time=minute(1)).ranks)
    convert(raw, qlib, until=None)

    folder, manifest = take_snapshot(qlib, "paper", created=minute(0))

    assert sorted(manifest.symbols) == sorted(NAMES)
    assert tree(folder) == tree(qlib)
    assert verify(folder, frozen=True).differences == []
    assert verify(qlib, frozen=False).differences == []


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


def test_which_of_two_stays_does_not_depend_on_how_often_was_converted(raw, qlib, tmp_path):
    store(raw, some_minutes("ai_USDT", range(1440)) + some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    store(raw, some_minutes("AI_USDT", range(1440, 2880)) + some_minutes("BTC_USDT", range(1440, 2880)))

    convert(raw, qlib, until=None)

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh")
    assert lines(qlib, "all") == ["BTC_USDT", "ai_USDT"]


def test_a_member_that_qlib_takes_for_another_symbol_is_in_no_market(raw, qlib):
    """Else Qlib gives the bars of one under the name of the other."""
    store(raw, some_minutes("AI_USDT", range(1440)))
    store(raw, a_ranking("AI_USDT", "ai_USDT", "aI_USDT", ranked_time=minute(1)).ranks)

    convert(raw, qlib, until=None)

    assert lines(qlib, "top50") == lines(qlib, "all") == ["AI_USDT"]


@pytest.mark.parametrize("name", ["NA", "NULL", "null", "NaN", "nan", "None"])
def test_a_name_that_pandas_reads_as_no_value_is_left_out_of_every_market(raw, qlib, name):
    store(raw, some_minutes(name, range(1440)) + some_minutes("BTC_USDT", range(1440)))
    store(raw, a_ranking(name, "BTC_USDT", ranked_time=minute(1)).ranks)

    report = convert(raw, qlib, until=None)

    assert report.unreadable == (name,)
    assert lines(qlib, "all") == lines(qlib, "top50") == ["BTC_USDT"]


def test_a_first_conversion_that_died_does_not_decide_how_a_symbol_is_spelled(raw, qlib):
    (qlib / "features" / "ai_usdt").mkdir(parents=True)
    store(raw, some_minutes("ai_USDT", range(1440)))

    assert convert(raw, qlib, until=None).unreadable == ()
    assert lines(qlib, "all") == ["ai_USDT"]


def test_what_others_have_put_among_the_features_is_no_symbol(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)))
    convert(raw, qlib, until=None)
    (qlib / "features" / ".DS_Store").write_bytes(b"x")
    (qlib / "features" / "README").write_bytes(b"x")
    (qlib / "features" / ".Trash").mkdir()
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))

    convert(raw, qlib, until=None)

    assert lines(qlib, "all") == ["BTC_USDT"]


# Of any script, also those whose cases do not lead back.
LETTERS = st.text(alphabet=st.characters(categories=("Lu", "Ll", "Lo", "Nd")), min_size=1, max_size=6)


@given(st.lists(LETTERS.map(lambda text: unicodedata.normalize("NFC", text)), min_size=1, max_size=8))
def test_whoever_is_admitted_has_a_folder_of_its_own_and_is_spelled_as_it_came(symbols):
    names = Names([])
    refused = names.admit(symbols)

    admitted = [symbol for symbol in dict.fromkeys(symbols) if symbol not in refused]
    assert len({folder_of(symbol).casefold() for symbol in admitted}) == len(admitted)
    assert [names.spelled(folder_of(symbol)) for symbol in admitted] == admitted
    assert Names(admitted).admit(symbols) == refused


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
