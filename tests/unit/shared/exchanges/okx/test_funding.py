"""Rows of the funding stream and list, recorded or quoted from the documentation."""

import pytest

from shared.exchanges.base import RowError
from shared.exchanges.okx.funding import predicted_of, predictions_of, settled_of
from shared.grid import from_ms
from tests.support.okx_rows import FUNDING, FUNDING_NOW, RECEIVED


def test_funding_time_is_the_upcoming_settlement_not_the_one_after():
    prediction = predicted_of(FUNDING, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert prediction.funding_time == from_ms(1789833600000)
    assert prediction.known_time == from_ms(1789824243998)
    assert (prediction.symbol, prediction.funding_rate) == ("BTC_USDT", 0.0001)


def test_the_interval_is_that_of_the_period_that_ends_at_funding_time():
    switched = FUNDING | {"nextFundingTime": str(1789833600000 + 4 * 3_600_000)}

    assert predicted_of(switched, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours == 8


def test_without_the_previous_settlement_the_documented_rule_gives_the_interval():
    recorded_2025 = {name: value for name, value in FUNDING.items() if name != "prevFundingTime"}

    assert predicted_of(recorded_2025, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours == 8


def test_an_interval_that_okx_does_not_use_is_unknown():
    odd = FUNDING | {"prevFundingTime": "1789804800001"}

    assert predicted_of(odd, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours is None


@pytest.mark.invariant(5)
def test_the_settled_rate_belongs_to_the_previous_settlement():
    """Invariant 5: it is not the prediction beside it, and it is known since it was published."""
    settled = settled_of(FUNDING, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert settled.funding_time == from_ms(1789804800000)
    assert settled.funding_rate == 0.0000418741079605
    assert settled.interval_hours == 8
    assert settled.known_time == from_ms(1789824243998)


@pytest.mark.parametrize("absent", ["prevFundingTime", "settFundingRate"])
def test_nothing_is_settled_where_time_or_rate_is_not_given(absent):
    assert (
        settled_of(FUNDING | {absent: ""}, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)
        is None
    )


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fundingRate", ""),
        ("fundingRate", "nan"),
        ("fundingRate", "5"),
        ("fundingTime", ""),
        ("ts", None),
        ("fundingTime", "0"),
        ("fundingTime", "17898336000000000"),
        ("fundingTime", "1889833600000"),
        ("ts", "1889833600000"),
        ("fundingRate", True),
    ],
)
def test_a_funding_row_that_makes_no_sense_names_the_field(name, value):
    """Invariant 12: an empty rate is not zero."""
    with pytest.raises(RowError, match=name):
        predicted_of(FUNDING | {name: value}, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)


def test_zero_is_a_rate():
    assert (
        predicted_of(
            FUNDING | {"fundingRate": "0"}, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW
        ).funding_rate
        == 0.0
    )


@pytest.mark.parametrize("value", ["0", "", None, "soon", 0, [], "17898336000000000"])
def test_a_previous_settlement_that_is_no_time_is_one_that_is_not_there(value):
    row = FUNDING | {"prevFundingTime": value}

    prediction = predicted_of(row, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert prediction.interval_hours == 8  # by the documented rule
    assert settled_of(row, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW) is None


@pytest.mark.parametrize("gone", [("nextFundingTime",), ("nextFundingTime", "prevFundingTime")])
@pytest.mark.parametrize("empty", [None, "absent"])
def test_a_row_without_the_fields_that_come_and_go_is_read(gone, empty):
    row = {name: value for name, value in FUNDING.items() if name not in gone or empty is None}
    row |= dict.fromkeys(gone) if empty is None else {}

    prediction = predicted_of(row, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert (prediction.funding_rate, prediction.funding_time) == (0.0001, from_ms(1789833600000))


@pytest.mark.parametrize(
    ("rate", "cap", "flag"),
    [
        ("0.00375", "0.00375", None),
        ("-0.00375", "0.00375", None),
        ("0.0038", "0.00375", "beyond its cap, -0.00375 to 0.00375"),
        ("0.99", "0.015", "beyond its cap, -0.015 to 0.015"),
        ("0.05", "", None),
        ("0.0501", "", "beyond 5%"),
        ("-0.99", None, "beyond 5%"),
        ("0.99", "99", "beyond 5%"),
    ],
)
def test_a_rate_beyond_its_cap_is_kept_and_flagged(rate, cap, flag):
    caps = {"maxFundingRate": cap, "minFundingRate": f"-{cap}" if cap else cap}
    row = FUNDING | caps | {"fundingRate": rate, "settFundingRate": rate}

    predicted = predicted_of(row, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)
    settled = settled_of(row, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert (predicted.funding_rate, predicted.flag) == (settled.funding_rate, settled.flag) == (float(rate), flag)


@pytest.mark.invariant(6)
def test_a_rate_that_is_there_twice_is_ranked_once_and_the_newest_counts():
    """Invariant 6: a symbol has one place."""
    newer = FUNDING | {"ts": str(int(FUNDING["ts"]) + 1), "fundingRate": "0.0002"}

    rates, refused, _ = predictions_of([newer, FUNDING], source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert [rate.funding_rate for rate in rates] == [0.0002]
    assert refused == []
