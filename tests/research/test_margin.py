"""The arithmetic of margin."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from perps.margin import Ask, breach, opening_share

MONEY = st.floats(0, 1e6)
ASKS = st.lists(st.builds(Ask, MONEY, MONEY, st.floats(-0.001, 0.01)), min_size=1, max_size=5)


def after(equity, gross, asks, share):
    costs = sum((ask.reducing + share * ask.opening) * ask.cost for ask in asks)
    return equity - costs, gross + sum(share * ask.opening - ask.reducing for ask in asks)


@given(equity=st.floats(-1e5, 1e6), gross=MONEY, asks=ASKS, leverage=st.floats(0.5, 20))
def test_what_is_opened_stays_within_the_leverage_and_is_as_much_as_possible(equity, gross, asks, leverage):
    share = opening_share(equity, gross, asks, leverage)
    scale = 1 + abs(equity) + gross + sum(ask.reducing + ask.opening for ask in asks)
    left, notional = after(equity, gross, asks, share)
    assert 0 <= share <= 1
    if share > 0 and any(ask.opening for ask in asks):
        assert notional <= leverage * left + 1e-9 * leverage * scale
    if share < 1 and (more := min(share + 1e-3, 1.0)) > share:
        left, notional = after(equity, gross, asks, more)
        assert notional >= leverage * left - 1e-9 * leverage * scale


def test_who_has_nothing_opens_nothing_and_reduces_all_the_same():
    assert opening_share(-1.0, 100.0, [Ask(50, 10, 0.001)], 3.0) == 0.0
    assert opening_share(-1.0, 100.0, [Ask(50, 0, 0.001)], 3.0) == 1.0


PRICES = st.lists(st.floats(1, 1000), min_size=3, max_size=3).map(np.array)


@given(
    cash=st.floats(-1e5, 1e5),
    amounts=st.lists(st.floats(-100, 100), min_size=3, max_size=3).map(np.array),
    begin=PRICES,
    worst=PRICES,
    maintenance=st.floats(0, 0.2),
)
def test_at_the_breach_equity_is_the_maintenance_margin(cash, amounts, begin, worst, maintenance):
    def surplus(prices):
        return cash + amounts @ prices - maintenance * (np.abs(amounts) @ prices)

    way = breach(cash, amounts, begin, worst, maintenance)
    if way is None:
        assert surplus(begin) >= 0
        assert surplus(worst) >= 0
        return
    assume(surplus(begin) >= 0 or way == 0)
    scale = 1 + abs(cash) + np.abs(amounts) @ (begin + worst)
    assert 0 <= way <= 1
    if way > 0:
        assert abs(surplus(begin + way * (worst - begin))) <= 1e-9 * scale
    else:
        assert surplus(begin) <= 0
