"""Risk at 365 days a year, compounded."""

import math

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import numpy as np
import pandas as pd
import perps
from perps.risk import too_short
from qlib.contrib.evaluate import risk_analysis


@pytest.mark.parametrize(
    ("freq", "bars"),
    [("day", 365), ("1day", 365), ("60min", 8760), ("240min", 2190), ("1min", 525_600), ("5min", 105_120)],
)
def test_a_year_has_365_days_of_24_hours(freq, bars):
    assert perps.bars_per_year(freq) == bars


@pytest.mark.parametrize("freq", ["week", "1h", "0min", "", "min60"])
def test_other_frequencies_are_refused(freq):
    with pytest.raises(ValueError, match="frequency"):
        perps.bars_per_year(freq)


def test_measures_equal_a_calculation_by_hand():
    measured = perps.risk(pd.Series([0.1, -0.2, 0.05]), "day", enough_days=0)["risk"]
    total = 1.1 * 0.8 * 1.05 - 1
    mean, deviations = -0.05 / 3, (0.1 + 0.05 / 3, -0.2 + 0.05 / 3, 0.05 + 0.05 / 3)
    std = math.sqrt(sum(value**2 for value in deviations) / 2)
    assert measured["total_return"] == pytest.approx(total, rel=1e-12)
    assert measured["annualized_return"] == pytest.approx((1 + total) ** (365 / 3) - 1, rel=1e-12)
    assert measured["std"] == pytest.approx(std, rel=1e-12)
    assert measured["mean_error"] == pytest.approx(std / math.sqrt(3), rel=1e-12)
    assert measured["annualized_volatility"] == pytest.approx(std * math.sqrt(365), rel=1e-12)
    assert measured["information_ratio"] == pytest.approx(mean / std * math.sqrt(365), rel=1e-12)
    assert measured["max_drawdown"] == pytest.approx(-0.2, rel=1e-12)


def test_return_and_drawdown_equal_those_of_qlib_when_it_compounds():
    returns = pd.Series(0.002 + 0.01 * np.random.default_rng(1).standard_normal(500))
    returns.iloc[0] = 0.01  # Qlib's drawdown does not know the capital at the start
    ours = perps.risk(returns, "60min", enough_days=0)["risk"]
    qlib = risk_analysis(returns, N=8760, freq=None, mode="product")["risk"]
    assert ours["annualized_return"] == pytest.approx(qlib["annualized_return"], rel=1e-9)
    assert ours["max_drawdown"] == pytest.approx(qlib["max_drawdown"], rel=1e-9)


def test_the_capital_at_the_start_counts_for_the_drawdown():
    assert perps.risk(pd.Series([-0.1, 0.01]), "day")["risk"]["max_drawdown"] == pytest.approx(-0.1)


def test_who_lost_everything_stays_at_nothing():
    measured = perps.risk(pd.Series([0.5, -1.2, 3.0]), "day", enough_days=0)["risk"]
    assert (measured["total_return"], measured["annualized_return"], measured["max_drawdown"]) == (-1, -1, -1)


def test_bars_without_a_return_are_left_out_and_none_at_all_is_an_error():
    with_gap = perps.risk(pd.Series([float("nan"), 0.1, float("nan"), 0.2]), "day")
    pd.testing.assert_frame_equal(with_gap, perps.risk(pd.Series([0.1, 0.2]), "day"))
    with pytest.raises(ValueError, match="no returns"):
        perps.risk(pd.Series([float("nan")]), "day")


def test_returns_that_never_vary_have_no_ratio():
    assert math.isnan(perps.risk(pd.Series([0.25] * 100), "day")["risk"]["information_ratio"])
    assert math.isnan(perps.risk(pd.Series([0.25]), "day")["risk"]["std"])


def test_a_ratio_comes_with_its_standard_error():
    random = np.random.default_rng(5)
    ratios = [perps.risk(pd.Series(random.normal(0.001, 0.01, 250)), "day")["risk"] for _ in range(300)]

    spread = np.std([one["information_ratio"] for one in ratios])
    assert spread == pytest.approx(ratios[0]["information_ratio_error"], rel=0.15)
    assert ratios[0]["bars"] == 250


@pytest.mark.parametrize(
    ("bars", "freq", "days"),
    [(13, "60min", "0.5 days"), (89, "day", "89.0 days"), (90, "day", None), (2160, "60min", None)],
)
def test_a_sample_that_is_too_short_is_said(bars, freq, days):
    note = too_short(pd.Series([0.01] * bars), freq)

    assert (note is None) if days is None else (f"{bars} bars are {days}" in note)


def test_thirteen_bars_have_a_mean_with_its_error_and_no_sharpe_ratio():
    returns = pd.Series(np.random.default_rng(1).normal(-0.001, 0.002, 13))

    measured = perps.risk(returns, "60min")["risk"]

    assert abs(perps.risk(returns, "60min", enough_days=0)["risk"]["information_ratio"]) > 10
    assert measured[["annualized_return", "information_ratio", "information_ratio_error"]].isna().all()
    assert measured["mean_error"] == pytest.approx(returns.std() / math.sqrt(13))
    assert measured["total_return"] == pytest.approx((1 + returns).prod() - 1)


def test_the_standard_error_of_a_mean_is_how_much_means_of_samples_differ():
    random = np.random.default_rng(5)
    samples = [perps.risk(pd.Series(random.normal(0.001, 0.01, 250)), "day")["risk"] for _ in range(300)]

    assert np.std([one["mean"] for one in samples]) == pytest.approx(samples[0]["mean_error"], rel=0.15)
