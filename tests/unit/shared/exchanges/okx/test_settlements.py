"""Rows of the funding history, recorded or quoted from the documentation."""

import pytest

from shared.exchanges.okx.settlements import settlements_of
from shared.grid import from_ms
from tests.support.okx_rows import FUNDING_NOW, HISTORY, RECEIVED


def test_the_history_has_what_was_charged_not_what_was_predicted():
    row = HISTORY | {"fundingRate": "0.0009", "realizedRate": "0.0001"}

    (settled,) = settlements_of("BTC_USDT", [row], known_time=FUNDING_NOW, receive_time=RECEIVED)[0]

    assert settled.funding_rate == 0.0001
    assert settled.funding_time == from_ms(1788480000000)


def test_the_interval_of_a_past_settlement_is_the_distance_to_the_one_before():
    hour = 3_600_000
    times = [1788480000000, 1788480000000 - 4 * hour, 1788480000000 - 12 * hour]

    settled, refused, _ = settlements_of(
        "BTC_USDT",
        [HISTORY | {"fundingTime": str(time)} for time in times],
        known_time=FUNDING_NOW,
        receive_time=RECEIVED,
    )

    assert [rate.interval_hours for rate in settled] == [4, 8, None]
    assert refused == []


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    "odd",
    [
        {"instId": None},
        {"instId": "ETH-USDT-SWAP"},
        {"realizedRate": "n/a"},
        {"fundingTime": "0"},
        {"fundingTime": "17884800000000000"},
        {"fundingTime": "4102444800000"},
    ],
)
def test_a_settlement_that_makes_no_sense_is_left_out_and_no_period_is_invented_across_it(odd):
    """Invariant 12: two periods of 4 hours around a row that was left out are not one of 8."""
    hour = 3_600_000
    rows = [HISTORY | {"fundingTime": str(1788480000000 - number * 4 * hour)} for number in range(4)]
    rows[1] |= odd

    settled, refused, _ = settlements_of("BTC_USDT", rows, known_time=FUNDING_NOW, receive_time=RECEIVED)

    assert [row for row, *_ in refused] == [rows[1]]
    assert [rate.funding_time for rate in settled] == [
        from_ms(1788480000000 - number * 4 * hour) for number in (0, 2, 3)
    ]
    assert all(rate.interval_hours in (None, 4) for rate in settled)
