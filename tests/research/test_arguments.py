"""Arguments that make no sense are refused in a sentence that names them."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import pandas as pd
import perps
from perps.arguments import account_of, instant
from perps.dataset import CalendarDataset
from perps.executor import PerpNestedExecutor
from perps.handlers import FundingAlpha158

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
