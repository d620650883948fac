"""What a model sees: funding at its own pace, a label that can be earned, nothing from the future."""

import shutil
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.research.market_folder import HOURS_PER_DAY, ORIGIN, Market, write_folder

qlib = pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-research")

from perps.bars import bars_per_day  # noqa: E402
from perps.dataset import CalendarDataset, check_trainable, divide, first_bar  # noqa: E402
from perps.handlers import (  # noqa: E402
    LEARN_PROCESSORS,
    FundingAlpha158,
    funding_features,
    price_return,
    total_return,
    within_life,
)
from perps.operators import register  # noqa: E402
from qlib.data import D  # noqa: E402

from tests.research.provider import Symbol, write_provider  # noqa: E402

MARKET = Market(symbols=6, days=42)
CUT_DAYS = 33


def open_folder(folder):
    qlib.init(provider_uri=str(folder), region="cn", kernels=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("handlers") / "qlib_data", MARKET)


@pytest.fixture(scope="module")
def frames(folder):
    """Give frequency → what the handler has for a learner, raw."""
    open_folder(folder)
    return {
        freq: FundingAlpha158(instruments="all", freq=freq).fetch(col_set=["feature", "label"], data_key="raw")
        for freq in ("day", "60min")
    }


def raw(freq, *fields):
    frame = D.features(D.instruments("all"), [f"${field}" for field in fields], freq=freq)
    frame.columns = fields
    return frame.astype("float64")


def of(series, symbol):
    return series.xs(symbol, level="instrument")


def test_everything_of_alpha158_comes_first_and_funding_after_it(frames):
    names = list(frames["60min"]["feature"].columns)

    assert names[:3] == ["KMID", "KLEN", "KMID2"]
    assert names[158:] == funding_features("60min")[1]
    assert len(set(names)) == len(names)


def test_a_day_has_the_names_of_an_hour_but_those_that_need_several_bars(frames):
    hours, days = (set(frames[freq]["feature"].columns) for freq in ("60min", "day"))

    assert hours - days == {"FDEV1D", "FSTD1D", "FCORR1D", "COVER1D"}
    assert days < hours


@pytest.mark.parametrize("days", [1, 3, 7, 14, 30])
def test_funding_of_some_days_is_the_same_at_every_frequency(frames, days):
    daily = frames["day"]["feature"][f"FPAID{days}D"].dropna()
    hourly = frames["60min"]["feature"][f"FPAID{days}D"]

    last_hours = hourly[hourly.index.get_level_values("datetime").hour == HOURS_PER_DAY - 1].copy()
    last_hours.index = last_hours.index.set_levels(
        last_hours.index.levels[0].normalize(), level=0, verify_integrity=False
    )
    common = daily.index.intersection(last_hours.index)
    assert len(common) == len(daily)
    np.testing.assert_allclose(daily[common], last_hours[common], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("freq", ["day", "60min"])
def test_funding_features_are_what_pandas_makes_of_the_fields(folder, frames, freq):
    open_folder(folder)
    fields = raw(freq, "close", "funding_rate", "funding_predicted", "funding_interval", "funding_paid", "funding_rank")
    per_day = bars_per_day(freq)
    for symbol in ("BTC_USDT", "NEW_USDT", "GONE_USDT"):
        one, found = of_symbol(fields, symbol), of(frames[freq]["feature"], symbol)
        week = 7 * per_day
        paid = one["funding_paid"].rolling(week, min_periods=1).sum()
        expected = {
            "FRATE": one["funding_rate"],
            "FNEXT8H": one["funding_predicted"] * 8 / one["funding_interval"],
            "FTURN": one["funding_predicted"] - one["funding_rate"],
            "FCLIMB": one["funding_rank"].shift(per_day) - one["funding_rank"],
            "FPAID7D": paid,
            "FSHORT7D": paid - (one["close"] / one["close"].shift(week) - 1),
            "FDEV7D": one["funding_rate"] - one["funding_rate"].rolling(week, min_periods=1).mean(),
            "FSTD7D": one["funding_rate"].rolling(week, min_periods=1).std(),
        }
        for name, series in expected.items():
            np.testing.assert_allclose(found[name], series, rtol=2e-3, atol=2e-7, err_msg=f"{symbol} {name}")


def of_symbol(fields, symbol):
    return fields.xs(symbol, level="instrument")


def test_the_label_of_an_hour_is_what_a_position_over_the_next_hour_earns_funding_included(folder, frames):
    """The signal of 06:00 is known at 07:00, bought then, sold at 08:00, and the settlement of 08:00 is paid."""
    open_folder(folder)
    fields = raw("60min", "open", "funding_paid")
    label = frames["60min"]["label"]["TOTAL_RETURN"]
    times = [pd.Timestamp(ORIGIN + timedelta(days=20, hours=hour)) for hour in (6, 7, 8)]
    signal, bought, sold = ((time, "BTC_USDT") for time in times)

    opens = [fields.loc[(symbol, time), "open"] for time, symbol in (bought, sold)]
    paid = fields.loc[("BTC_USDT", times[2]), "funding_paid"]
    assert paid != 0
    assert label[signal] == pytest.approx(opens[1] / opens[0] - 1 - paid, abs=1e-7)


@pytest.mark.parametrize("horizon", [1, 3, 8])
def test_a_label_of_some_hours_pays_what_settles_from_its_second_open_to_its_last(folder, horizon):
    open_folder(folder)
    fields = of(raw("60min", "open", "funding_paid"), "BTC_USDT")

    label = of(D.features(["BTC_USDT"], total_return("60min", horizon)[0], freq="60min").iloc[:, 0], "BTC_USDT")

    entered, left = fields["open"].shift(-1), fields["open"].shift(-1 - horizon)
    paid = sum(fields["funding_paid"].shift(-2 - bar) for bar in range(horizon))
    np.testing.assert_allclose(label, left / entered - 1 - paid, rtol=1e-4, atol=1e-6)


def test_the_label_of_a_day_pays_the_funding_of_the_day_that_it_holds(folder, frames):
    open_folder(folder)
    fields = raw("day", "open", "funding_paid").xs("BTC_USDT", level="instrument")
    label = of(frames["day"]["label"]["TOTAL_RETURN"], "BTC_USDT")

    expected = fields["open"].shift(-2) / fields["open"].shift(-1) - 1 - fields["funding_paid"].shift(-1)
    np.testing.assert_allclose(label, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.invariant(5)
@pytest.mark.parametrize("freq", ["day", "60min"])
def test_features_do_not_change_when_the_future_is_cut_off(folder, frames, freq, tmp_path):
    """Invariant 5: every feature of every bar up to a time, computed from data that ends there."""
    bars = CUT_DAYS * bars_per_day(freq)
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "calendars" / f"{freq}_future.txt").unlink()
    calendar = cut / "calendars" / f"{freq}.txt"
    calendar.write_text("".join(calendar.read_text().splitlines(keepends=True)[:bars]))
    for path in cut.glob(f"features/*/*.{freq}.bin"):
        values = np.fromfile(path, "<f4")
        values[: 1 + max(0, bars - int(values[0]))].tofile(path)

    open_folder(cut)
    before = FundingAlpha158(instruments="all", freq=freq).fetch(col_set="feature", data_key="raw")

    whole = frames[freq]["feature"]
    last = before.index.get_level_values("datetime").max()
    pd.testing.assert_frame_equal(before, whole[whole.index.get_level_values("datetime") <= last])
    assert last == D.calendar(freq=freq)[-1]
    assert len(D.calendar(freq=freq)) == bars


@pytest.mark.invariant(6)
def test_a_universe_has_the_bars_of_its_members_only_with_windows_from_before(folder, frames):
    """Invariant 6."""
    open_folder(folder)
    members = FundingAlpha158(instruments="top50", freq="60min").fetch(col_set="feature", data_key="raw")

    spans = D.list_instruments(D.instruments("top50"), freq="60min")
    expected = {
        (time, symbol)
        for symbol, parts in spans.items()
        for begin, end in parts
        for time in pd.date_range(begin, end, freq="h")
    }
    assert set(members.index) == expected
    pd.testing.assert_frame_equal(members, frames["60min"]["feature"].loc[members.index])


def test_a_learner_gets_labels_as_z_scores_of_their_bar_without_a_loop(folder):
    open_folder(folder)
    label = FundingAlpha158(instruments="all", freq="day").fetch(col_set="label", data_key="learn").iloc[:, 0]

    by_bar = label.groupby(level="datetime")
    np.testing.assert_allclose(by_bar.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(by_bar.std(), 1, atol=1e-4)
    assert [processor["class"] for processor in LEARN_PROCESSORS] == ["CSZScore", "DropnaLabel"]


def test_a_horizon_reaches_the_label():
    handler = FundingAlpha158.__new__(FundingAlpha158)
    handler._freq, handler._horizon = "day", 5

    assert handler.get_label_config() == within_life(total_return("day", 5))


def test_another_label_and_other_processors_can_be_asked_for(folder):
    open_folder(folder)
    handler = FundingAlpha158(freq="day", label=price_return(), learn_processors=[{"class": "DropnaLabel"}])

    label = handler.fetch(col_set="label", data_key="learn")
    opens = raw("day", "open")["open"].groupby(level="instrument")
    expected = (opens.shift(-2) / opens.shift(-1) - 1).dropna().swaplevel().sort_index()
    assert list(label.columns) == ["PRICE_RETURN"]
    np.testing.assert_allclose(label.iloc[:, 0].sort_index(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("freq", ["week", "7min", "2day"])
def test_a_frequency_that_does_not_divide_a_day_is_refused(freq):
    with pytest.raises(ValueError, match=freq):
        bars_per_day(freq)


# --- Segments as shares of the time


def test_shares_of_the_calendar_follow_each_other_with_a_gap_for_the_label():
    calendar = list(pd.date_range("2025-01-01", periods=100, freq="D"))

    segments = divide(calendar, {"train": 0.6, "valid": 0.2, "test": 0.2}, gap=2)

    assert {name: tuple(calendar.index(time) for time in ends) for name, ends in segments.items()} == {
        "train": (0, 57),
        "valid": (60, 77),
        "test": (80, 99),
    }


@pytest.mark.parametrize(
    ("bars", "shares", "reason"),
    [
        (9, {"train": 0.6, "test": 0.4}, "too few"),
        (100, {"train": 0.6, "test": 0.5}, "shares"),
        (100, {"train": 0.6, "test": 0.0}, "shares"),
        (100, {}, "shares"),
        (20, {"train": 0.1, "test": 0.9}, "train"),
    ],
)
def test_shares_that_make_no_sense_are_refused_with_the_reason(bars, shares, reason):
    with pytest.raises(ValueError, match=reason):
        divide(list(pd.date_range("2025-01-01", periods=bars, freq="D")), shares)


def test_a_dataset_takes_shares_or_dates(folder):
    open_folder(folder)
    handler = FundingAlpha158(freq="day", instruments="all")
    days = D.calendar(freq="day")
    dates = {"train": (days[0], days[20]), "test": (days[23], days[40])}

    by_share = CalendarDataset(handler, {"train": 0.5, "test": 0.5}, freq="day", gap=2)
    by_date = CalendarDataset(handler, dates)

    times = by_share.prepare("train").index.get_level_values("datetime")
    half = len(days) // 2
    assert (times.min(), times.max()) == (days[0], days[half - 3])
    assert by_share.prepare("test").index.get_level_values("datetime").min() == days[half]
    assert by_date.segments == dates


# --- the unit of a price

LEVELS = {"A": 1e-9, "B": 1e-4, "C": 1.0, "D": 2.0**17}
"""Symbol → what its prices are multiplied by, and its coins divided by; the market is the same."""


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """Give the features of one market at four price levels."""
    random, bars = np.random.default_rng(3), 200
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.001, bars)))
    open_ = np.concatenate([close[:1], close[:-1]])
    spread = close * random.uniform(0, 0.0005, bars)
    amount = random.uniform(1, 1000, bars)
    rate = 1e-4 + np.round(random.normal(0, 2e-6, bars), 9)
    symbols = {
        name: Symbol(
            close * level,
            0,
            {
                "open": open_ * level,
                "high": (np.maximum(open_, close) + spread) * level,
                "low": (np.minimum(open_, close) - spread) * level,
                "volume": amount / close / level,
                "amount": amount,
                "vwap": close * level,
                "funding_rate": rate,
                "funding_paid": rate,
            },
        )
        for name, level in LEVELS.items()
    }
    open_folder(write_provider(tmp_path_factory.mktemp("levels") / "qlib_data", "60min", symbols, bars))
    names = ("funding_interval", "minutes_to_funding", "funding_rank", "coverage")
    handler = FundingAlpha158(instruments="all", freq="60min", learn_processors=[])
    frame = handler.fetch(col_set="feature", data_key="raw").astype("float64")
    return frame[[name for name in frame if not any(field in name for field in names)]]


@pytest.mark.parametrize("symbol", ["A", "B", "D"])
def test_the_unit_of_a_price_decides_about_no_feature(levels, symbol):
    ours, plain = of(levels, symbol), of(levels, "C")

    pd.testing.assert_frame_equal(ours.isna(), plain.isna())
    for name in plain:
        if plain[name].notna().any():
            worst = (ours[name] - plain[name]).abs().max()
            assert worst <= 5e-3 * max(plain[name].abs().median(), 1e-12), name


def test_correlations_of_cheap_coins_and_of_usual_funding_rates_exist(levels):
    cheap = of(levels, "A").iloc[70:]

    for name in ("CORR5", "CORR60", "CORD20", "RSQR20", "FCORR1D", "FCORR3D"):
        assert cheap[name].notna().all(), name
        assert cheap[name].std() > 0.01, name


def test_a_window_that_does_not_vary_has_no_correlation(tmp_path):
    flat = {"A": Symbol([0.3] * 40), "B": Symbol(list(np.linspace(1, 2, 40)))}
    open_folder(write_provider(tmp_path / "qlib_data", "60min", flat, 40))
    register()

    found = D.features(["A", "B"], ["RelCorr($close, $volume, 5)", "RelRsquare($close, 5)"], freq="60min")

    assert of(found, "A").isna().all().all()
    assert of(found, "B").iloc[:, 1].iloc[5:].to_numpy() == pytest.approx(1.0, abs=1e-6)


# --- nothing to learn from


def test_one_symbol_has_nobody_to_be_compared_with_and_that_is_said(tmp_path):
    closes = list(100 + np.random.default_rng(1).normal(0, 1, 400).cumsum())
    open_folder(write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol(closes)}, 400))

    with pytest.raises(
        ValueError, match=r"nothing to learn from: no row of the 60min bars of all has a label.*MARKET=all"
    ):
        FundingAlpha158(instruments="all", freq="60min")


def test_what_has_no_label_after_the_comparison_is_dropped(folder):
    open_folder(folder)

    learned = FundingAlpha158(instruments="all", freq="60min").fetch(col_set="label", data_key="learn")

    assert len(learned)
    assert learned.notna().all().all()


@pytest.mark.parametrize(
    ("group", "values"), [("label", [1.0, 1.0]), ("label", [np.nan, np.nan]), ("feature", [2.0, 2.0])]
)
def test_a_constant_training_set_is_refused(group, values):
    other = "feature" if group == "label" else "label"
    columns = pd.MultiIndex.from_tuples([(group, "X"), (other, "Y")])
    frame = pd.DataFrame([[values[0], 1.0], [values[1], 2.0]], columns=columns)

    with pytest.raises(ValueError, match=f"the {group}s of these bars are constant"):
        check_trainable(frame, "these bars")


# --- a young installation


def a_handler(market):
    settings = {"freq": "60min", "instruments": market}
    return {"class": "FundingAlpha158", "module_path": "perps.handlers", "kwargs": settings}


def test_the_span_begins_with_the_first_member(tmp_path):
    path = write_folder(tmp_path / "qlib_data", Market(symbols=4, days=30))
    first = ORIGIN + timedelta(days=20)
    line = f"S00_USDT\t{first:%Y-%m-%d %H:%M:%S}\t2099-12-31 23:59:59\n"
    (path / "instruments" / "top50.txt").write_text(line)
    open_folder(path)

    assert first_bar("top50", "60min") == pd.Timestamp(first.replace(tzinfo=None))
    segments = CalendarDataset(
        a_handler("all"),
        {"train": 0.6, "test": 0.4},
        freq="60min",
    ).segments
    assert segments["train"][0] == D.calendar(freq="60min")[0]


def test_too_young_a_market_is_said_with_what_would_work(tmp_path):
    path = write_folder(tmp_path / "qlib_data", Market(symbols=4, days=30))
    (path / "instruments" / "top50.txt").write_text("")
    last = ORIGIN + timedelta(days=30, hours=-3)
    (path / "instruments" / "top50.txt").write_text(f"S00_USDT\t{last:%Y-%m-%d %H:%M:%S}\t2099-12-31 23:59:59\n")
    open_folder(path)

    with pytest.raises(ValueError, match=r"top50: 3 bars of data are too few.*720 60min bars, 3 of them.*MARKET=all"):
        CalendarDataset(
            a_handler("top50"),
            {"train": 0.6, "test": 0.4},
            freq="60min",
        )
