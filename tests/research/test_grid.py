"""Calendars as arithmetic are those that Qlib reads, and nothing but a grid is taken for one."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import perps
import qlib
from hypothesis import given
from hypothesis import strategies as st
from perps.bars import bars_per_day
from perps.grid import GridCalendarProvider, GridProvider, Places, grid_of
from qlib.constant import REG_CN
from qlib.data import D
from qlib.data.cache import H
from qlib.data.data import Cal, LocalCalendarProvider, LocalProvider
from qlib.data.filter import NameDFilter
from qlib.utils import get_date_by_shift
from qlib.workflow.task.utils import TimeAdjuster

from services.converter.qlib.frequencies import FREQUENCIES, calendar_lines
from tests.research.provider import BEGIN, STEPS, Symbol, bar, write_provider

BARS = {"1min": 2000, "60min": 50, "240min": 6, "day": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four frequencies, of which the minutes have no calendar of the future."""
    made = tmp_path_factory.mktemp("grid") / "qlib_data"
    for freq, bars in BARS.items():
        write_provider(made, freq, {"A": Symbol([1.0] * bars)}, bars, future=0 if freq == "1min" else 3)
    return made


@pytest.fixture
def plain(folder):
    """Qlib without the kit."""
    qlib.init(provider_uri=str(folder), region=REG_CN)


@pytest.fixture
def dataset(folder, tmp_path):
    perps.init(folder, experiments=tmp_path / "experiments")
    return folder


def outcome(ask, *arguments, **named):
    """Return what a call returns as a list, or the kind of its error."""
    try:
        found = ask(*arguments, **named)
    except (IndexError, TypeError, ValueError) as error:
        return type(error)
    return list(found)


def of_both(question, *arguments, **named):
    """Return what Qlib's provider answers, and what the kit's does, each with nothing in memory."""
    answers = []
    for provider in (LocalCalendarProvider(), GridCalendarProvider()):
        H.clear()
        answers.append(outcome(getattr(provider, question), *arguments, **named))
    H.clear()
    return answers


@st.composite
def instants(draw, freq):
    """Return a bar of a calendar, something beside one, or something before or after all of them."""
    exact = bar(draw(st.integers(-3, BARS[freq] + 6)), freq)
    beside = timedelta(seconds=draw(st.sampled_from([0, 0, 1, 59, -1, 7200])))
    return draw(st.sampled_from([str, pd.Timestamp, lambda time: time]))(exact + beside)


OUTSIDE = (None, "None", "", "1500-01-01", "9999-12-31", pd.NaT, pd.Timestamp("2026-01-02", tz="UTC"))


@st.composite
def queries(draw):
    freq = draw(st.sampled_from(list(BARS)))
    begin, end = (draw(instants(freq) | st.sampled_from(OUTSIDE)) for _ in range(2))
    return begin, end, freq, draw(st.booleans())


def test_any_part_of_a_calendar_is_what_qlib_reads(plain):
    @given(queries())
    def holds(query):
        expected, found = of_both("calendar", *query)
        assert found == expected

    holds()


def test_any_bar_has_the_place_that_qlib_gives_it(plain):
    @given(queries())
    def holds(query):
        expected, found = of_both("locate_index", *query)
        assert str(found) == str(expected)  # NaT is not equal to itself

    holds()


@pytest.mark.parametrize("freq", BARS)
@pytest.mark.parametrize("future", [False, True])
def test_places_are_the_dict_that_qlib_keeps(plain, freq, future):
    expected = dict(LocalCalendarProvider()._get_calendar(freq, future)[1])
    H.clear()
    bars, places = GridCalendarProvider()._get_calendar(freq, future)

    assert isinstance(places, Places)
    assert (dict(places), len(places), list(bars)) == (expected, len(expected), list(expected))
    for nothing in ("2026-01-01", None, 0, pd.NaT, BEGIN.replace(tzinfo=UTC), BEGIN - timedelta(days=1)):
        assert nothing not in places


@pytest.mark.parametrize("frequency", FREQUENCIES, ids=lambda frequency: frequency.name)
@pytest.mark.parametrize("days", [1, 2, 70])
def test_every_calendar_of_the_converter_is_a_grid(tmp_path, frequency, days):
    for bars in {days * frequency.bars_per_day, max(1, days * frequency.bars_per_day - 7)}:
        text = calendar_lines(frequency, datetime(2024, 1, 31, tzinfo=UTC), 0, bars)
        (tmp_path / "calendar.txt").write_text(text)

        found, places = grid_of(tmp_path / "calendar.txt", bars_per_day(frequency.name))

        assert list(found) == [pd.Timestamp(line) for line in text.splitlines()]
        assert (found.dtype, found.freq, len(places)) == ("datetime64[ns]", None, bars)


LINES = [f"{bar(number)}\n" for number in range(50)]
NO_GRIDS = {
    "a bar less": [*LINES[:30], *LINES[31:]],
    "a bar less and one twice": [*LINES[:30], *LINES[31:40], LINES[39], *LINES[40:]],
    "two bars in each other's place": [*LINES[:30], LINES[31], LINES[30], *LINES[32:]],
    "a day less": [*LINES[:24], *LINES[48:]],
    "begins at one o'clock": LINES[1:],
    "other line ends": [line.replace("\n", "\r\n") for line in LINES],
    "the last line has no end": [*LINES[:-1], LINES[-1].rstrip()],
    "half a line more": [*LINES, "2026-01-03"],
    "an empty line more": [*LINES, "\n"],
    "another spelling": [line.replace(" ", "T") for line in LINES],
    "half hours": [f"{BEGIN + number * timedelta(minutes=30)}\n" for number in range(50)],
    "days": [f"{BEGIN + timedelta(days=number):%F}\n" for number in range(50)],
    "a week as its date": ["2026-W01-4 00:00:00\n", *LINES[1:]],
    "nothing": [],
}


@pytest.mark.parametrize("lines", NO_GRIDS.values(), ids=NO_GRIDS)
def test_another_text_is_no_grid_and_is_left_to_qlib(tmp_path, lines):
    folder = write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol([1.0] * 50)}, 50)
    calendar = folder / "calendars" / "60min.txt"
    calendar.write_bytes("".join(lines).encode())
    qlib.init(provider_uri=str(folder), region=REG_CN)

    assert grid_of(calendar, 24) is None
    expected, found = of_both("calendar", freq="60min")
    assert found == expected


@pytest.mark.parametrize("freq", ["7min", "2day", "week", "1h", "5min"])
@pytest.mark.parametrize("future", [False, True])
def test_a_frequency_that_the_dataset_has_not_is_left_to_qlib(plain, freq, future):
    expected, found = of_both("calendar", freq=freq, future=future)
    assert found == expected


def test_qlib_gets_an_array_of_timestamps_wherever_it_did(dataset):
    for ask in (D.calendar, lambda *args, **named: Cal.calendar(*args, future=True, **named)):
        for begin, end in ((None, None), ("2026-01-01", "2026-01-01 03:00"), ("2026-01-01 00:10", "2026-01-01 00:20")):
            found = ask(begin, end, freq="60min")
            assert isinstance(found, np.ndarray)
            assert found.dtype == object
            assert {type(time) for time in found} <= {pd.Timestamp}


def test_what_qlib_does_with_calendars_has_the_same_outcome(folder, tmp_path):
    def outcomes():
        begin = bar(2, "day")
        yield [get_date_by_shift(begin, shift, future=True) for shift in (-5, -1, 0, 1, 90)]
        yield TimeAdjuster().align_seg(("2026-01-02 07:00", "2026-01-04"))
        yield TimeAdjuster(future=True).max()
        market = D.instruments("all", [NameDFilter("A", "2026-01-03", "2026-01-05")])
        yield D.list_instruments(market, freq="60min")
        yield D.features(market, ["$close", "Ref($close, 1)"], freq="day").reset_index().to_dict()

    qlib.init(provider_uri=str(folder), region=REG_CN, kernels=1)
    expected = list(outcomes())
    perps.init(folder, experiments=tmp_path / "experiments")
    assert str(list(outcomes())) == str(expected)


def test_frames_have_the_index_that_qlib_gives_them(folder, tmp_path):
    def frames():
        return {freq: D.features(["A"], ["$close", "Mean($close, 3)"], freq=freq) for freq in BARS}

    qlib.init(provider_uri=str(folder), region=REG_CN, kernels=1)
    expected = frames()
    perps.init(folder, experiments=tmp_path / "experiments")
    found = frames()

    for freq in BARS:
        pd.testing.assert_frame_equal(found[freq], expected[freq])


def test_plain_qlib_stays_as_it_is(dataset, folder):
    assert (type(Cal._provider), type(D._provider)) == (GridCalendarProvider, GridProvider)
    perps.refresh()
    assert (type(Cal._provider), type(D._provider)) == (GridCalendarProvider, GridProvider)
    qlib.init(provider_uri=str(folder), region=REG_CN)
    assert (type(Cal._provider), type(D._provider)) == (LocalCalendarProvider, LocalProvider)


def test_another_provider_of_calendars_may_be_given(folder, tmp_path):
    perps.init(folder, experiments=tmp_path / "experiments", calendar_provider="LocalCalendarProvider")
    assert len(D.calendar(freq="day")) == BARS["day"]


def test_a_calendar_stays_as_it_is_while_its_file_grows(tmp_path):
    folder = tmp_path / "qlib_data"

    def write(bars):
        write_provider(folder, "1min", {"A": Symbol([1.0] * bars)}, bars, future=0)

    def lengths():
        return [len(D.calendar(freq=freq, future=future)) for freq in ("1min", "min") for future in (False, True)]

    write(100)
    perps.init(folder, experiments=tmp_path / "experiments")
    assert len(D.calendar(freq="1min")) == 100
    write(160)
    # Each of them is asked for the first time, but all of them are one file, which has been read.
    assert lengths() == [100] * 4
    perps.refresh()
    assert lengths() == [160] * 4


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(tmp_path, monkeypatch):
    calendar, grown = tmp_path / "60min.txt", tmp_path / "60min.txt.tmp"
    calendar.write_text("".join(LINES))
    grown.write_text("".join(f"{bar(number)}\n" for number in range(70)))
    date_of = perps.grid._date

    def replaced_meanwhile(text):
        grown.replace(calendar)
        return date_of(text)

    monkeypatch.setattr(perps.grid, "_date", replaced_meanwhile)
    found, _ = grid_of(calendar, 24)
    assert len(found) == 50
    assert STEPS["60min"] == found[1] - found[0]
