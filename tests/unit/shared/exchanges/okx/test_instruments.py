"""Rows of the list of instruments, recorded or quoted from the documentation."""

from datetime import UTC, datetime

import msgspec
import pytest

from shared.exchanges.base import RowError
from shared.exchanges.okx.instruments import definition_of, instrument_of, listing_of
from shared.exchanges.okx.names import symbol_of
from shared.grid import from_ms
from tests.support.builders import MIDNIGHT, at, minute
from tests.support.okx_rows import INSTRUMENT, INVERSE

PREOPEN = {
    "instType": "SWAP",
    "instId": "NEW-USDT-SWAP",
    "listTime": "1789862400000",
    "state": "preopen",
} | dict.fromkeys(("uly", "settleCcy", "ctType", "ctVal", "instCategory", "expTime", "lotSz", "tickSz"), "")


def test_an_instrument_is_read():
    instrument = instrument_of(INSTRUMENT)

    assert (instrument.symbol, instrument.state, instrument.contract_type) == ("BTC_USDT", "live", "linear")
    assert instrument.list_time == at("2019-11-12 11:16:48")
    assert instrument.eligible


def test_an_inverse_swap_is_eligible_too():
    assert instrument_of(INVERSE).eligible


def test_an_announced_swap_is_read_although_nearly_all_is_empty_and_is_not_eligible():
    instrument = instrument_of(PREOPEN)

    assert instrument.list_time == from_ms(1789862400000)
    assert not instrument.eligible


@pytest.mark.parametrize(
    "change",
    [{"state": "suspend"}, {"state": "rebase"}, {"state": "post_only"}, {"instCategory": "3"}, {"instCategory": "4"}],
)
def test_what_is_not_live_or_not_crypto_is_not_eligible(change):
    assert not instrument_of(INSTRUMENT | change).eligible


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    "value", ["99999999999999999", "2026-10-01T00:00:00Z", "TBD", "-1", "1e12", "1573557408", [], {}]
)
@pytest.mark.parametrize("name", ["listTime", "expTime"])
def test_a_time_that_is_none_costs_its_row_and_the_name_still_counts_as_listed(name, value):
    """Invariant 12: else a member would be taken for delisted for it."""
    listing = listing_of([INSTRUMENT | {name: value}, INVERSE])

    assert set(listing.instruments) == {"BTC_USD"}
    assert listing.names == {"BTC_USDT", "BTC_USD"}
    ((row, reason, _),) = listing.refused
    assert row[name] == value
    assert name in reason


def test_a_name_that_is_listed_twice_is_taken_once():
    again = INSTRUMENT | {"state": "suspend"}

    listing = listing_of([INSTRUMENT, INSTRUMENT, again])

    assert listing.instruments["BTC_USDT"].state == "live"
    assert [row for row, *_ in listing.refused] == [again]


OLD = "1500000000000"
"""Before the swap of the rows above was listed."""


@pytest.mark.parametrize("swapped", [False, True], ids=["junk last", "junk first"])
@pytest.mark.parametrize(
    ("real", "junk"),
    [
        ({}, {"state": "test"}),
        ({}, {"state": "preopen"}),
        ({}, {"instCategory": "3"}),
        ({}, {"ctType": ""}),
        ({"state": "suspend"}, {"state": "test"}),
        ({"state": "suspend"}, {"state": "expired"}),
        ({"state": "preopen", "listTime": "1400000000000"}, {"state": "test"}),
    ],
)
def test_of_names_that_differ_in_case_alone_and_of_a_name_twice_the_one_that_is_traded_stays(real, junk, swapped):
    real, junk = INSTRUMENT | real, INSTRUMENT | {"listTime": OLD} | junk
    rows = [real, junk | {"instId": "btc-USDT-SWAP"}, junk]

    listing = listing_of(rows[::-1] if swapped else rows)

    assert set(listing.instruments) == {"BTC_USDT"}
    assert listing.instruments["BTC_USDT"].state == real["state"]
    assert len(listing.refused) == 2


def test_of_equal_names_that_are_both_live_the_older_stays():
    listing = listing_of([INSTRUMENT, INSTRUMENT | {"instId": "btc-USDT-SWAP", "listTime": OLD}])

    assert set(listing.instruments) == {"btc_USDT"}


@pytest.mark.parametrize("state", ["live", "suspend", "rebase", "post_only"])
def test_a_name_that_was_taken_before_stays_whatever_is_listed_beside_it(state):
    real = INSTRUMENT | {"state": state}

    listing = listing_of(
        [INSTRUMENT | {"instId": "btc-USDT-SWAP", "listTime": OLD}, real], {symbol_of("BTC-USDT-SWAP")}
    )

    assert set(listing.instruments) == {"BTC_USDT"}


def test_of_names_that_differ_in_case_alone_the_one_that_was_listed_first_stays():
    first = INSTRUMENT | {"instId": "ai-USDT-SWAP", "listTime": "1573557408000"}
    second = INSTRUMENT | {"instId": "AI-USDT-SWAP", "listTime": "1573557408001"}

    for rows in ([first, second], [second, first]):
        listing = listing_of(rows)
        assert set(listing.instruments) == {"ai_USDT"}
        assert "AI_USDT and ai_USDT" in listing.refused[0].reason


def test_a_definition_is_what_the_list_says_in_numbers():
    row = {
        "instId": "BTC-USDT-SWAP", "state": "live", "ctType": "linear", "instCategory": "1", "ruleType": "normal",
        "listTime": "1573557408000", "expTime": "", "ctVal": "0.01", "ctValCcy": "BTC", "settleCcy": "USDT",
        "tickSz": "0.1", "lotSz": "0.01", "minSz": "0.02", "lever": "100",
    }  # fmt: skip

    found = definition_of(instrument_of(row), MIDNIGHT, minute(1))

    assert msgspec.structs.asdict(found) == {
        "exchange": "okx",
        "symbol": "BTC_USDT",
        "known_time": MIDNIGHT,
        "state": "live",
        "list_time": datetime(2019, 11, 12, 11, 16, 48, tzinfo=UTC),
        "end_time": None,
        "contract_type": "linear",
        "category": "1",
        "rule_type": "normal",
        "settle_currency": "USDT",
        "contract_value": 0.01,
        "contract_value_currency": "BTC",
        "tick_size": 0.1,
        "lot_size": 0.01,
        "min_size": 0.02,
        "max_leverage": 100.0,
        "receive_time": minute(1),
    }


@pytest.mark.parametrize("size", ["", None, "0", "-1", "1e39", "1e-40", "nan", "Infinity", "ten", True, [], "9" * 50])
def test_a_size_that_is_no_positive_number_is_left_empty_in_a_definition(size):
    row = {"instId": "BTC-USDT-SWAP", "state": "preopen", "ctVal": size}
    try:
        instrument = instrument_of(row)
    except RowError:
        return  # a list: the row is left out, see above

    assert definition_of(instrument, MIDNIGHT, MIDNIGHT).contract_value is None
