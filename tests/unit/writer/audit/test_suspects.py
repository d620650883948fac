"""Candles that jump are stored, and audited first."""

import pytest

from services.writer.audit.compare import Page
from services.writer.audit.suspects import MOST, Suspects
from tests.support.builders import a_candle, minute


@pytest.mark.parametrize(
    ("prices", "jumps"),
    [((100.0, 101.0), False), ((100.0, 1200.0), True), ((100.0, 9.0), True), ((100.0, 700.0), False)],
)
def test_a_price_that_is_ten_times_its_neighbours_jumps(prices, jumps):
    suspects = Suspects()

    found = [suspects.note(a_candle(open_time=minute(number), price=price)) for number, price in enumerate(prices)]

    assert found == [False, jumps]
    assert list(suspects.pages) == ([Page("BTC_USDT", minute(0), minute(7))] if jumps else [])


def test_another_symbol_and_another_hour_are_no_neighbours():
    suspects = Suspects()

    assert not suspects.note(a_candle(open_time=minute(0), price=100.0))
    assert not suspects.note(a_candle("ETH_USDT", minute(1), price=1.0))
    assert not suspects.note(a_candle(open_time=minute(62), price=1.0))


def test_a_candle_may_jump_inside_itself():
    assert Suspects().note(a_candle(low=1.0, high=100.0, open=2.0, close=50.0))


def test_a_page_is_taken_once_it_has_ended_for_sure_and_once():
    suspects = Suspects()
    suspects.note(a_candle(open_time=minute(10), low=1.0, high=100.0))

    assert suspects.take(minute(15)) is None
    assert suspects.take(minute(16)) == Page("BTC_USDT", minute(5), minute(16))
    assert suspects.take(minute(16)) is None


@pytest.mark.invariant(11)
def test_a_market_that_jumps_all_the_time_fills_no_memory():
    """Invariant 11."""
    suspects = Suspects()
    for number in range(2 * MOST):
        suspects.note(a_candle(open_time=minute(20 * number), low=1.0, high=100.0))

    assert len(suspects.pages) == MOST
