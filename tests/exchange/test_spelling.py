import re
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.simulator.engine.decimals import plain, power_of_ten, shifted
from services.simulator.engine.forming import partial_candle
from services.simulator.engine.funding import predicted_rate, settlement_state
from services.simulator.engine.market import Candle, FundingPeriod, Instrument, Settlement
from services.simulator.okx.spelling import candle_row, instrument_row

PLAIN = re.compile(r"-?\d+(\.\d*[1-9])?")
numbers = st.floats(min_value=1e-12, max_value=1e15) | st.sampled_from([0.0, 0.00000123, 1e16, 1e-9, 123456.0])
INSTRUMENT = Instrument("ADA-USDT-SWAP", list_ms=0, contract_exponent=2, price_decimals=4)


@given(numbers)
def test_a_number_is_a_plain_decimal_that_reads_back_exactly(number):
    text = plain(number)

    assert float(text) == number
    assert PLAIN.fullmatch(text)


@given(numbers, st.integers(-8, 8))
def test_contracts_are_the_volume_shifted_exactly(number, exponent):
    text = shifted(number, exponent)

    assert Decimal(text) * Decimal(power_of_ten(exponent)) == Decimal(repr(number))
    assert PLAIN.fullmatch(text)


def test_a_candle_row_is_spelled_like_the_exchange_does():
    candle = Candle(1747094040000, 102806.1, 102820.4, 102806.1, 102820.4, 10.4037, 1069603.34883)
    btc = Instrument("BTC-USDT-SWAP", list_ms=0, contract_exponent=-2, price_decimals=1)

    row = candle_row(candle, btc, confirmed=True)

    assert ",".join(row) == "1747094040000,102806.1,102820.4,102806.1,102820.4,1040.37,10.4037,1069603.34883,1"


@given(
    st.lists(st.integers(1, 10**6), min_size=4, max_size=4),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 60_000), min_size=2, max_size=2),
)
def test_a_forming_minute_stays_within_itself_and_grows(prices, volume, instants):
    lowest, *between, highest = sorted(prices)
    candle = Candle(0, between[0] / 1e4, highest / 1e4, lowest / 1e4, between[1] / 1e4, volume / 1e3, volume / 7)

    earlier, later = (partial_candle(candle, at, 4) for at in sorted(instants))

    assert earlier.open == candle.open
    assert candle.low <= later.low <= earlier.low <= earlier.close <= earlier.high <= later.high <= candle.high
    assert 0 <= earlier.base_volume <= later.base_volume <= candle.base_volume
    assert partial_candle(candle, 60_000, 4) == candle


def test_the_prediction_leads_from_the_settled_rate_to_the_next():
    period = FundingPeriod(0, 100, 200, Settlement(0, 0.001), 0.003)

    assert [predicted_rate(period, at) for at in (0, 25, 50)] == [0.001, 0.0015, 0.002]


def test_before_the_first_settlement_the_prediction_grows_from_nothing():
    assert predicted_rate(FundingPeriod(0, 100, 200, None, 0.004), 25) == 0.001


def test_a_settlement_is_processed_for_ten_seconds():
    period = FundingPeriod(0, 28_800_000, 57_600_000, Settlement(0, 0.001), 0.003)

    assert [settlement_state(period, at) for at in (0, 9_999, 10_000)] == ["processing", "processing", "settled"]


def test_an_announced_instrument_has_four_fields_and_is_complete_five_minutes_before_its_listing():
    instrument = Instrument("NEW-USDT-SWAP", list_ms=10**9, contract_exponent=0, price_decimals=2)

    announced, ready, live = (instrument_row(instrument, 10**9 - before) for before in (600_000, 300_000, 0))

    assert {name for name, value in announced.items() if value} == {"instId", "instType", "listTime", "state"}
    assert (announced["state"], ready["state"], live["state"]) == ("preopen", "preopen", "live")
    assert (announced["ctVal"], ready["ctVal"], ready["tickSz"], ready["settleCcy"]) == ("", "1", "0.01", "USDT")


def test_a_delisting_is_announced_a_day_ahead():
    instrument = Instrument("OLD-USDT-SWAP", 0, 0, 2, delist_ms=10**9)

    assert instrument_row(instrument, 10**9 - 86_400_001)["expTime"] == ""
    assert instrument_row(instrument, 10**9 - 86_400_000)["expTime"] == str(10**9)
