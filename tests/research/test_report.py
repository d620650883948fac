"""The picture says what the ledger says."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment")

from perps.pnl import begin_of
from perps.report import Earned, days_drawn, report, turnover_by_day
from perps.risk import frequency_of

START = 100_000.0


def a_ledger(bars=120, freq="D", seed=1):
    random = np.random.default_rng(seed)
    index = pd.date_range("2025-09-01", periods=bars, freq=freq, name="datetime")
    turnover = random.uniform(10_000, 90_000, bars)
    frame = pd.DataFrame(
        {
            "price": random.normal(100, 800, bars),
            "funding": random.normal(60, 30, bars),
            "fee": turnover * 5e-4,
            "slippage": turnover * 2e-4,
            "turnover": turnover,
            "liquidations": 0,
            "delistings": 0,
            "unfollowed": 0,
        },
        index=index,
    )
    frame["equity"] = START + (frame["price"] + frame["funding"] - frame["fee"] - frame["slippage"]).cumsum()
    return frame


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def headings(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_prices_funding_and_costs_add_up_to_the_equity():
    earned = Earned(a_ledger(), None, None)

    assert earned.begin == pytest.approx(START)
    np.testing.assert_allclose(earned.price + earned.funding + earned.costs, earned.equity, atol=1e-12)
    np.testing.assert_allclose((1 + earned.returns).cumprod() - 1, earned.equity, atol=1e-12)


def test_drawdown_counts_from_the_start_even_if_the_first_bar_loses():
    ledger = a_ledger(bars=3)
    ledger["price"], ledger["funding"], ledger["fee"], ledger["slippage"] = [-10_000.0, 0.0, 5_000.0], 0.0, 0.0, 0.0
    ledger["equity"] = START + ledger["price"].cumsum()

    assert list(Earned(ledger, None, None).drawdown) == pytest.approx([-0.10, -0.10, -0.05])


def test_turnover_of_hours_is_summed_to_days():
    hours = a_ledger(bars=48, freq="h")

    by_day = turnover_by_day(hours)

    before = hours["equity"].shift(1, fill_value=START)
    assert list(by_day) == pytest.approx(
        [(hours["turnover"] / before)[:24].sum(), (hours["turnover"] / before)[24:].sum()]
    )


def test_the_headline_has_the_figures_of_the_ledger():
    ledger = a_ledger()
    ledger.iloc[7, ledger.columns.get_loc("delistings")] = 2

    written = texts(report(ledger, title="Carry"))

    minus = "\N{MINUS SIGN}"
    total = ledger["equity"].iloc[-1] / begin_of(ledger) - 1
    costs = (ledger["fee"] + ledger["slippage"]).sum() / START
    assert f"{total:+.1%}".replace("-", minus) in written
    assert f"{ledger['funding'].sum() / START:+.1%}" in written
    assert f"{-costs:+.1%}".replace("-", minus) in written
    assert "Carry" in written
    assert any("120 days" in text and "delistings: 2" in text and "liquidations" not in text for text in written)


def test_it_is_written_as_a_picture_too(tmp_path):
    path = tmp_path / "report.png"

    figure = report(a_ledger(), path=path, dpi=70)

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert headings(figure) == ["Equity", "Drawdown", "Where it came from", "Turnover"]


def test_ic_and_benchmark_are_drawn_where_they_are_known():
    ledger = a_ledger(bars=96, freq="h")
    ic = pd.Series(np.linspace(-0.1, 0.3, 96), index=ledger.index)
    ic.iloc[5] = np.nan

    figure = report(ledger, ic=ic, benchmark=pd.Series(0.001, index=ledger.index))

    assert headings(figure)[-1] == "IC"
    assert {"equity", "benchmark", "prices", "funding", "costs", f"{ic.mean():.3f}"} <= set(texts(figure))


def test_a_benchmark_of_zeros_stands_for_none():
    ledger = a_ledger()

    assert "benchmark" not in texts(report(ledger, benchmark=pd.Series(0.0, index=ledger.index)))


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    ledger = a_ledger()
    ledger["funding"] = ledger["price"]  # both lines end at the same place
    ledger["equity"] = START + (2 * ledger["price"] - ledger["fee"] - ledger["slippage"]).cumsum()

    figure = report(ledger)

    figure.canvas.draw()
    boxes = [
        text.get_window_extent()
        for axes in figure.axes
        for text in axes.texts
        if text.get_text() in {"prices", "funding", "costs"}
    ]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[number + 1 :])


def test_nothing_to_report_on_is_said():
    with pytest.raises(ValueError, match="no bar"):
        report(a_ledger().iloc[:0])


@pytest.mark.parametrize(("step", "name"), [("D", "day"), ("h", "60min"), ("min", "1min"), ("4h", "240min")])
def test_the_frequency_is_read_from_the_bars(step, name):
    assert frequency_of(pd.date_range("2025-09-01", periods=5, freq=step)) == name


def test_a_day_of_which_there_is_a_part_is_drawn_as_wide_as_that_part():
    first, end = pd.Timestamp("2026-01-01 11:00"), pd.Timestamp("2026-01-02 00:00")

    begins, widths = days_drawn(pd.DatetimeIndex(["2026-01-01"]), first, end)

    assert begins == [first]
    assert widths == [0.85 * pd.Timedelta(hours=13)]


def test_a_short_sample_is_said_in_the_picture_and_shows_no_sharpe_ratio():
    written = texts(report(a_ledger(bars=13, freq="h")))

    assert any(text.startswith("13 bars are 0.5 days: too short a sample") for text in written)
    (value,) = [written[place - 1] for place, text in enumerate(written) if text.startswith("Sharpe")]
    assert value == "\N{EN DASH}"


def test_a_long_sample_has_a_sharpe_ratio_and_a_mean_with_their_errors():
    ledger = a_ledger(bars=120)

    written = texts(report(ledger))

    returns = Earned(ledger, None, None).returns
    mean, error = 1e4 * returns.mean(), 1e4 * returns.std() / 120**0.5
    assert f"{mean:.1f}".replace("-", "\N{MINUS SIGN}") in written
    assert f"bp a bar ± {error:.1f}" in written
    sharpe, deviation = mean / error * (365 / 120) ** 0.5, ((1 + (mean / error) ** 2 / 240) * 365 / 120) ** 0.5
    assert f"{sharpe:.2f}".replace("-", "\N{MINUS SIGN}") in written
    assert f"Sharpe ± {deviation:.2f}" in written
    assert not any("too short" in text for text in written)


def test_positions_that_were_closed_as_no_longer_followed_are_counted_in_the_picture():
    ledger = a_ledger()
    ledger.iloc[7, ledger.columns.get_loc("unfollowed")] = 3

    assert any("closed as no longer followed: 3" in text for text in texts(report(ledger)))
    assert report(ledger.drop(columns="unfollowed"))  # a ledger that was kept before there was such a column


def test_turnover_a_day_is_that_of_a_day_also_where_there_is_a_part_of_one():
    ledger = a_ledger(bars=12, freq="h")
    ledger["turnover"], ledger["equity"] = 1000.0, START

    assert Earned(ledger, None, None).turnover_a_day == pytest.approx(24 * 1000 / START, rel=1e-3)


def test_ic_of_a_part_of_a_day_is_drawn_as_wide_as_that_part():
    ledger = a_ledger(bars=13, freq="h")

    figure = report(ledger, ic=pd.Series(0.1, index=ledger.index))

    bars = [axes for axes in figure.axes if axes.get_title(loc="left") in {"IC", "Turnover"}]
    widths = [patch.get_width() for axes in bars for patch in axes.patches]
    assert widths == pytest.approx([0.85 * 13 / 24] * 2)
