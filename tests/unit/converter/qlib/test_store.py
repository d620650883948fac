"""Bins by offset, judged by an array that grows in both directions."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.qlib.bins import Slice
from services.converter.qlib.frequencies import FREQUENCIES, Frequency
from services.converter.qlib.store import QlibStore
from tests.support.builders import MIDNIGHT, minute

DAILY = next(frequency for frequency in FREQUENCIES if frequency.name == "day")
MINUTELY = FREQUENCIES[0]
VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6)


def part(position, *values):
    return Slice(position, np.array(values, np.float32))


def write(store, *parts, name="close"):
    """Write values; the symbol's bars are theirs."""
    store.write("BTC_USDT", name, DAILY, list(parts), (parts[0].position, parts[-1].end))
    store.name_new()


def read(store, symbol="BTC_USDT", name="close", frequency=DAILY):
    """Return position → value, NaN left out."""
    raw = np.fromfile(store.bin_path(symbol, name, frequency), "<f4")
    return {int(raw[0]) + index: float(value) for index, value in enumerate(raw[1:]) if not np.isnan(value)}


@pytest.fixture
def store(tmp_path):
    return QlibStore(tmp_path)


def test_a_bin_is_its_first_position_and_then_the_values(store):
    write(store, part(3, 1.5, 2.5))

    path = store.root / "features" / "btc_usdt" / "close.day.bin"
    assert path.read_bytes() == np.array([3, 1.5, 2.5], "<f4").tobytes()
    assert store.extent("BTC_USDT", "close", DAILY) == (3, 5)


def test_a_late_value_is_patched_in_place(store):
    write(store, part(0, 1, 2, 3))
    inode = store.bin_path("BTC_USDT", "close", DAILY).stat().st_ino

    write(store, part(1, 9))

    assert read(store) == {0: 1, 1: 9, 2: 3}
    assert store.bin_path("BTC_USDT", "close", DAILY).stat().st_ino == inode


@pytest.mark.invariant(8)
def test_values_are_durable_before_the_calendar_shows_them_and_the_instruments_come_last(store, disk):
    """Invariant 8: also where the power goes, and the bin is patched in place."""
    write(store, part(0, 1))
    store.commit(MIDNIGHT, minute(1440), {})
    disk.calls.clear()

    write(store, part(1, 2))
    store.commit(MIDNIGHT, minute(2 * 1440), {"all": "BTC_USDT"})

    shown = disk.named(store.root / "calendars" / "day.txt")
    assert disk.synced(store.bin_path("BTC_USDT", "close", DAILY)) < shown
    assert disk.named(store.root / "calendars" / "day_future.txt") < shown
    assert shown < disk.named(store.root / "instruments" / "all.txt")


@pytest.mark.invariant(4)
def test_a_hole_is_nan_and_shifts_nothing(store):
    """Invariant 4."""
    write(store, part(0, 1))

    write(store, part(3, 4))

    assert read(store) == {0: 1, 3: 4}
    assert store.extent("BTC_USDT", "close", DAILY) == (0, 4)


def test_values_before_the_start_move_the_start_and_nothing_else(store):
    write(store, part(5, 6, 7))

    write(store, part(2, 3))

    assert read(store) == {2: 3, 5: 6, 6: 7}
    assert store.extent("BTC_USDT", "close", DAILY) == (2, 7)


@settings(deadline=None, max_examples=60)
@given(writes=st.lists(st.tuples(st.integers(0, 30), VALUES), min_size=1, max_size=8))
def test_any_sequence_of_writes_leaves_each_position_with_what_was_written_last(tmp_path_factory, writes):
    store, model = QlibStore(tmp_path_factory.mktemp("store")), {}
    for position, values in writes:
        write(store, part(position, *values))
        model |= {position + index: float(np.float32(value)) for index, value in enumerate(values)}

        assert read(store) == model
        assert store.extent("BTC_USDT", "close", DAILY) == (min(model), max(model) + 1)


def test_a_bin_that_was_torn_in_the_middle_of_a_number_is_made_whole_again(store):
    write(store, part(0, 1, 2))
    path = store.bin_path("BTC_USDT", "close", DAILY)
    with path.open("ab") as handle:
        handle.write(b"\x00\x01")  # killed in the middle of a write

    write(store, part(2, 3))

    assert read(store) == {0: 1, 1: 2, 2: 3}
    assert path.stat().st_size == 16


def test_calendars_are_committed_for_every_frequency_and_never_get_shorter(store):
    store.commit(MIDNIGHT, minute(2880), {"all": ""})
    store.commit(MIDNIGHT, minute(1440), {"all": ""})

    assert store.calendar(MINUTELY) == (MIDNIGHT, 2880)
    assert store.calendar(DAILY) == (MIDNIGHT, 2)


def test_a_calendar_that_grew_is_the_same_as_one_written_at_once(tmp_path):
    grown, whole = QlibStore(tmp_path / "grown"), QlibStore(tmp_path / "whole")
    for until in (60, 61, 1439, 1440, 1441, 4321, 5760):
        grown.commit(MIDNIGHT, minute(until), {})
    whole.commit(MIDNIGHT, minute(5760), {})

    for path in sorted((whole.root / "calendars").iterdir()):
        assert (grown.root / "calendars" / path.name).read_bytes() == path.read_bytes()


def test_nothing_but_calendars_lies_in_the_calendars_folder(store):
    store.commit(MIDNIGHT, minute(1440), {"all": ""})

    names = {path.name for path in (store.root / "calendars").iterdir()}
    assert names == {f"{f.name}.txt" for f in FREQUENCIES} | {f"{f.name}_future.txt" for f in FREQUENCIES if f.future}


def test_a_calendar_of_somebody_else_is_refused_by_name(store):
    (store.root / "calendars").mkdir()
    (store.root / "calendars" / "1min.txt").write_text("2025-04-05 00:00\n2025-04-05 00:01\n")

    with pytest.raises(ValueError, match=r"1min\.txt"):
        store.calendar(Frequency("1min", 1, future=False))


def test_a_bin_holds_all_of_the_symbols_bars_nan_where_nothing_was_given(store):
    store.write("BTC_USDT", "close", DAILY, [part(3, 1, 2)], (1, 7))
    store.name_new()

    assert read(store) == {3: 1, 4: 2}
    assert store.extent("BTC_USDT", "close", DAILY) == (1, 7)


def test_what_is_there_already_is_not_written_again(store, disk):
    store.begin()
    write(store, part(0, 1, 2))
    store.commit(MIDNIGHT, minute(2880), {})
    disk.calls.clear()

    store.begin()
    write(store, part(0, 1, 2))
    store.commit(MIDNIGHT, minute(2880), {})

    assert not disk.calls


@pytest.mark.invariant(8)
def test_what_a_run_that_died_has_written_is_synced_before_it_is_shown(store, disk):
    """Invariant 8: equal to what was read back does not mean durable."""
    store.begin()
    write(store, part(0, 1))
    after = QlibStore(store.root)

    after.begin()
    write(after, part(0, 1))
    after.commit(MIDNIGHT, minute(1440), {})

    shown = disk.named(store.root / "calendars" / "day.txt")
    assert disk.synced(store.bin_path("BTC_USDT", "close", DAILY)) < shown


@pytest.mark.invariant(3)
def test_a_new_bin_is_durable_before_it_has_its_name(store, disk):
    """Invariant 3: also where many are made durable at a time."""
    write(store, part(0, 1))

    path = store.bin_path("BTC_USDT", "close", DAILY)
    assert disk.synced(path) < disk.named(path)


def test_a_disk_that_takes_a_part_at_a_time_gets_all_of_it(store, monkeypatch):
    """A disk that gets full takes less than it is given, and says so only when it is asked again."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, content, at: pwrite(handle, content[:3], at))

    write(store, part(2, 1, 2, 3))
    write(store, part(3, 20, 30, 40))

    assert read(store) == {2: 1, 3: 20, 4: 30, 5: 40}
