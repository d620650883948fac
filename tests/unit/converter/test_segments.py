"""Rows that wait in segments are in Qlib as if they were in their day files."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.convert import convert
from services.converter.late import late_days
from services.converter.memory import Memory
from services.converter.stages.calendar import NothingToConvertError
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.storage.segments import segments_of
from tests.support.builders import a_candle, a_verdict, minute
from tests.support.conversions import rebuilt, rows_of_step, some_minutes
from tests.support.provider import tree, values

SYMBOLS = ("AAA_USDT", "BBB_USDT")
STEPS = st.one_of(
    st.tuples(
        st.just("candles"),
        st.sampled_from(SYMBOLS),
        st.integers(0, 3 * 1440 - 1),
        st.integers(1, 300),
        st.integers(1, 9),
    ),
    st.tuples(st.just("funding"), st.sampled_from(SYMBOLS), st.integers(0, 71), st.integers(1, 9)),
    st.tuples(st.just("prediction"), st.sampled_from(SYMBOLS), st.integers(0, 3 * 1440), st.integers(0, 9)),
    st.tuples(st.just("absent"), st.sampled_from(SYMBOLS), st.integers(0, 3 * 1440), st.integers(1, 60)),
    st.tuples(st.just("convert"), st.integers(1, 4 * 1440)),
    st.just(("convert", None)),
    st.just(("merge",)),
)


def _bring(raw, step, known):
    """Append what a step brings."""
    if step[0] == "absent":
        _, symbol, first, count = step
        raw.append({}, [a_verdict("absent", first, first + count, symbol)])
    elif rows := rows_of_step(step, known):
        raw.append({type(rows[0]): rows})


@pytest.mark.invariant(2)
@pytest.mark.invariant(8)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=2, max_size=10))
def test_wherever_rows_are_when_they_are_converted_the_result_is_that_of_a_rebuild(tmp_path_factory, steps):
    """Invariants 2 and 8: in segments, in day files, in both, merged between two conversions."""
    folder = tmp_path_factory.mktemp("history")
    raw, archive, qlib = (folder / name for name in ("raw", "archive", "qlib"))
    for known, step in enumerate(steps, start=10_000):
        if step[0] == "convert":
            with suppress(NothingToConvertError):
                convert(raw, qlib, until=minute(step[1]) if step[1] else None)
        elif step[0] == "merge":
            RawStore(raw).recover()
        else:
            _bring(RawStore(raw), step, known)
            _bring(RawStore(archive), step, known)
    RawStore(archive).recover()
    if not (archive / "kline_1m").exists():
        return

    report = convert(raw, qlib, until=None, history=True)

    assert tree(qlib) == rebuilt(archive, folder / "fresh", report.until)
    RawStore(raw).recover()
    convert(raw, qlib, until=None)
    assert tree(qlib) == tree(folder / "fresh")


@pytest.fixture
def raw(tmp_path):
    """Return a store of two whole days in day files."""
    store = RawStore(tmp_path / "raw")
    store.append({Candle: some_minutes("AAA_USDT", range(2 * 1440))})
    store.recover()
    return store


def test_a_row_that_waits_is_late_once_converted_it_is_not(raw, tmp_path):
    qlib = tmp_path / "qlib"
    convert(raw.root, qlib, until=None)
    raw.append({Candle: [a_candle("AAA_USDT", minute(7), 999.0, receive_time=minute(5000))]})

    assert late_days(raw.root, qlib).patches == 1
    convert(raw.root, qlib, until=None)

    assert values(qlib, "AAA_USDT", "open")[minute(7)] == 999.0
    assert late_days(raw.root, qlib).patches == 0


def test_rows_written_again_as_they_were_are_not_late(raw, tmp_path):
    """A merge that changes nothing, a copy of the folder, a restored backup."""
    qlib = tmp_path / "qlib"
    convert(raw.root, qlib, until=None)
    for path in (raw.root / "kline_1m").rglob("*.parquet"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)

    assert late_days(raw.root, qlib).patches == 0


def test_a_day_of_which_rows_wait_does_not_count_as_converted_as_it_stands(raw, tmp_path):
    """It is not retired before they are merged and converted."""
    qlib = tmp_path / "qlib"
    raw.append({Candle: some_minutes("BBB_USDT", range(10))})

    waiting = convert(raw.root, qlib, until=None).digests
    raw.recover()
    merged = convert(raw.root, qlib, until=None).digests

    assert segments_of(raw.root) == []
    assert waiting["kline_1m/2025-04-05"] != merged["kline_1m/2025-04-05"]
    assert waiting["kline_1m/2025-04-06"] == merged["kline_1m/2025-04-06"]


@pytest.mark.invariant(12)
def test_a_segment_that_cannot_be_read_is_named_and_stops_nothing_else(raw, tmp_path):
    """Invariant 12: where no writer runs, nothing else would say that its rows are not in Qlib."""
    raw.append({Candle: [a_candle("AAA_USDT", minute(2 * 1440))]})
    raw.append({Candle: [a_candle("AAA_USDT", minute(2 * 1440 + 1))]})
    damaged, _ = segments_of(raw.root)
    damaged.path(raw.root).write_bytes(b"torn")

    report = convert(raw.root, tmp_path / "qlib", until=None)

    assert [str(damaged.path(raw.root)) in sentence for sentence in report.unreadable_files] == [True]
    assert report.until == minute(2 * 1440 + 2)


@pytest.mark.invariant(2)
@pytest.mark.parametrize(("known", "counts"), [(5, 2.0), (7000, 1.0)])
def test_a_minute_of_the_running_day_that_comes_again_is_what_the_newest_knowledge_says(raw, tmp_path, known, counts):
    """Invariant 2: an older copy that comes later changes nothing, also for a process that remembers the day."""
    qlib, memory, begin = tmp_path / "qlib", Memory(), 2 * 1440
    raw.append({Candle: [a_candle("AAA_USDT", minute(begin), 2.0, receive_time=minute(6000))]})
    convert(raw.root, qlib, until=minute(begin + 1), memory=memory)

    again = a_candle("AAA_USDT", minute(begin), 1.0, receive_time=minute(known))
    raw.append({Candle: [again, a_candle("AAA_USDT", minute(begin + 1), 3.0, receive_time=minute(6000))]})
    convert(raw.root, qlib, until=minute(begin + 2), memory=memory)

    found = values(qlib, "AAA_USDT", "open")
    assert (found[minute(begin)], found[minute(begin + 1)]) == (counts, 3.0)
