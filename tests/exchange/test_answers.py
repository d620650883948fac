import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulator.engine.market import DAY_MS, HOUR_MS, MINUTE_MS
from services.simulator.engine.replay import load_recording
from services.simulator.engine.synthetic import SyntheticMarket
from services.simulator.faults.fault import REST_PATHS
from services.simulator.okx.answers import ENDPOINTS, Exchange, answer

BEGIN = 1_748_736_000_000
NOW = 1_795_000_030_000  # half a minute into a minute
SYNTHETIC = Exchange(SyntheticMarket(20, seed=1, start_ms=NOW), history_delay_ms=2_000)
BTC = "BTC-USDT-SWAP"
CANDLES = "/api/v5/market/candles"
HISTORY = "/api/v5/market/history-candles"
FUNDING = "/api/v5/public/funding-rate"
FUNDING_HISTORY = "/api/v5/public/funding-rate-history"
INSTRUMENTS = "/api/v5/public/instruments"


def ask(path, now_ms=NOW, exchange=SYNTHETIC, **params):
    given_answer = answer(exchange, path, {name: str(value) for name, value in params.items()}, now_ms)
    assert given_answer.code == "0", given_answer
    return given_answer.data


def test_a_fault_can_strike_every_endpoint_and_nothing_else():
    assert tuple(ENDPOINTS) == REST_PATHS


def code(path, now_ms=NOW, exchange=SYNTHETIC, **params):
    given_answer = answer(exchange, path, {name: str(value) for name, value in params.items()}, now_ms)
    return given_answer.code, given_answer.status


@pytest.fixture(scope="module")
def replayed(recording):
    return Exchange(load_recording(recording.folder))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(0, 3 * 1440 * MINUTE_MS))
def test_walking_back_returns_every_row_once(limit, back):
    after, begin, seen = NOW - back, NOW - back - 700 * MINUTE_MS, []
    while page := ask(HISTORY, instId=BTC, after=after, before=begin, limit=limit):
        assert len(page) <= min(limit, 300)
        seen += page
        after = page[-1][0]

    newest = (NOW - back - 1) // MINUTE_MS * MINUTE_MS
    assert [int(row[0]) for row in seen] == list(range(newest, begin, -MINUTE_MS))


def test_walking_back_over_gaps_returns_exactly_the_recording(replayed, recording):
    inst_id, now = "1000PEPE-USDT-SWAP", BEGIN + 37 * HOUR_MS
    after, seen = now, []
    while page := ask(HISTORY, now, replayed, instId=inst_id, after=after, limit=300):
        seen += page
        after = page[-1][0]

    rows = recording.candles[inst_id]
    assert [int(row[0]) for row in seen] == sorted(rows, reverse=True)
    assert all(tuple(map(float, (*row[1:5], row[6]))) == rows[int(row[0])] for row in seen)


def test_both_cursors_exclude_their_own_row():
    minute = NOW // MINUTE_MS * MINUTE_MS

    page = ask(CANDLES, instId=BTC, after=minute - 2 * MINUTE_MS, before=minute - 5 * MINUTE_MS)

    assert [(minute - int(row[0])) // MINUTE_MS for row in page] == [3, 4]


def test_before_alone_returns_the_newest_rows():
    page = ask(HISTORY, instId=BTC, before=NOW - DAY_MS, limit=3)

    assert [int(row[0]) for row in page] == [NOW // MINUTE_MS * MINUTE_MS - back * MINUTE_MS for back in range(3)]


@pytest.mark.parametrize("path", [CANDLES, HISTORY])
def test_the_forming_row_is_included_and_unconfirmed(path):
    forming, closed = ask(path, instId=BTC, limit=2)

    assert (forming[8], closed[8]) == ("0", "1")
    assert float(forming[5]) < float(ask(path, NOW + 40_000, instId=BTC, limit=2)[1][5])


def test_a_minute_is_confirmed_shortly_after_its_end_and_final_at_once():
    end = NOW // MINUTE_MS * MINUTE_MS
    at_once, later = (ask(CANDLES, end + after, instId=BTC, limit=2)[1] for after in (0, 400))

    assert (at_once[8], later[8]) == ("0", "1")
    assert at_once[:8] == later[:8]


@pytest.mark.parametrize(("asked", "got"), [(None, 100), (5, 5), (300, 300), (301, 300), (1_000, 300)])
def test_candle_pages_are_clamped_silently(asked, got):
    assert len(ask(CANDLES, instId=BTC, **({"limit": asked} if asked else {}))) == got


def test_recent_candles_end_after_1440_rows():
    minute = NOW // MINUTE_MS * MINUTE_MS

    assert len(ask(CANDLES, instId=BTC, after=minute - 1_438 * MINUTE_MS)) == 1
    assert ask(CANDLES, instId=BTC, after=minute - 1_439 * MINUTE_MS) == []
    assert len(ask(HISTORY, instId=BTC, after=minute - 1_439 * MINUTE_MS)) == 100


def test_funding_history_is_newest_first_exclusive_and_three_months_long():
    rows = ask(FUNDING_HISTORY, instId=BTC, after=NOW)
    times = [int(row["fundingTime"]) for row in rows]

    assert times == sorted(times, reverse=True)
    assert len(rows) == 93 * 3
    assert ask(FUNDING_HISTORY, instId=BTC, after=NOW - 120 * DAY_MS) == []
    window = ask(FUNDING_HISTORY, instId=BTC, after=times[0], before=times[3])
    assert [int(row["fundingTime"]) for row in window] == times[1:3]
    assert len(ask(FUNDING_HISTORY, instId=BTC, limit=1_000)) == 93 * 3


def test_a_settlement_appears_in_the_history_after_its_delay():
    settlement = SYNTHETIC.market.funding_period(BTC, NOW).funding_ms

    newest = [ask(FUNDING_HISTORY, settlement + after, instId=BTC, limit=1)[0] for after in (1_999, 2_000)]

    assert [int(row["fundingTime"]) == settlement for row in newest] == [False, True]


def test_funding_moves_on_at_the_settlement_and_shows_what_was_settled():
    settlement = SYNTHETIC.market.funding_period(BTC, NOW).funding_ms

    before, at, after = (ask(FUNDING, settlement + offset, instId=BTC)[0] for offset in (-1, 0, 10_000))

    assert (before["fundingTime"], at["prevFundingTime"]) == (str(settlement), str(settlement))
    assert [row["settState"] for row in (before, at, after)] == ["settled", "processing", "settled"]
    assert at["settFundingRate"] == ask(FUNDING_HISTORY, settlement + 5_000, instId=BTC)[0]["realizedRate"]
    assert before["nextFundingRate"] == ""
    assert int(at["nextFundingTime"]) - int(at["fundingTime"]) == 8 * HOUR_MS


def test_any_returns_the_funding_of_swaps_and_x_perps():
    rows = ask(FUNDING, instId="ANY")

    assert {row["instType"] for row in rows} == {"SWAP", "FUTURES"}
    swaps = {row["instId"] for row in rows if row["instType"] == "SWAP"}
    assert swaps == {row["instId"] for row in ask(INSTRUMENTS, instType="SWAP") if row["state"] == "live"}


def test_the_list_of_swaps_has_every_kind_of_row():
    rows = {row["instId"]: row for row in ask(INSTRUMENTS, instType="SWAP")}

    assert {row["state"] for row in rows.values()} == {"live", "suspend", "preopen"}
    assert {row["ctType"] for row in rows.values()} == {"linear", "inverse", ""}
    assert rows["COMING-USDT-SWAP"]["ctVal"] == ""
    assert (rows["BTC-USD-SWAP"]["ctVal"], rows["BTC-USD-SWAP"]["ctValCcy"]) == ("100", "USD")
    assert ask(INSTRUMENTS, instType="SPOT") == []


def test_a_delisted_instrument_is_gone_everywhere(replayed):
    now, inst_id = BEGIN + 35 * HOUR_MS, "GONE-USDT-SWAP"

    assert inst_id not in {row["instId"] for row in ask(INSTRUMENTS, now, replayed, instType="SWAP")}
    assert inst_id not in {row["instId"] for row in ask(FUNDING, now, replayed, instId="ANY")}
    for path in (CANDLES, HISTORY, FUNDING, FUNDING_HISTORY):
        assert code(path, now, replayed, instId=inst_id) == ("51001", 200)


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        (CANDLES, {}, ("50014", 400)),
        (CANDLES, {"instId": "NOPE-USDT-SWAP"}, ("51001", 200)),
        (CANDLES, {"instId": BTC, "limit": 0}, ("51000", 400)),
        (CANDLES, {"instId": BTC, "limit": "x"}, ("51000", 400)),
        (CANDLES, {"instId": BTC, "limit": "²"}, ("51000", 400)),
        (CANDLES, {"instId": BTC, "after": "-1"}, ("51000", 400)),
        (CANDLES, {"instId": BTC, "bar": "1h"}, ("51000", 400)),
        (CANDLES, {"instId": "COMING-USDT-SWAP"}, ("51001", 200)),
        (FUNDING, {}, ("50014", 400)),
        (FUNDING, {"instId": f"{BTC},ETH-USDT-SWAP"}, ("51000", 400)),
        (FUNDING_HISTORY, {"instId": "NOPE"}, ("51001", 200)),
        (INSTRUMENTS, {}, ("50014", 400)),
        (INSTRUMENTS, {"instType": "PERP"}, ("51000", 400)),
    ],
)
def test_bad_requests_are_refused_with_the_exchange_s_codes(path, params, expected):
    assert code(path, **params) == expected
