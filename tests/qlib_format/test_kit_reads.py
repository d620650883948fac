"""The kit reads what the converter has written as Qlib does: calendars by arithmetic, plain fields from the bins."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

from datetime import timedelta

import pandas as pd
import perps
import qlib
from hypothesis import given, settings
from hypothesis import strategies as st
from perps.grid import GridCalendarProvider, GridProvider
from qlib.constant import REG_CN
from qlib.data.cache import H
from qlib.data.data import LocalCalendarProvider

from services.converter.features.fields import FIELDS
from services.converter.qlib.frequencies import FREQUENCIES

BY_THE_KIT = {
    "calendar_provider": {"class": "GridCalendarProvider", "module_path": "perps.grid"},
    "provider": GridProvider,
}


@pytest.fixture(params=[{}, BY_THE_KIT], ids=["plain Qlib", "the kit's calendars"])
def read(request, data, provider):
    """Give Qlib's data interface, with its own calendars or with those of the kit."""
    qlib.init(provider_uri=str(provider.folder), region=REG_CN, kernels=1, **request.param)
    yield data
    qlib.init(provider_uri=str(provider.folder), region=REG_CN, kernels=1)


@pytest.mark.parametrize("frequency", FREQUENCIES, ids=lambda frequency: frequency.name)
@pytest.mark.parametrize("future", [False, True])
def test_every_calendar_is_computed_and_has_the_labels_that_qlib_reads(data, frequency, future):
    H.clear()
    expected, expected_places = LocalCalendarProvider()._get_calendar(frequency.name, future)
    H.clear()
    found, places = GridCalendarProvider()._get_calendar(frequency.name, future)
    H.clear()

    assert isinstance(found, pd.DatetimeIndex)
    assert list(found) == list(expected)
    assert dict(places) == expected_places


@pytest.mark.parametrize("frequency", FREQUENCIES, ids=lambda frequency: frequency.name)
@pytest.mark.parametrize("market", ["all", "top50", "usdt"])
def test_every_field_of_a_market_is_what_qlib_reads(read, frequency, market):
    fields = [f"${field.name}" for field in FIELDS]
    expected = read.features(read.instruments(market), fields, freq=frequency.name)

    pd.testing.assert_frame_equal(
        perps.features(read.instruments(market), fields, freq=frequency.name), expected, check_exact=True
    )
    assert len(expected)


def test_any_span_of_any_symbols_is_what_qlib_reads(read, provider):
    minutes = st.integers(-600, 3 * 1440 + 600)
    instants = st.none() | minutes.map(
        lambda minute: pd.Timestamp(provider.begin.replace(tzinfo=None)) + timedelta(minutes=minute)
    )
    spans = st.lists(st.tuples(instants, instants).filter(all), max_size=3)
    symbols = st.sampled_from([*provider.candles, "UNKNOWN_USDT"])

    @settings(max_examples=60)
    @given(
        st.one_of(
            st.lists(symbols, max_size=4),
            st.dictionaries(symbols, spans, max_size=3),
            st.sampled_from(["all", "top50"]).map(read.instruments),
        ),
        st.lists(st.sampled_from([f"${field.name}" for field in FIELDS]), min_size=1, max_size=4),
        instants,
        instants,
        st.sampled_from([frequency.name for frequency in FREQUENCIES]),
    )
    def holds(market, fields, begin, end, freq):
        expected = read.features(market, fields, begin, end, freq=freq)
        found = perps.features(market, fields, begin, end, freq=freq)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)

    holds()
