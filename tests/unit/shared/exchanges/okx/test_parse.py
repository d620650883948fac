"""Rows as the exchange sent them: recorded, or quoted from its documentation."""

import contextlib
import math
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.datasets.registry import decode, encode
from shared.exchanges.okx.decoding import Unreadable
from shared.exchanges.okx.parse import (
    RowError,
    candle_of,
    candle_window,
    definition_of,
    exchange_time_of,
    inst_id_of,
    instrument_of,
    is_closed,
    is_swap,
    listing_of,
    maintenances_of,
    newest_time_of,
    open_time_of,
    predicted_of,
    predictions_of,
    settled_of,
    settlements_of,
    symbol_of,
)
from shared.grid import from_ms
from tests.support.builders import MIDNIGHT, at, minute

RECEIVED = at("2025-05-13 00:00:30")
FUNDING_NOW = from_ms(1789824250000)
"""Just after the funding row below."""

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
    with pytest.raises(RowError, match="not closed"):
        read(FORMING, "XCH-USDT-SWAP")


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
        read(row)

    if reason != "no time":
        assert repr(row) in str(refused.value)


@pytest.mark.parametrize("row", [[], ["x"], [None], CANDLE[:5]])
def test_a_row_with_too_few_columns_is_refused(row):
    with pytest.raises(RowError):
        read(row)


@pytest.mark.invariant(13)
def test_the_exchanges_clock_decides_what_is_the_future():
    """Invariant 13: a replay of last year, or a host that is off, changes nothing."""
    row = [*CANDLE]
    row[0] = "1931094000000"  # 2031

    assert read(row, now=from_ms(1931094000000)).open_time == from_ms(1931094000000)


# --- funding


def test_funding_time_is_the_upcoming_settlement_not_the_one_after():
    prediction = predicted_of(FUNDING, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert prediction.funding_time == from_ms(1789833600000)
    assert prediction.known_time == from_ms(1789824243998)
    assert (prediction.symbol, prediction.funding_rate) == ("BTC_USDT", 0.0001)


def test_the_interval_is_that_of_the_period_that_ends_at_funding_time():
    switched = FUNDING | {"nextFundingTime": str(1789833600000 + 4 * 3_600_000)}

    assert predicted_of(switched, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours == 8


def test_without_the_previous_settlement_the_documented_rule_tells_the_interval():
    recorded_2025 = {name: value for name, value in FUNDING.items() if name != "prevFundingTime"}

    assert predicted_of(recorded_2025, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours == 8


def test_an_interval_that_okx_does_not_use_is_unknown():
    odd = FUNDING | {"prevFundingTime": "1789804800001"}

    assert predicted_of(odd, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW).interval_hours is None


@pytest.mark.invariant(5)
def test_the_settled_rate_belongs_to_the_previous_settlement():
    """Invariant 5: it is not the prediction beside it, and it is known since it was told."""
    settled = settled_of(FUNDING, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert settled.funding_time == from_ms(1789804800000)
    assert settled.funding_rate == 0.0000418741079605
    assert settled.interval_hours == 8
    assert settled.known_time == from_ms(1789824243998)


@pytest.mark.parametrize("absent", ["prevFundingTime", "settFundingRate"])
def test_nothing_is_settled_where_time_or_rate_is_not_told(absent):
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


def test_the_history_tells_what_was_charged_not_what_was_predicted():
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


# --- plausibility


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


# --- lists with odd rows in them

JUNK = [[5], "row", 5, None, True, {}, {"instId": None}, {"instId": 5}, [["instId", "BTC-USDT-SWAP"]]]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("junk", JUNK)
def test_an_odd_row_of_a_list_is_left_out_and_named_and_its_neighbours_are_taken(junk):
    """Invariant 12."""
    listing = listing_of([junk, INSTRUMENT, junk, INVERSE])
    rates, left_out, _ = predictions_of(
        [junk, FUNDING, junk], source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW
    )
    windows, refused, _ = maintenances_of([junk, {"title": "x", "state": "ongoing", "begin": "1789833600000"}])

    assert set(listing.instruments) == {"BTC_USDT", "BTC_USD"}
    assert [rate.symbol for rate in rates] == ["BTC_USDT"]
    assert [window.title for window in windows] == ["x"]
    assert [row for row, *_ in listing.refused] == [row for row, *_ in left_out] == [junk, junk]
    assert [row for row, *_ in refused] == [junk]


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


@pytest.mark.invariant(6)
def test_a_rate_that_is_there_twice_is_ranked_once_and_the_newest_counts():
    """Invariant 6: a symbol has one place."""
    newer = FUNDING | {"ts": str(int(FUNDING["ts"]) + 1), "fundingRate": "0.0002"}

    rates, refused, _ = predictions_of([newer, FUNDING], source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW)

    assert [rate.funding_rate for rate in rates] == [0.0002]
    assert refused == []


@pytest.mark.parametrize(
    "inst_id",
    [
        "../../../EVIL-USDT-SWAP",
        "X-Y-USDT-SWAP",
        "A_B-USDT-SWAP",
        "A" * 260 + "-USDT-SWAP",
        "A\0B-USDT-SWAP",
        "A\nB-USDT-SWAP",
        "A\tB-USDT-SWAP",
        "A B-USDT-SWAP",
        "A.B-USDT-SWAP",
        "\u202eABC-USDT-SWAP",
        "\ud800-USDT-SWAP",
        "🐉-USDT-SWAP",
        "e\u0301-USDT-SWAP",
        "-SWAP",
        "--SWAP",
        "-USDT-SWAP",
    ],
)
def test_a_name_that_is_not_safe_or_does_not_lead_back_is_left_out(inst_id):
    listing = listing_of([INSTRUMENT | {"instId": inst_id}, INVERSE])

    assert set(listing.instruments) == {"BTC_USD"}
    ((_, reason, _),) = listing.refused
    assert reason.startswith("instId: ")


@pytest.mark.parametrize(
    "inst_id", ["龙-USDT-SWAP", "币安人生-USDT-SWAP", "kPEPE-USDT-SWAP", "A" * 40 + "-USDT-SWAP", "ไทย-USDT-SWAP"]
)
def test_letters_of_any_script_are_welcome(inst_id):
    (symbol,) = listing_of([INSTRUMENT | {"instId": inst_id}]).instruments

    assert inst_id_of(symbol) == inst_id


def test_of_names_that_differ_in_case_alone_the_one_that_was_listed_first_stays():
    first = INSTRUMENT | {"instId": "ai-USDT-SWAP", "listTime": "1573557408000"}
    second = INSTRUMENT | {"instId": "AI-USDT-SWAP", "listTime": "1573557408001"}

    for rows in ([first, second], [second, first]):
        listing = listing_of(rows)
        assert set(listing.instruments) == {"ai_USDT"}
        assert "AI_USDT and ai_USDT" in listing.refused[0].reason


# --- maintenance


@pytest.mark.parametrize(
    ("service", "env", "halts"),
    [("5", "1", True), ("9", "1", True), ("", "", True), ("11", "1", False), ("0", "1", False), ("5", "2", False)],
)
def test_only_maintenance_of_trading_on_the_exchange_itself_halts_swaps(service, env, halts):
    (window,), *_ = maintenances_of([{"begin": "1789833600000", "serviceType": service, "env": env}])

    assert window.halts_swaps == halts


def test_a_maintenance_with_an_impossible_begin_is_left_out():
    _, refused, _ = maintenances_of([{"begin": "99999999999999999"}, {"begin": ""}, {}])

    assert len(refused) == 3


# --- time


@pytest.mark.invariant(13)
@pytest.mark.parametrize("rows", [[], [{"ts": ""}], [{"time": "1"}], [{"ts": "1"}], [5], [[]], [{"ts": None}]])
def test_an_answer_without_a_time_is_a_spelling_error(rows):
    """Invariant 13."""
    with pytest.raises(RowError):
        exchange_time_of(rows)


@pytest.mark.invariant(13)
def test_the_newest_rows_are_as_old_as_the_middle_of_them():
    """Invariant 13: no single row decides what time it is."""
    rows = [{"ts": str(1789824243000 + number)} for number in range(5)]

    assert newest_time_of([*rows, {"ts": "4000000000000"}, {"ts": "x"}, 5]) == from_ms(1789824243003)
    assert newest_time_of([5, {}]) is None


# --- anything at all

UNSPELLABLE = 10**5_000
"""Python spells no integer of more than 4,300 digits."""
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([1, -1]).map(lambda sign: sign * UNSPELLABLE)
    | st.builds(Unreadable, st.text()),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.sampled_from(sorted(FUNDING | INSTRUMENT)), inner),
    max_leaves=20,
)
ROWS = st.lists(
    ANY_JSON
    | st.builds(
        lambda row, change: row | change,
        st.sampled_from([FUNDING, INSTRUMENT, HISTORY]),
        st.dictionaries(st.sampled_from(sorted(FUNDING | INSTRUMENT)), ANY_JSON, max_size=3),
    )
    | st.builds(
        lambda row, at, value: [*row[:at], value, *row[at + 1 :]], st.just(CANDLE), st.integers(0, 8), ANY_JSON
    ),
    max_size=4,
)


@pytest.mark.parametrize(
    "value",
    [UNSPELLABLE, [UNSPELLABLE], {"a": UNSPELLABLE}, Unreadable("1e999")],
    ids=["number", "list", "row", "unreadable"],
)
def test_a_value_that_python_cannot_spell_is_refused_wherever_it_stands(value):
    for place in range(8):
        with pytest.raises(RowError):
            read([*CANDLE[:place], value, *CANDLE[place + 1 :]])
    for parse in (instrument_of, open_time_of, lambda row: exchange_time_of([row])):
        with pytest.raises(RowError):
            parse(value)


@pytest.mark.invariant(12)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_whatever_the_exchange_answers_is_read_or_refused_row_by_row(rows):
    """Invariant 12: 10,000 answers to each parser; nothing but the border's own error leaves it."""
    listing = listing_of(rows)
    rates, *_ = predictions_of(rows, source="rest", receive_time=RECEIVED, exchange_now=FUNDING_NOW)
    windows, refused_windows, _ = maintenances_of(rows)
    settled, *_ = settlements_of("BTC_USDT", rows, known_time=FUNDING_NOW, receive_time=RECEIVED)
    newest_time_of(rows)
    for read in (
        lambda: exchange_time_of(rows),
        *(lambda row=row: read_one(row) for row in rows),
        *(
            lambda row=row: settled_of(
                row, period_hours=8, source="ws", receive_time=RECEIVED, exchange_now=FUNDING_NOW
            )
            for row in rows
        ),
    ):
        with contextlib.suppress(RowError):
            read()

    assert len(windows) + len(refused_windows) == len(rows)
    for event in [*rates, *settled]:
        assert abs(event.funding_rate) < 1
        assert decode(encode(event)) == event
    assert all(inst_id_of(symbol).endswith("-SWAP") for symbol in listing.instruments)


def read_one(row):
    """Read a candle row, and check what was believed of it."""
    open_time_of(row)
    candle = read(row)
    assert candle.low <= candle.open <= candle.high
    assert all(math.isfinite(value) for value in (candle.open, candle.volume, candle.amount, candle.contracts))
    assert decode(encode(candle)) == candle


# --- paging


def test_a_window_of_opens_is_spelled_with_two_exclusive_cursors():
    assert candle_window(minute(0), minute(300)) == {"after": "1743829200000", "before": "1743811199999"}


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
