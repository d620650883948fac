"""Plain fields read from the bins are what `D.features` returns, whatever the bins look like."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

from datetime import timedelta

import numpy as np
import pandas as pd
import perps
import qlib
from hypothesis import given, settings
from hypothesis import strategies as st
from perps.features import overlap, size, union
from qlib.config import C
from qlib.constant import REG_CN
from qlib.data import D
from qlib.data.filter import ExpressionDFilter, NameDFilter

from tests.research.provider import Symbol, bar, write_provider

BARS = {"1min": 90, "60min": 40, "day": 12}
#: Symbol → field → (place of the first value, how many); 40 is the length of a calendar, 12 that of another.
BINS = {
    "WHOLE": {"close": (0, 40), "open": (0, 40), "volume": (0, 40)},
    "LATE": {"close": (9, 31), "open": (9, 31), "volume": (9, 31)},
    "SHORT": {"close": (0, 7), "open": (2, 5)},
    "PARTS": {"close": (0, 4), "open": (8, 20), "volume": (35, 5)},
    "LONG": {"close": (0, 200), "open": (5, 100)},
    "AHEAD": {"close": (300, 5)},
    "EMPTY": {"close": (3, 0)},
    "CON": {"close": (1, 39)},
    "NOTHING": {},
}
FIELDS = ("$close", "$open", "$volume", "$Close", "$ close", "$nothing")
SYMBOLS = [*BINS, "whole", "UNKNOWN"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three frequencies of odd bins, and two markets: of whole lives, and of members with several spans."""
    made = tmp_path_factory.mktemp("features") / "qlib_data"
    random = np.random.default_rng(1)
    for freq, bars in BARS.items():
        write_provider(made, freq, {}, bars)
        for symbol, fields in BINS.items():
            place = made / "features" / ("_qlib_con" if symbol == "CON" else symbol.lower())
            place.mkdir(parents=True, exist_ok=True)
            for field, (first, count) in fields.items():
                values = random.random(count)
                values[random.random(count) < 0.2] = np.nan
                np.concatenate([[first], values]).astype("<f4").tofile(place / f"{field}.{freq}.bin")
    (made / "instruments" / "all.txt").write_text("".join(f"{name}\t{bar(0)}\t2099-12-31 23:59:59\n" for name in BINS))
    spans = [("WHOLE", 0, 3), ("WHOLE", 5, 5), ("WHOLE", 20, 90), ("LATE", 0, 2), ("PARTS", 3, 9), ("PARTS", 30, 37)]
    rows = [f"{name}\t{bar(begin)}\t{bar(end)}\n" for name, begin, end in spans]
    (made / "instruments" / "members.txt").write_text("".join(rows))
    return made


@pytest.fixture(params=["perps.init", "qlib.init"])
def dataset(request, folder, tmp_path):
    if request.param == "perps.init":
        perps.init(folder, experiments=tmp_path / "experiments")
    else:
        qlib.init(provider_uri=str(folder), region=REG_CN, kernels=1)
    return folder


def instants():
    """Return bars of any frequency, something beside them, before and after all of them, in any form."""
    exact = st.builds(bar, st.integers(-5, 45), st.sampled_from(list(BARS)))
    beside = st.builds(timedelta, seconds=st.sampled_from([0, 0, 0, 30, -1]))
    forms = st.sampled_from([str, pd.Timestamp, lambda time: time])
    return st.builds(lambda form, time, more: form(time + more), forms, exact, beside)


def markets():
    """Return instruments in each form that `D.features` takes."""
    symbols = st.lists(st.sampled_from(SYMBOLS), max_size=5)
    far = st.sampled_from(["1700-01-01", pd.Timestamp("9999-12-31"), pd.NaT])
    spans = st.lists(st.tuples(instants() | far, instants() | far), max_size=3)
    return st.one_of(
        symbols,
        symbols.map(tuple),
        symbols.map(np.array),
        symbols.map(pd.Index),
        st.dictionaries(st.sampled_from(SYMBOLS), st.none() | spans, max_size=4),
        st.sampled_from(["all", "members"]).map(D.instruments),
        st.just(D.instruments("all", [NameDFilter("L", str(bar(2, "day")), None)])),
        st.just(D.instruments("members", [ExpressionDFilter("$close > 0.5")])),
    )


def outcome(ask, *arguments):
    try:
        return ask(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever Qlib raises, the other has to raise
        return type(error)


def agree(*query):
    expected, found = outcome(D.features, *query), outcome(perps.features, *query)
    if isinstance(expected, type):
        assert found is expected
        return
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_column_type=True, check_index_type=True)
    assert found.index.names == expected.index.names
    for ours, theirs in zip(found.index.levels, expected.index.levels, strict=True):
        assert list(ours) == list(theirs)
    assert found.index.is_monotonic_increasing == expected.index.is_monotonic_increasing


def test_any_query_of_plain_fields_is_answered_as_qlib_does(dataset):
    @settings(max_examples=300)
    @given(
        markets(),
        st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4),
        st.none() | instants(),
        st.none() | instants(),
        st.sampled_from(list(BARS)),
    )
    def holds(market, fields, begin, end, freq):
        agree(market, fields, begin, end, freq)

    holds()


@pytest.mark.parametrize(
    ("market", "fields", "freq"),
    [
        (["WHOLE"], ["$close", "Ref($close, 1)"], "60min"),
        (["WHOLE"], ["$$close_q"], "60min"),
        (["WHOLE"], ["$"], "60min"),
        (["WHOLE"], [], "60min"),
        (["WHOLE"], "$close", "60min"),
        ("WHOLE", ["$close"], "60min"),
        (3, ["$close"], "60min"),
        ([], ["$close"], "60min"),
        ({}, ["$close"], "60min"),
        (["UNKNOWN"], ["$close"], "60min"),
        (["WHOLE"], ["$close"], "5min"),
        (["WHOLE"], ["$close"], "min"),
        (["WHOLE"], ["$close"], "DAY"),
        (["WHOLE"], ["$close"], "week"),
        (["WHOLE"], ["$close"], "1h"),
        ({"market": "nowhere", "filter_pipe": []}, ["$close"], "60min"),
    ],
)
def test_what_is_no_query_of_plain_fields_is_answered_by_qlib(dataset, market, fields, freq):
    agree(market, fields, None, None, freq)


def test_fields_may_come_from_anywhere(dataset):
    expected = D.features(["WHOLE"], ["$close", "$open"], freq="day")
    found = perps.features(["WHOLE"], (f"${name}" for name in ("close", "open")), freq="day")
    pd.testing.assert_frame_equal(found, expected)


def test_a_frame_is_one_block_that_may_be_written_to(dataset):
    found = perps.features(["WHOLE", "LATE"], ["$close", "$open"], freq="60min")
    found["$close"] += 1
    found.loc[("WHOLE", bar(3)), "$open"] = 7.0
    assert found.loc[("WHOLE", bar(3)), "$open"] == 7.0
    assert perps.features(["WHOLE"], ["$open"], freq="60min").loc[("WHOLE", bar(3)), "$open"] != 7.0


def test_no_expression_is_evaluated_for_plain_fields(dataset, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Qlib was asked")

    monkeypatch.setattr(D._provider, "features", refuse)
    assert len(perps.features(D.instruments("all"), ["$close"], freq="day"))
    with pytest.raises(AssertionError, match="Qlib was asked"):
        perps.features(D.instruments("all"), ["$close+1"], freq="day")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("feature_provider", {"class": "LocalFeatureProvider", "module_path": "qlib.data"}),
        ("expression_cache", "DiskExpressionCache"),
        ("dataset_cache", "SimpleDatasetCache"),
    ],
)
def test_other_providers_and_caches_of_qlib_are_asked(folder, tmp_path, monkeypatch, setting, value):
    perps.init(folder, experiments=tmp_path / "experiments")
    C[setting] = value
    monkeypatch.setattr(D._provider, "features", lambda *query: query)

    assert perps.features(["WHOLE"], ["$close"], freq="day") == (["WHOLE"], ["$close"], None, None, "day")


def test_a_corrected_value_is_seen_at_once_and_a_new_bar_after_a_refresh(tmp_path):
    def write(closes):
        return write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol(closes)}, len(closes))

    def closes():
        return perps.features(["A"], ["$close"], freq="60min")["$close"].tolist()

    perps.init(write([1, 2, 3]), experiments=tmp_path / "experiments")
    assert closes() == [1, 2, 3]
    write([1, 5, 3, 4])
    assert closes() == [1, 5, 3]
    perps.refresh()
    assert closes() == [1, 5, 3, 4]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", np.float32("nan").tobytes(), np.array([0, 1, 2], "<f4").tobytes() + b"\0\0"],
    ids=["nothing", "half a place", "no place", "half a value"],
)
def test_a_damaged_bin_is_named(tmp_path, content):
    folder = write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol([1.0] * 9)}, 9)
    path = folder / "features" / "a" / "open.60min.bin"
    path.write_bytes(content)
    perps.init(folder, experiments=tmp_path / "experiments")

    assert isinstance(outcome(D.features, ["A"], ["$open"], None, None, "60min"), type)
    with pytest.raises(ValueError, match=f"{path}: damaged"):
        perps.features(["A"], ["$open"], freq="60min")


def test_bytes_behind_the_calendar_do_no_harm(tmp_path):
    """A converter writes there before it shows the bars."""
    folder = write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol([1.0] * 9)}, 9)
    with (folder / "features" / "a" / "close.60min.bin").open("ab") as file:
        file.write(b"\0\0")
    perps.init(folder, experiments=tmp_path / "experiments")
    agree(["A"], ["$close"], None, None, "60min")


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


def bars_in(ranges):
    return {place for first, end in ranges for place in range(first, end)}


@given(RANGES, RANGES)
def test_ranges_are_the_bars_in_them(one, other):
    merged, both = union(one), overlap(union(one), union(other))

    assert bars_in(merged) == bars_in(one)
    assert bars_in(both) == bars_in(one) & bars_in(other)
    for ranges in (merged, both):
        assert size(ranges) == len(bars_in(ranges))
        assert ranges == sorted(ranges)
