"""Arguments that make no sense are refused in a sentence that names them."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import pandas as pd
import perps
from perps.arguments import account_of, instant

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
