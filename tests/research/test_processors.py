"""CSZScore is Qlib's CSZScoreNorm without its loop."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import numpy as np
import pandas as pd
import perps
from hypothesis import given, settings
from hypothesis import strategies as st
from qlib.data.dataset.processor import CSZScoreNorm


def frame(values: np.ndarray, bars: int, dtype: str = "float64") -> pd.DataFrame:
    """Arrange values as a handler does: (datetime, instrument), columns (feature | label, name)."""
    symbols = len(values) // bars
    index = pd.MultiIndex.from_product(
        [pd.date_range("2026-01-01", periods=bars, freq="h"), [f"S{number}" for number in range(symbols)]],
        names=["datetime", "instrument"],
    )
    columns = [("feature", f"F{number}") for number in range(values.shape[1] - 1)] + [("label", "LABEL0")]
    return pd.DataFrame(values, index=index, columns=pd.MultiIndex.from_tuples(columns)).astype(dtype)


@pytest.mark.parametrize("groups", ["feature", "label", ["feature", "label"], None])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-4)])
def test_equals_the_original_on_random_data_with_nan(groups, dtype, tolerance):
    random = np.random.default_rng(3)
    values = random.standard_normal((200 * 12, 5)) * [1, 1e-6, 1e6, 50, 0.01] + [0, 0, 1e6, 3, 0]
    values[random.random(values.shape) < 0.3] = np.nan
    values[:12] = np.nan  # a bar without anything
    values[12:23, 0] = np.nan  # a bar with one symbol
    data = frame(values, 200, dtype).sample(frac=1, random_state=1)  # in any order
    expected = CSZScoreNorm(fields_group=groups)(data.copy())
    result = perps.CSZScore(fields_group=groups)(data.copy())
    assert (result.dtypes == data.dtypes).all()
    pd.testing.assert_frame_equal(result, expected, rtol=tolerance, atol=tolerance)


@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), st.just(float("nan"))),
        min_size=12,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_has_mean_0_and_deviation_1_at_every_bar_where_values_differ(values):
    data = frame(np.array(values).reshape(12, 1), 2)
    scores = perps.CSZScore()(data.copy()).iloc[:, 0]
    for bar, known in data.iloc[:, 0].groupby(level="datetime"):
        part = scores.loc[bar]
        assert (part.isna() == known.loc[bar].isna()).all() or part.isna().all()
        if known.max() > known.min():
            assert part.mean() == pytest.approx(0, abs=1e-6)
            assert part.std() == pytest.approx(1, rel=1e-6)


def test_equal_values_have_no_score():
    assert perps.CSZScore()(frame(np.full((4, 1), 0.5), 1)).isna().all().all()


def test_columns_of_other_groups_are_left_alone():
    data = frame(np.arange(12.0).reshape(6, 2), 2)
    result = perps.CSZScore(fields_group="label")(data.copy())
    pd.testing.assert_frame_equal(result[["feature"]], data[["feature"]])
    assert not result[["label"]].equals(data[["label"]])
