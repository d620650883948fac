"""Rows as the exchange sent them: recorded, or quoted from its documentation."""

import pytest

from shared.grid import from_ms
from shared.okx.spelling import (
    SpellingError,
    candle_of,
    candle_window,
    inst_id_of,
    instrument_of,
    is_closed,
    is_eligible,
    is_swap,
    open_time_of,
    predicted_of,
    settled_of,
    settlements_of,
    symbol_of,
)
from tests.support.builders import at, minute

RECEIVED = at("2025-05-13 00:00:30")

# REST, /market/candles, BTC-USDT-SWAP, ctVal 0.01
CANDLE = [
    "1747094040000",
    "102806.1",
    "102820.4",
    "102806.1",
    "102820.4",
    "1040.37",
    "10.4037",
    "1069603.34883",
    "1",
]
# WebSocket, candle1m, XCH-USDT-SWAP
FORMING = ["1700931960000", "26.2", "26.2", "26.2", "26.2", "307", "3.07", "80.434", "0"]
INSTRUMENT = {
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "uly": "BTC-USDT",
    "instFamily": "BTC-USDT",
    "settleCcy": "USDT",
    "ctType": "linear",
    "ctVal": "0.01",
    "ctValCcy": "BTC",
    "ctMult": "1",
    "lotSz": "0.01",
    "state": "live",
    "ruleType": "normal",
    "listTime": "1573557408000",
    "expTime": "",
    "instIdCode": 10459,
    "tradeQuoteCcyList": [],
    "category": "1",
}
INVERSE = {
    "instId": "BTC-USD-SWAP",
    "instType": "SWAP",
    "settleCcy": "BTC",
    "ctType": "inverse",
    "ctVal": "100",
    "ctValCcy": "USD",
    "state": "live",
}
PREOPEN = {
    "instType": "SWAP",
    "instId": "NEW-USDT-SWAP",
    "listTime": "1789862400000",
    "state": "preopen",
} | dict.fromkeys(("uly", "settleCcy", "ctType", "ctVal", "instCategory", "expTime", "lotSz", "tickSz"), "")
FUNDING = {
    "formulaType": "withRate",
    "fundingRate": "0.0001000000000000",
    "fundingTime": "1789833600000",
    "impactValue": "20000.0000000000000000",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "interestRate": "0.0001000000000000",
    "maxFundingRate": "0.00375",
    "method": "current_period",
    "minFundingRate": "-0.00375",
    "nextFundingRate": "",
    "nextFundingTime": "1789862400000",
    "premium": "-0.0001969158061855",
    "prevFundingTime": "1789804800000",
    "settFundingRate": "0.0000418741079605",
    "settState": "settled",
    "ts": "1789824243998",
}
HISTORY = {
    "formulaType": "withRate",
    "fundingRate": "0.0000418741079605",
    "fundingTime": "1788480000000",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "method": "current_period",
    "realizedRate": "0.0000418741079605",
}


def read(row, inst_id="BTC-USDT-SWAP", now=RECEIVED):
    return candle_of(inst_id, row, source="rest", receive_time=RECEIVED, exchange_now=now)


# --- names


@pytest.mark.parametrize(
    ("inst_id", "symbol"),
    [
        ("BTC-USDT-SWAP", "BTC_USDT"),
        ("BTC-USD-SWAP", "BTC_USD"),
        ("BTC-USD_UM-SWAP", "BTC_USD_UM"),
        ("1000PEPE-USDT-SWAP", "1000PEPE_USDT"),
        ("1INCH-USDC-SWAP", "1INCH_USDC"),
    ],
)
def test_names_go_there_and_back(inst_id, symbol):
    assert symbol_of(inst_id) == symbol
    assert inst_id_of(symbol) == inst_id


@pytest.mark.parametrize(
    ("inst_id", "answer"),
    [("BTC-USDT-SWAP", True), ("ETH-USD_UM_XPERP-310404", False), ("BTC-USD-250627", False), ("", False)],
)
def test_x_perps_and_dated_futures_are_no_swaps(inst_id, answer):
    assert is_swap(inst_id) == answer


# --- instruments


def test_an_instrument_is_read():
    instrument = instrument_of(INSTRUMENT)

    assert (instrument.symbol, instrument.state, instrument.contract_type) == ("BTC_USDT", "live", "linear")
    assert instrument.list_time == at("2019-11-12 11:16:48")
    assert is_eligible(instrument)


def test_an_inverse_swap_is_eligible_too():
    assert is_eligible(instrument_of(INVERSE))


def test_an_announced_swap_is_read_although_nearly_all_is_empty_and_is_not_eligible():
    instrument = instrument_of(PREOPEN)

    assert instrument.list_time == from_ms(1789862400000)
    assert not is_eligible(instrument)


@pytest.mark.parametrize(
    "change",
    [{"state": "suspend"}, {"state": "rebase"}, {"state": "post_only"}, {"instCategory": "3"}, {"instCategory": "4"}],
)
def test_what_is_not_live_or_not_crypto_is_not_eligible(change):
    assert not is_eligible(instrument_of(INSTRUMENT | change))


# --- candles


def test_volume_is_in_coins_and_contracts_are_kept():
    candle = read(CANDLE)

    assert candle.contracts == 1040.37
    assert candle.volume == 10.4037
    assert candle.amount == 1069603.34883
    assert candle.volume == pytest.approx(candle.contracts * 0.01)


def test_time_prices_and_origin_are_taken_over():
    candle = read(CANDLE)

    assert candle.open_time == at("2025-05-12 23:54")
    assert (candle.open, candle.high, candle.low, candle.close) == (102806.1, 102820.4, 102806.1, 102820.4)
    assert (candle.exchange, candle.symbol, candle.interval, candle.source) == ("okx", "BTC_USDT", "1m", "rest")


def test_a_quiet_minute_is_a_candle():
    assert read([CANDLE[0], *["26.2"] * 4, "0", "0", "0", "1"]).volume == 0.0


@pytest.mark.invariant(1)
def test_a_forming_row_is_no_candle():
    """Invariant 1: closed is what the exchange confirms."""
    assert not is_closed(FORMING)
    assert open_time_of(FORMING) == from_ms(1700931960000)
    with pytest.raises(SpellingError, match="not closed"):
        read(FORMING, "XCH-USDT-SWAP")


@pytest.mark.invariant(1)
def test_a_row_of_the_days_before_confirm_is_not_closed():
    """Invariant 1: rows had seven columns until 2022."""
    assert not is_closed(["1654155480000", "0.0005", "0.0005", "0.0005", "0.0005", "0", "0"])


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, "soon", "without a time"),
        (0, "9" * 40, "without a time"),
        (0, "1747094040001", "minute grid"),
        (0, "1747095000000", "future"),
        (1, "", "no number"),
        (2, "102806.05", "enclose"),
        (3, "102999.0", "enclose"),
        (4, "nan", "positive finite"),
        (4, "-1", "positive finite"),
        (4, "0", "positive finite"),
        (5, "-1", "negative"),
        (6, "inf", "not finite"),
        (7, None, "no number"),
    ],
)
def test_an_impossible_candle_is_refused_with_the_reason_and_the_row(column, value, reason):
    """Invariant 12."""
    row = [*CANDLE]
    row[column] = value

    with pytest.raises(SpellingError, match=reason) as refused:
        read(row)

    assert repr(row) in str(refused.value)


@pytest.mark.parametrize("row", [[], ["x"], [None], CANDLE[:5]])
def test_a_row_with_too_few_columns_is_refused(row):
    with pytest.raises(SpellingError):
        read(row)


@pytest.mark.invariant(13)
def test_the_exchanges_clock_decides_what_is_the_future():
    """Invariant 13: a replay of last year, or a host that is off, changes nothing."""
    row = [*CANDLE]
    row[0] = "1931094000000"  # 2031

    assert read(row, now=from_ms(1931094000000)).open_time == from_ms(1931094000000)


# --- funding


def test_funding_time_is_the_upcoming_settlement_not_the_one_after():
    prediction = predicted_of(FUNDING, source="ws", receive_time=RECEIVED)

    assert prediction.funding_time == from_ms(1789833600000)
    assert prediction.known_time == from_ms(1789824243998)
    assert (prediction.symbol, prediction.funding_rate) == ("BTC_USDT", 0.0001)


def test_the_interval_is_that_of_the_period_that_ends_at_funding_time():
    switched = FUNDING | {"nextFundingTime": str(1789833600000 + 4 * 3_600_000)}

    assert predicted_of(switched, source="ws", receive_time=RECEIVED).interval_hours == 8


def test_without_the_previous_settlement_the_documented_rule_tells_the_interval():
    recorded_2025 = {name: value for name, value in FUNDING.items() if name != "prevFundingTime"}

    assert predicted_of(recorded_2025, source="ws", receive_time=RECEIVED).interval_hours == 8


def test_an_interval_that_okx_does_not_use_is_unknown():
    odd = FUNDING | {"prevFundingTime": "1789804800001"}

    assert predicted_of(odd, source="ws", receive_time=RECEIVED).interval_hours is None


@pytest.mark.invariant(5)
def test_the_settled_rate_belongs_to_the_previous_settlement():
    """Invariant 5: it is not the prediction beside it, and it is known since it was told."""
    settled = settled_of(FUNDING, period_hours=8, source="ws", receive_time=RECEIVED)

    assert settled.funding_time == from_ms(1789804800000)
    assert settled.funding_rate == 0.0000418741079605
    assert settled.interval_hours == 8
    assert settled.known_time == from_ms(1789824243998)


@pytest.mark.parametrize("absent", ["prevFundingTime", "settFundingRate"])
def test_nothing_is_settled_where_time_or_rate_is_not_told(absent):
    assert settled_of(FUNDING | {absent: ""}, period_hours=8, source="ws", receive_time=RECEIVED) is None


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fundingRate", ""),
        ("fundingRate", "nan"),
        ("fundingRate", "5"),
        ("fundingTime", ""),
        ("ts", None),
        ("prevFundingTime", "soon"),
    ],
)
def test_a_funding_row_that_makes_no_sense_names_the_field(name, value):
    """Invariant 12: an empty rate is not zero."""
    with pytest.raises(SpellingError, match=name):
        predicted_of(FUNDING | {name: value}, source="ws", receive_time=RECEIVED)


def test_zero_is_a_rate():
    assert predicted_of(FUNDING | {"fundingRate": "0"}, source="ws", receive_time=RECEIVED).funding_rate == 0.0


def test_the_history_tells_what_was_charged_not_what_was_predicted():
    row = HISTORY | {"fundingRate": "0.0009", "realizedRate": "0.0001"}

    (settled,) = settlements_of([row], known_time=RECEIVED, receive_time=RECEIVED)

    assert settled.funding_rate == 0.0001
    assert settled.funding_time == from_ms(1788480000000)


def test_the_interval_of_a_past_settlement_is_the_distance_to_the_one_before():
    hour = 3_600_000
    times = [1788480000000, 1788480000000 - 4 * hour, 1788480000000 - 12 * hour]

    settled = settlements_of(
        [HISTORY | {"fundingTime": str(time)} for time in times], known_time=RECEIVED, receive_time=RECEIVED
    )

    assert [rate.interval_hours for rate in settled] == [4, 8, None]


# --- paging


def test_a_window_of_opens_is_spelled_with_two_exclusive_cursors():
    assert candle_window(minute(0), minute(300)) == {"after": "1743829200000", "before": "1743811199999"}
