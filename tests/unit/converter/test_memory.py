"""What a process remembers of its last conversion saves work, and changes no byte."""

import os
import shutil
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.convert import convert
from services.converter.features.fields import FIELDS, BarRecipe
from services.converter.memory import Memory
from services.converter.stages import compute
from services.converter.stages.calendar import NothingToConvertError
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from tests.support.builders import (
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
    store,
)
from tests.support.conversions import a_ledger_row, rebuilt, some_minutes
from tests.support.dying import WRITING, die_at
from tests.support.provider import labels, tree, values

SYMBOLS = ("AAA_USDT", "BBB_USDT")
SYMBOL = st.sampled_from(SYMBOLS)
BACK = st.integers(0, 400)
"""How many minutes before the newest one something happened that becomes known now."""
ROWS = st.one_of(
    st.tuples(st.just("candles"), SYMBOL, BACK, st.integers(1, 60), st.integers(1, 9)),
    st.tuples(st.just("settled"), SYMBOL, BACK, st.integers(1, 9)),
    st.tuples(st.just("predicted"), SYMBOL, BACK, st.integers(0, 9)),
    st.tuples(st.just("ranking"), SYMBOL, BACK),
    st.tuples(st.just("definition"), SYMBOL, BACK, st.sampled_from(["live", "rebase", "expired"])),
    st.tuples(st.just("ledger"), SYMBOL, BACK, st.integers(0, 30)),
)
RUNS = st.lists(st.tuples(st.lists(ROWS, max_size=3), st.integers(0, 90), st.sets(SYMBOL)), min_size=2, max_size=8)
"""For each run the rows that came before it, by how many minutes it goes on, and who has candles of those."""
BEGIN = 1440 - 120


def rows_of(step, now, known):
    """Return the rows that a step brings at a minute; `known` grows, so that later ones correct earlier ones."""
    kind, symbol, back, *more = step
    at = now - back
    if kind == "candles":
        count, price = more
        return [
            a_candle(symbol, minute(number), price + number / 7, receive_time=minute(known))
            for number in range(at, at + count)
        ]
    if kind == "settled":
        return [a_funding_rate(symbol, minute(at), more[0] / 1000, known_time=minute(known))]
    if kind == "predicted":
        due = minute(at) + timedelta(hours=more[0])
        return [a_prediction(symbol, more[0] / 1000, minute(at), funding_time=due, receive_time=minute(known))]
    if kind == "ranking":
        return a_ranking(symbol, ranked_time=minute(at) + timedelta(milliseconds=known)).ranks
    if kind == "definition":
        return [a_definition(symbol, minute(at), more[0], list_time=minute(at - 30), contract_value=float(1 + back))]
    day, first = divmod(at, 1440)
    return [a_ledger_row(symbol, day, absent=f"{first}-{min(1439, first + more[0])}")]


@pytest.mark.invariant(8)
@pytest.mark.parametrize("stock_fields", [False, True])
@pytest.mark.parametrize("examples", [pytest.param(6, id="some"), pytest.param(100, id="all", marks=pytest.mark.proof)])
def test_minute_by_minute_with_a_memory_it_is_a_rebuild(tmp_path_factory, stock_fields, examples):
    """Invariant 8: rows of the running day that come late, rates known late, verdicts, a midnight in between."""
    recipe = BarRecipe(stock_fields=stock_fields)

    @settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(RUNS)
    def minute_by_minute(runs):
        folder = tmp_path_factory.mktemp("minutes")
        raw, qlib, memory, now = folder / "raw", folder / "qlib", Memory(), BEGIN
        store(raw, some_minutes("AAA_USDT", range(BEGIN - 30, BEGIN)))
        convert(raw, qlib, until=minute(now), recipe=recipe, memory=memory)
        for known, (steps, ahead, alive) in enumerate(runs, start=10_000):
            for step in steps:
                store(raw, rows_of(step, now, known))
            for symbol in sorted(alive):
                store(raw, some_minutes(symbol, range(now, now + ahead), price=known))
            now += ahead
            convert(raw, qlib, until=minute(now), recipe=recipe, memory=memory)

        convert(raw, folder / "fresh", until=minute(now), recipe=recipe)
        assert tree(qlib) == tree(folder / "fresh")

    minute_by_minute()


def begun(raw, qlib, symbols=SYMBOLS, minutes=200):
    """Convert the first minutes of a day twice, so that they are remembered; return the memory."""
    memory = Memory()
    for symbol in symbols:
        store(raw, some_minutes(symbol, range(minutes)))
    convert(raw, qlib, until=minute(minutes), memory=memory)
    return memory


def one_more(raw, qlib, memory, number, symbols=SYMBOLS):
    """Store and convert one more minute."""
    store(raw, [a_candle(symbol, minute(number)) for symbol in symbols])
    return convert(raw, qlib, until=minute(number + 1), memory=memory)


@pytest.mark.invariant(9)
def test_one_more_minute_opens_the_bins_of_the_frequencies_of_which_a_bar_ended(raw, qlib, monkeypatch):
    """Invariant 9: and writes one value into each."""
    memory = begun(raw, qlib)
    one_more(raw, qlib, memory, 200)
    opened, written = [], []
    os_open, pwrite = os.open, os.pwrite
    with monkeypatch.context() as counting:
        counting.setattr(
            os, "open", lambda path, *more, **options: opened.append(str(path)) or os_open(path, *more, **options)
        )
        counting.setattr(os, "pwrite", lambda handle, data, at: written.append(len(data)) or pwrite(handle, data, at))
        one_more(raw, qlib, memory, 201)

    bins = [path for path in opened if path.endswith(".bin")]
    assert {path.rsplit(".", 2)[1] for path in bins} == {"1min"}
    assert written == [4] * len(SYMBOLS) * len(FIELDS)


@pytest.mark.invariant(9)
def test_a_file_that_is_as_it_was_is_not_read_again(raw, qlib, monkeypatch):
    """Invariant 9."""
    memory = begun(raw, qlib)
    read = []
    original = compute.read_candles
    monkeypatch.setattr(
        compute, "read_candles", lambda rows, files, until: read.extend(files) or original(rows, files, until)
    )

    one_more(raw, qlib, memory, 200, symbols=["BBB_USDT"])

    assert [file.symbol for file in read] == ["BBB_USDT"]


def test_a_settlement_that_becomes_known_late_changes_the_bars_since_its_instant(raw, qlib, tmp_path):
    memory = begun(raw, qlib)
    one_more(raw, qlib, memory, 200)

    store(raw, [a_funding_rate("AAA_USDT", minute(150), 0.25, known_time=minute(201))])
    one_more(raw, qlib, memory, 201)

    assert min(values(qlib, "AAA_USDT", "funding_rate")) == minute(150)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", minute(202))


def test_a_dataset_that_another_process_has_converted_is_looked_at_again(raw, qlib, tmp_path):
    memory = begun(raw, qlib)
    store(raw, some_minutes("AAA_USDT", range(200, 260)))
    convert(raw, qlib, until=minute(260))  # as another process does

    store(raw, some_minutes("BBB_USDT", range(200, 270)))
    convert(raw, qlib, until=minute(270), memory=memory)

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", minute(270))


@pytest.mark.parametrize(
    "damage", [os.unlink, lambda path: os.truncate(path, 40), lambda path: path.write_bytes(b"x" * 99)]
)
def test_a_bin_that_somebody_has_changed_is_found_when_it_is_written_and_made_again(raw, qlib, tmp_path, damage):
    memory = begun(raw, qlib)
    one_more(raw, qlib, memory, 200)
    damage(qlib / "features" / "aaa_usdt" / "close.1min.bin")

    one_more(raw, qlib, memory, 201)

    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", minute(202))


@pytest.mark.invariant(8)
def test_a_run_that_dies_leaves_what_the_next_one_makes_a_rebuild(raw, qlib, tmp_path, monkeypatch):
    """Invariant 8: with the memory of before, and without, as a process that was started again."""
    memory = begun(raw, qlib)
    store(raw, [a_candle(symbol, minute(200)) for symbol in SYMBOLS])
    store(raw, [a_candle("AAA_USDT", minute(20), 7.0, receive_time=minute(999))])
    expected = rebuilt(raw, tmp_path / "fresh", minute(201))
    for instant in range(0, 60, 7):
        for known in (memory, Memory()):
            again = tmp_path / f"again{instant}{known is memory}"
            shutil.copytree(qlib, again, symlinks=False)
            one = Memory()
            convert(raw, again, until=minute(200), memory=one) if known is memory else None
            with suppress(NothingToConvertError):
                die_at(monkeypatch, WRITING, instant, partial(convert, raw, again, until=minute(201), memory=one))

            convert(raw, again, until=minute(201), memory=one if known is memory else Memory())

            assert tree(again) == expected, instant


def test_a_day_that_cannot_be_read_waits_and_is_made_good(raw, qlib, tmp_path):
    memory = begun(raw, qlib)
    (file,) = (raw / "kline_1m").glob("date=*/AAA_*.parquet")
    good = file.read_bytes()
    file.write_bytes(b"torn")
    store(raw, [a_candle("BBB_USDT", minute(200))])

    report = convert(raw, qlib, until=minute(201), memory=memory)

    assert report.unreadable == ("AAA_USDT",)
    assert len(labels(qlib, "1min")) == 201
    file.write_bytes(good)
    one_more(raw, qlib, memory, 201)
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", minute(202))


def test_nothing_is_remembered_of_another_recipe_or_day(raw, qlib, tmp_path):
    memory = begun(raw, qlib)

    memory.trust(qlib.resolve(), BarRecipe("keep").name(), minute(201))
    assert memory.manifest is None

    memory = begun(raw, tmp_path / "other")
    memory.trust((tmp_path / "other").resolve(), BarRecipe().name(), minute(1441))
    assert memory.manifest is None
    assert memory.held == {}


def test_rows_that_wait_in_segments_and_are_merged_in_between_are_taken_from_where_they_are(raw, qlib, tmp_path):
    writer, memory = RawStore(raw), Memory()
    writer.append({Candle: [row for symbol in SYMBOLS for row in some_minutes(symbol, range(100))]})
    for number in range(100, 112):
        rows = [a_candle(symbol, minute(number)) for symbol in SYMBOLS]
        rows.append(a_candle("AAA_USDT", minute(number - 50), 7.0 + number, receive_time=minute(number)))
        writer.append({Candle: rows, FundingRate: [a_funding_rate("BBB_USDT", minute(number - 3), number / 1e4)]})
        if number % 5 == 0:
            writer.recover()
        convert(raw, qlib, until=minute(number + 1), memory=memory)

    writer.recover()
    assert tree(qlib) == rebuilt(raw, tmp_path / "fresh", minute(112))
