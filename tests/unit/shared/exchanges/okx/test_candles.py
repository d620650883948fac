"""Candle rows, recorded or quoted from the documentation."""

import pytest

from shared.exchanges.base import RowError
from shared.exchanges.okx.candles import candle_window, is_closed, open_time_of
from shared.grid import from_ms
from tests.support.builders import at, minute
from tests.support.okx_rows import CANDLE, candle_in

# WebSocket, candle1m, XCH-USDT-SWAP
FORMING = ["1700931960000", "26.2", "26.2", "26.2", "26.2", "307", "3.07", "80.434", "0"]


def test_volume_is_in_coins_and_contracts_are_kept():
    candle = candle_in(CANDLE)

    assert candle.contracts == 1040.37
    assert candle.volume == 10.4037
    assert candle.amount == 1069603.34883
    assert candle.volume == pytest.approx(candle.contracts * 0.01)


def test_time_prices_and_origin_are_taken_over():
    candle = candle_in(CANDLE)

    assert candle.open_time == at("2025-05-12 23:54")
    assert (candle.open, candle.high, candle.low, candle.close) == (102806.1, 102820.4, 102806.1, 102820.4)
    assert (candle.exchange, candle.symbol, candle.interval, candle.source) == ("okx", "BTC_USDT", "1m", "rest")


def test_a_quiet_minute_is_a_candle():
    assert candle_in([CANDLE[0], *["26.2"] * 4, "0", "0", "0", "1"]).volume == 0.0


@pytest.mark.invariant(1)
def test_a_forming_row_is_no_candle():
    """Invariant 1: closed is what the exchange confirms."""
    assert not is_closed(FORMING)
    assert open_time_of(FORMING) == from_ms(1700931960000)
    with pytest.raises(RowError, match="not closed"):
        candle_in(FORMING, "XCH-USDT-SWAP")


@pytest.mark.invariant(1)
def test_a_row_of_the_days_before_confirm_is_not_closed():
    """Invariant 1: rows had seven columns until 2022."""
    assert not is_closed(["1654155480000", "0.0005", "0.0005", "0.0005", "0.0005", "0", "0"])


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, "soon", "no time"),
        (0, "9" * 40, "no time"),
        (0, "1747094040001", "minute grid"),
        (0, "1747095000000", "future"),
        (1, "", "no number"),
        (2, "102806.05", "enclose"),
        (3, "102999.0", "enclose"),
        (4, "nan", "no number"),
        (4, "-1", "positive number"),
        (4, "0", "positive number"),
        (5, "-1", "a volume"),
        (6, "inf", "no number"),
        (4, "1e39", "positive number"),
        (4, "1e-46", "positive number"),
        (7, "1e39", "a volume"),
        (5, True, "no number"),
        (1, ["1"], "no number"),
        (1, "1_000", "no number"),
        (1, "\u0661", "no number"),  # a digit of another script
        (7, None, "no number"),
    ],
)
def test_an_impossible_candle_is_refused_with_the_reason_and_the_row(column, value, reason):
    """Invariant 12."""
    row = [*CANDLE]
    row[column] = value

    with pytest.raises(RowError, match=reason) as refused:
        candle_in(row)

    if reason != "no time":
        assert repr(row) in str(refused.value)


@pytest.mark.parametrize("row", [[], ["x"], [None], CANDLE[:5]])
def test_a_row_with_too_few_columns_is_refused(row):
    with pytest.raises(RowError):
        candle_in(row)


@pytest.mark.invariant(13)
def test_the_exchanges_clock_decides_what_is_the_future():
    """Invariant 13: a replay of last year, or a host that is off, changes nothing."""
    row = [*CANDLE]
    row[0] = "1931094000000"  # 2031

    assert candle_in(row, now=from_ms(1931094000000)).open_time == from_ms(1931094000000)


def test_a_window_of_opens_is_spelled_with_two_exclusive_cursors():
    assert candle_window(minute(0), minute(300)) == {"after": "1743829200000", "before": "1743811199999"}
