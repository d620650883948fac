"""Arguments that make no sense are refused in a sentence that names them."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import re

import pandas as pd
import perps
from perps.arguments import account_of, instant
from perps.dataset import CalendarDataset
from perps.executor import PerpNestedExecutor
from perps.handlers import FundingAlpha158

from tests.research.provider import Symbol, bar, write_provider

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("leverage", 0, "> 0"),
        ("leverage", -1, "> 0"),
        ("leverage", NAN, "> 0"),
        ("leverage", "3", "> 0"),
        ("slippage", 2, ">= 0 and < 1"),
        ("slippage", NAN, ">= 0 and < 1"),
        ("taker_fee", 1.5, "> -1 and < 1"),
        ("maker_fee", NAN, "> -1 and < 1"),
        ("liquidation_fee", NAN, "> -1 and < 1"),
        ("maintenance_margin", -0.1, ">= 0 and < 1"),
        ("patience", "-1D", "length of time >= 0"),
        ("patience", "soon", "length of time >= 0"),
        ("fee", "both", "one of taker, maker"),
        ("liquidation_at", "open", "one of range, close"),
        ("start_time", "soon", "an instant"),
        ("start_time", 20260228, "an instant"),
        ("settled", 5, "the collector's DATA_DIR"),
    ],
)
def test_a_setting_of_the_exchange_that_makes_no_sense_is_named(name, value, allowed):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: it must be .*{allowed}"):
        perps.PerpExchange(**{name: value})


def test_collected_rates_without_their_columns_are_refused():
    with pytest.raises(ValueError, match=r"settled is a DataFrame .* must have funding_time, symbol, funding_rate"):
        perps.PerpExchange(settled=pd.DataFrame())


@pytest.mark.parametrize("account", [0, -5, NAN, "1000", {"A": 1.0}, {"cash": NAN}, {"cash": 1.0, "A": {"price": 2.0}}])
def test_an_account_that_makes_no_sense_is_refused_before_anything_else(account):
    with pytest.raises(ValueError, match=r"^account.* is .*: it must"):
        perps.backtest(None, "2025-04-05", account=account)


@pytest.mark.parametrize("money", [0, -1e5])
def test_an_account_of_nothing_but_cash_needs_some(money):
    with pytest.raises(ValueError, match=r"^account\['cash'\] is .*: it must be a finite number > 0"):
        perps.backtest(None, "2025-04-05", account={"cash": money})


def test_an_account_may_hold_positions():
    account = {"cash": -10.0, "A": 1.0, "B": {"amount": -2.0, "price": 3.0}}

    assert account_of(account) == account


def test_an_instant_with_a_zone_becomes_utc():
    assert instant("start_time", "2025-04-05 02:00+02:00") == pd.Timestamp("2025-04-05")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topk", 0),
        ("topk", 1.5),
        ("topk", True),
        ("leverage", 0),
        ("leverage", NAN),
        ("n_drop", 0),
        ("tolerance", -1),
        ("tolerance", NAN),
    ],
)
def test_a_parameter_of_a_strategy_that_makes_no_sense_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: it must be"):
        perps.LongShortTopK(**({"topk": 2} | {name: value}))


def test_payments_that_are_expected_never_are_refused():
    with pytest.raises(ValueError, match=r"^settlements is nan: it must be"):
        perps.FundingPairs(topk=1, settlements=NAN)


# --- arguments that do not exist


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("slippage", "exchange={'slippage': ...}"),
        ("settled", "exchange={'settled': ...}"),
        ("generate_portfolio_metric", "did you mean generate_portfolio_metrics?"),
        ("foo", "it takes common_infra, generate_portfolio_metrics"),
        ("time_per_step", "it takes"),
    ],
)
def test_an_argument_of_a_backtest_that_does_not_exist_is_named_with_its_place(name, hint):
    with pytest.raises(TypeError, match=f"^perps.backtest takes no argument '{name}': ") as refused:
        perps.backtest(perps.FundingCarry(topk=1), "2025-04-05", **{name: 0.5})
    assert hint in str(refused.value)


def test_a_setting_of_the_exchange_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match=r"^exchange takes no argument 'slipage': did you mean slippage\?"):
        perps.backtest(perps.FundingCarry(topk=1), "2025-04-05", exchange={"slipage": 0.5})


def test_a_backtest_without_its_report_is_refused():
    with pytest.raises(ValueError, match=r"^generate_portfolio_metrics is False: it must be True"):
        perps.backtest(perps.FundingCarry(topk=1), "2025-04-05", generate_portfolio_metrics=False)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (perps.PerpExecutor, ["foo", "slippage"]),
        (PerpNestedExecutor, ["foo", "trade_type"]),
        (perps.PerpExchange, ["foo", "impact_cost"]),
        (lambda **given: perps.LongShortTopK(topk=1, **given), ["foo", "risk_degree", "where"]),
        (lambda **given: perps.FundingCarry(topk=1, **given), ["foo", "signal", "model"]),
        (lambda **given: perps.FundingPairs(topk=1, **given), ["foo", "signal", "n_drop", "per_hour"]),
        (FundingAlpha158, ["foo", "data_loader"]),
        (lambda **given: CalendarDataset(None, {}, **given), ["foo", "handlers"]),
    ],
    ids=["executor", "nested", "exchange", "strategy", "carry", "pairs", "handler", "dataset"],
)
def test_an_argument_that_a_class_of_the_kit_would_ignore_is_refused_by_name(make, names):
    for name in names:
        with pytest.raises(TypeError, match=f"argument '{name}'"):
            make(**{name: None})


def test_what_the_base_in_qlib_takes_is_passed_on():
    exchange = object()

    assert perps.LongShortTopK(topk=1, trade_exchange=exchange).trade_exchange is exchange
    assert perps.FundingPairs(topk=1, where="$close > 1", leverage=2.0, trade_exchange=exchange).where == "$close > 1"


# --- values that make no sense, against a dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    write_provider(folder / "qlib_data", "60min", {"A": Symbol([100.0] * 4), "B": Symbol([10.0] * 4)}, 4)
    perps.init(folder / "qlib_data", experiments=folder / "experiments")


def _signal(values=(1.0, 2.0), zone=None):
    times = pd.DatetimeIndex([bar(0), bar(0)], tz=zone)
    return pd.Series(values, index=pd.MultiIndex.from_arrays([times, ["A", "B"]], names=["datetime", "instrument"]))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"freq": "7min"}, "freq is '7min': it must be one that the dataset has bars of, 60min"),
        ({"freq": 60}, "freq is 60: it must be one"),
        ({"freq": "60minute"}, "freq is '60minute': it must be one"),
        ({"freq": "hourly"}, "freq is 'hourly': it must be one"),
        ({"start_time": 20260228}, "start_time is 20260228: it must be an instant"),
        ({"start_time": None}, "start_time is None: it must be an instant"),
        ({"end_time": 1.5}, "end_time is 1.5: it must be an instant"),
        ({"start_time": "2020-01-01", "end_time": "2020-02-01"}, "there is no bar: the first 60min bar of the dataset"),
        ({"start_time": "2026-01-01 01:10", "end_time": "2026-01-01 01:20"}, "there is no bar"),
        ({}, "signal is None: it must be"),
        ({"strategy": {"class": "X"}}, "strategy is {'class': 'X'}: it must be"),
        ({"strategy": None}, "strategy is None: it must be an instance of a strategy"),
        (
            {"strategy": perps.FundingCarry},
            "strategy is <class 'perps.strategies.FundingCarry'>: it must be an instance",
        ),
        ({"exchange": [1]}, "exchange is [1]: it must be a dict"),
        ({"benchmark": ["A", "NOPE"]}, "benchmark is ['A', 'NOPE']: NOPE has no bars"),
        ({"benchmark": []}, "benchmark is []: it must be"),
        ({"benchmark": 5}, "benchmark is 5: it must be"),
        ({"benchmark": pd.Series(dtype=float)}, "benchmark is a Series of 0 float64"),
        ({"account": {"cash": -500.0, "A": 1.0}}, "account is worth -400 at"),
    ],
)
def test_an_argument_of_a_backtest_that_makes_no_sense_is_named(dataset, given, sentence):
    settings = {
        "strategy": perps.LongShortTopK(topk=1),
        "start_time": bar(1),
        "freq": "60min",
        "exchange": None,
    } | given
    if settings["exchange"] is None:
        settings["exchange"] = {"funding": False}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        perps.backtest(**settings)


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        (_signal(("1", "2")), "signal is a Series of object: it must be a Series or frame of numbers"),
        (_signal()[:0], "signal is a Series without rows: it must be"),
        (_signal(zone="UTC"), "signal is a Series whose datetime has the zone UTC: it must be"),
        (_signal().reset_index(drop=True), "signal is a Series indexed by [None]: it must be"),
        (pd.concat([_signal(), _signal()]), "signal is a Series with two rows of (Timestamp"),
        (_signal().rename_axis([None, None]), "signal is a Series indexed by [None, None]: it must be"),
        (_signal(("1", "2")).to_frame(), "signal is a DataFrame of object: it must be"),
        ("x", "signal is 'x': it must be"),
        ([1, 2], "signal is [1, 2]: it must be"),
        (5, "signal is 5: it must be"),
    ],
)
def test_a_signal_that_symbols_cannot_be_ranked_by_is_refused(signal, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        perps.LongShortTopK(topk=1, signal=signal)


def test_a_signal_of_numbers_is_taken_in_any_order_of_its_levels():
    for signal in (_signal(), _signal((1, 2)), _signal().swaplevel(), _signal().to_frame("score")):
        assert perps.LongShortTopK(topk=1, signal=signal).signal is not None


@pytest.mark.parametrize("name", ["begin", "end"])
def test_a_number_is_no_instant_for_a_dataset(name):
    with pytest.raises(ValueError, match=f"^{name} is 20260228: it must be an instant"):
        CalendarDataset(None, {"train": 0.5, "test": 0.5}, **{name: 20260228})
    time = {"begin": "start_time", "end": "end_time"}[name]
    with pytest.raises(ValueError, match=f"^{time} is 20260228: it must be an instant"):
        FundingAlpha158(**{time: 20260228})
