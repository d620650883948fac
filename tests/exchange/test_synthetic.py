from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulator.engine.market import DAY_MS, HOUR_MS, MINUTE_MS
from services.simulator.engine.synthetic import SyntheticMarket
from services.simulator.okx.spelling import candle_row

NOW = 1_795_000_020_000
MARKET = SyntheticMarket(60, seed=3, start_ms=NOW)
inst_ids = st.sampled_from([name for name, row in MARKET.instruments.items() if row.state(NOW) == "live"])
minutes = st.integers(1_580_000_000_000 // MINUTE_MS, 1_900_000_000_000 // MINUTE_MS)


@settings(max_examples=40, deadline=None)
@given(inst_ids, minutes, st.integers(1, 3_000))
def test_every_minute_is_the_same_however_it_is_reached(inst_id, minute, span):
    begin, end = minute * MINUTE_MS, (minute + span) * MINUTE_MS
    whole = MARKET.candles(inst_id, begin, end)
    again = SyntheticMarket(60, seed=3, start_ms=NOW + DAY_MS)

    assert [row.open_ms for row in whole] == list(range(begin, end, MINUTE_MS))
    assert again.candles(inst_id, end - MINUTE_MS, end) == whole[-1:]
    assert MARKET.newest_candles(inst_id, 0, end, 5) == whole[-5:] or span < 5


@settings(max_examples=40, deadline=None)
@given(inst_ids, minutes)
def test_prices_are_continuous_and_possible(inst_id, minute):
    rows = MARKET.candles(inst_id, minute * MINUTE_MS, (minute + 1_500) * MINUTE_MS)

    for row, following in pairwise(rows):
        assert following.open == row.close
        assert 0 < row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high
        assert row.base_volume > 0 or row.open == row.high == row.low == row.close
        assert (row.quote_volume > 0) == (row.base_volume > 0)


@settings(max_examples=30, deadline=None)
@given(inst_ids, minutes)
def test_contracts_are_whole_lots(inst_id, minute):
    instrument = MARKET.instruments[inst_id]
    lot = Decimal(1) if instrument.inverse else Decimal("0.01")

    for row in MARKET.candles(inst_id, minute * MINUTE_MS, (minute + 20) * MINUTE_MS):
        assert Decimal(candle_row(row, instrument, confirmed=True)[5]) % lot == 0


def test_another_seed_is_another_market():
    other = SyntheticMarket(60, seed=4, start_ms=NOW)

    assert other.candles("BTC-USDT-SWAP", NOW, NOW + HOUR_MS) != MARKET.candles("BTC-USDT-SWAP", NOW, NOW + HOUR_MS)


@pytest.mark.parametrize("count", [1, 8, 60, 300])
def test_the_count_is_that_of_live_linear_crypto_swaps(count):
    instruments = SyntheticMarket(count, seed=1, start_ms=NOW).instruments.values()

    wanted = [row for row in instruments if row.state(NOW) == "live" and row.inst_type == "SWAP"]
    assert sum(row.category == "1" and not row.inverse for row in wanted) == count
    assert {row.category for row in wanted} == {"1", "3", "4"}
    assert {row.state(NOW) for row in instruments} == {"live", "suspend", "announced"}


def test_intervals_are_mixed_and_settlements_lie_on_their_utc_multiples():
    intervals = set()
    for inst_id, instrument in MARKET.instruments.items():
        period = MARKET.funding_period(inst_id, NOW)
        interval = period.funding_ms - period.began_ms
        intervals.add(interval // HOUR_MS)
        assert period.began_ms <= NOW < period.funding_ms
        assert period.funding_ms % interval == 0
        rows = MARKET.settlements(inst_id, NOW - 3 * DAY_MS, NOW)
        assert all(abs(row.rate) <= instrument.rate_cap for row in rows)
        if instrument.state(NOW) == "live":
            assert rows[-1] == period.settled
    assert intervals == {1, 2, 4, 8}


def test_some_instruments_are_hardly_traded_and_the_well_known_always():
    market = SyntheticMarket(200, seed=1, start_ms=NOW)
    quiet = {
        inst_id: sum(row.base_volume == 0 for row in market.candles(inst_id, NOW - DAY_MS, NOW)) / 1440
        for inst_id in list(market.instruments)[:100]
    }

    assert quiet["BTC-USDT-SWAP"] == 0
    assert max(quiet.values()) > 0.9
    assert any(0 < share < 0.2 for share in quiet.values())
