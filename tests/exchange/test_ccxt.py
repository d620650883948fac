"""An independent judge: ccxt's own OKX client reads the simulator as it reads the exchange."""

import ccxt.async_support as ccxt
import pytest

from tests.support.simulator import Simulator

ADA, PEPE = "ADA/USDT:USDT", "1000PEPE/USDT:USDT"
BEGIN = 1_748_736_000_000
MINUTE, HOUR = 60_000, 3_600_000


@pytest.fixture
async def okx():
    """Return a function that makes a client of a simulator."""
    made = []

    def client(sim):
        made.append(ccxt.okx({"options": {"fetchMarkets": {"types": ["swap"]}}, "rateLimit": 20}))
        made[-1].urls["api"] = {"rest": sim.rest_url}
        made[-1].cafile = str(sim.ca_file)
        return made[-1]

    yield client
    for each in made:
        await each.close()


@pytest.fixture(scope="module")
def replay(recording):
    with Simulator.start(data=recording.folder, start="2025-06-02T11:55:00", extra=["--no-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def synthetic():
    with Simulator.start(symbols=30, seed=2, start="2026-02-03T04:05:06") as running:
        yield running


async def test_markets_of_a_recording(okx, replay):
    markets = await okx(replay).load_markets()

    assert set(markets) == {ADA, PEPE, "LATE/USDT:USDT"}
    assert all(market["active"] and market["linear"] and market["swap"] for market in markets.values())
    assert markets[ADA]["contractSize"] == 100
    assert markets[ADA]["precision"]["price"] == 0.0001


async def test_markets_of_a_generated_exchange(okx, synthetic):
    markets = await okx(synthetic).load_markets()

    live = [market for market in markets.values() if market["active"] and market["swap"]]
    assert sum(bool(market["linear"]) for market in live) == 30 + 3  # and two stocks and gold
    assert {market["id"] for market in live if market["inverse"]} == {"BTC-USD-SWAP", "ETH-USD-SWAP"}
    assert {market["id"] for market in markets.values() if not market["active"]} == {
        "HALTED-USDT-SWAP",
        "COMING-USDT-SWAP",
    }


async def test_funding_rates_of_all_instruments_are_the_truth(okx, synthetic):
    client = okx(synthetic)
    await client.load_markets()

    rates = await client.fetch_funding_rates()

    assert len([rate for rate in rates.values() if rate["info"]["instType"] == "SWAP"]) == 30 + 3 + 2
    truth = synthetic.truth_predicted(int(rates["BTC/USDT:USDT"]["info"]["ts"]))
    assert rates["BTC/USDT:USDT"]["fundingRate"] == float(truth["BTC-USDT-SWAP"])
    assert {rate["interval"] for rate in rates.values()} == {"1h", "2h", "4h", "8h"}


async def test_settled_rates_are_the_recording(okx, replay, recording):
    client = okx(replay)
    await client.load_markets()

    for symbol, inst_id in ((ADA, "ADA-USDT-SWAP"), (PEPE, "1000PEPE-USDT-SWAP")):
        rows = await client.fetch_funding_rate_history(symbol, limit=100)
        settled = {time: rate for time, rate in recording.funding[inst_id].items() if time <= replay.start_ms}
        assert {row["timestamp"]: row["fundingRate"] for row in rows} == settled


async def test_paged_candles_are_the_recording(okx, replay, recording):
    client = okx(replay)
    await client.load_markets()

    for symbol, inst_id in ((ADA, "ADA-USDT-SWAP"), (PEPE, "1000PEPE-USDT-SWAP")):
        rows: dict[int, tuple[float, ...]] = {}
        since = BEGIN
        while since < replay.start_ms:
            page = await client.fetch_ohlcv(symbol, "1m", since=since, limit=300)
            rows |= {row[0]: tuple(row[1:]) for row in page}
            since += 300 * MINUTE
        forming = replay.start_ms // MINUTE * MINUTE - MINUTE
        expected = {time: row for time, row in recording.candles[inst_id].items() if time < forming}
        assert {time: row for time, row in rows.items() if time < forming} == expected


async def test_exact_rows_equal_the_truth(okx, replay):
    client = okx(replay)

    answer = await client.publicGetMarketHistoryCandles({"instId": "ADA-USDT-SWAP", "bar": "1m", "limit": 300})

    closed = [row for row in answer["data"] if row[8] == "1"]
    assert len(closed) == 299
    assert closed[::-1] == replay.truth_candles("ADA-USDT-SWAP", int(closed[-1][0]), int(closed[0][0]) + 1)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rate_limit"}, ccxt.RateLimitExceeded),
        ({"kind": "http_error", "status": 503}, ccxt.OnMaintenance),
        ({"kind": "http_error", "status": 502, "html": True}, ccxt.ExchangeNotAvailable),
    ],
)
async def test_errors_are_understood(okx, synthetic, fault, expected):
    client = okx(synthetic)
    synthetic.fault(endpoint="public/time", **fault)

    with pytest.raises(expected):
        await client.fetch_time()


async def test_unknown_instruments_and_bad_parameters_are_understood(okx, synthetic):
    client = okx(synthetic)

    with pytest.raises(ccxt.BadSymbol):
        await client.publicGetMarketCandles({"instId": "NOPE-USDT-SWAP"})
    with pytest.raises(ccxt.BadRequest):
        await client.publicGetMarketCandles({"instId": "BTC-USDT-SWAP", "bar": "1h"})
