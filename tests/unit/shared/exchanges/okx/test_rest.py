"""The REST client against the simulator: the real process, over TLS."""

import asyncio
import time
from datetime import timedelta

import msgspec
import pytest

from shared.exchanges.base import ExchangeRefused, ExchangeUnavailable, UnknownInstrument
from shared.exchanges.okx.candles import candles_of
from shared.exchanges.okx.rest import OkxClient, raise_for_code, read_envelope
from shared.grid import MINUTE, from_ms, to_ms
from tests.support.builders import at
from tests.support.simulator import Simulator

START = "2025-06-10T12:00:30"
NOW = at("2025-06-10 12:00")


def read(rows):
    return candles_of("BTC-USDT-SWAP", rows, source="rest", receive_time=NOW, exchange_now=NOW)


def values(page):
    return [msgspec.structs.replace(candle, receive_time=NOW) for candle in page.events]


@pytest.fixture(scope="module")
def exchange():
    with Simulator.start(symbols=5, seed=3, start=START) as running:
        yield running


@pytest.fixture
async def okx(exchange):
    async with OkxClient(exchange.rest_url, ca_file=exchange.ca_file) as client:
        yield client


@pytest.mark.parametrize("minutes", [1, 2, 299, 300])
@pytest.mark.parametrize("final", [True, False])
async def test_a_page_is_exactly_the_minutes_that_open_in_the_window(exchange, okx, minutes, final):
    begin = at("2025-06-10 02:00")
    end = begin + minutes * MINUTE

    page = await okx.candles("BTC_USDT", begin, end, now=NOW, final=final)

    assert [candle.open_time for candle in page.events] == [end - number * MINUTE for number in range(1, minutes + 1)]
    assert values(page) == values(read(exchange.truth_candles("BTC-USDT-SWAP", to_ms(begin), to_ms(end))[::-1]))


async def test_two_neighbouring_pages_share_no_row_and_miss_none(okx):
    begin, middle, end = (at(f"2025-06-09 {hour}") for hour in ("10:00", "13:20", "15:00"))

    first = await okx.candles("ETH_USDT", begin, middle, now=NOW)
    second = await okx.candles("ETH_USDT", middle, end, now=NOW)

    opens = [candle.open_time for candle in [*second.events, *first.events]]
    assert opens == [end - number * MINUTE for number in range(1, 301)]


@pytest.mark.invariant(7)
async def test_what_the_endpoint_of_the_last_day_lacks_is_asked_of_history(exchange, okx):
    """Invariant 7: it answers nothing for what is older, however often it is asked: that is no verdict."""
    begin = at("2025-06-08 00:00")
    long_ago = begin + timedelta(hours=6)  # a caller whose clock is wrong: the endpoint is asked, and has nothing

    page = await okx.candles("BTC_USDT", begin, begin + 300 * MINUTE, now=long_ago)

    assert len(page.events) == 300


async def test_minutes_that_are_only_just_over_are_not_asked_of_history(exchange, okx):
    begin = from_ms(exchange.now()).replace(second=0, microsecond=0) + 2 * MINUTE  # of the future: no row yet
    before = requests_of(exchange)

    page = await okx.candles("BTC_USDT", begin, begin + 2 * MINUTE, now=begin + 3 * MINUTE)

    assert page.events == []
    assert requests_of(exchange) == before


def requests_of(exchange):
    return exchange.stats()["requests"].get("/api/v5/market/history-candles", 0)


async def test_an_unknown_instrument_is_an_error_of_its_own(okx):
    with pytest.raises(UnknownInstrument):
        await okx.candles("NOSUCH_USDT", at("2025-06-10 00:00"), at("2025-06-10 01:00"), now=NOW)
    with pytest.raises(UnknownInstrument):
        await okx.settlements("NOSUCH_USDT", at("2025-06-09 00:00"), at("2025-06-10 00:00"), now=NOW)


@pytest.mark.parametrize("symbol", ["BTC", "ETH"])  # every 8 and every 4 hours: one page, and two
async def test_the_funding_history_is_read_page_by_page_and_misses_nothing(exchange, okx, symbol):
    since, until = at("2025-04-01 00:00"), at("2025-06-10 12:00")
    truth = exchange.truth_funding(f"{symbol}-USDT-SWAP", to_ms(since), to_ms(until))

    page = await okx.settlements(f"{symbol}_USDT", since, until, now=NOW)

    assert [to_ms(settled.funding_time) for settled in page.events] == [
        int(row["fundingTime"]) for row in reversed(truth)
    ]


async def test_instruments_are_swaps_by_symbol(okx):
    instruments = (await okx.instruments()).instruments

    assert instruments["BTC_USDT"].contract_type == "linear"
    assert instruments["BTC_USD"].contract_type == "inverse"
    assert not any("XPERP" in symbol for symbol in instruments)


async def test_every_funding_rate_comes_in_one_call(exchange, okx):
    before = exchange.stats()["requests"].get("/api/v5/public/funding-rate", 0)

    page = await okx.predictions(now=from_ms(exchange.now()) + timedelta(hours=1))

    assert {"BTC_USDT", "BTC_USD"} <= {rate.symbol for rate in page.events}
    assert exchange.stats()["requests"]["/api/v5/public/funding-rate"] == before + 1


@pytest.mark.invariant(13)
async def test_the_exchanges_time_is_measured(exchange, okx):
    """Invariant 13."""
    sample = await okx.measure_time()

    assert sample.sent <= time.monotonic()
    assert timedelta(0) <= from_ms(exchange.now()) - from_ms(round(sample.exchange * 1000)) < timedelta(seconds=5)


async def test_rate_limits_are_waited_out_under_http_429_and_under_http_200(exchange, okx):
    exchange.fault("rate_limit", endpoint="market/candles", count=2)

    page = await okx.candles("BTC_USDT", at("2025-06-10 02:00"), at("2025-06-10 02:10"), now=NOW)

    assert len(page.events) == 10
    assert [entry["kind"] for entry in exchange.faults()][-2:] == ["rate_limit", "rate_limit"]


@pytest.mark.parametrize("html", [True, False])
async def test_an_error_page_and_a_maintenance_answer_are_tried_again(exchange, okx, html):
    exchange.fault("http_error", endpoint="public/instruments", count=1, status=503, html=html)

    assert "BTC_USDT" in (await okx.instruments()).instruments


@pytest.mark.invariant(11)
async def test_the_limiter_keeps_below_the_exchanges_limits(exchange):
    """Invariant 11: as fast as allowed, and never refused."""
    async with OkxClient(exchange.rest_url, ca_file=exchange.ca_file) as okx:
        before = exchange.stats()["http_429"]
        began = time.monotonic()
        begin = at("2025-06-10 02:00")
        pages = [okx.candles("BTC_USDT", begin, begin + MINUTE, now=NOW, final=number % 2 == 1) for number in range(60)]

        answers = await asyncio.gather(*pages, *(okx.measure_time() for _ in range(8)))

    assert len(answers) == 68
    assert exchange.stats()["http_429"] == before
    assert time.monotonic() - began < 8


async def test_an_exchange_that_is_not_there_is_unavailable():
    async with OkxClient("http://127.0.0.1:9") as okx:
        with pytest.raises(ExchangeUnavailable, match="public/time"):
            await okx.measure_time()


async def test_a_certificate_authority_that_is_not_there_yet_is_named(exchange, tmp_path):
    async with OkxClient(exchange.rest_url, ca_file=tmp_path / "ca.pem") as okx:
        with pytest.raises(ExchangeUnavailable, match="OKX_CA_FILE"):
            await okx.measure_time()


async def test_a_certificate_of_somebody_else_is_not_trusted(exchange):
    async with OkxClient(exchange.rest_url) as okx:
        with pytest.raises(ExchangeUnavailable, match="certificate"):
            await okx.measure_time()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"code":"0","msg":"","data":[]}', 200, "0"),
        (b'{"code":"0","msg":"","data":null}', 200, "50001"),
        (b'{"code":"0","msg":""}', 200, "50001"),
        (b'{"code":0,"msg":""}', 429, "50011"),
        (b'{"code":"51001","msg":"gone","data":[]}', 400, "51001"),
        (b'{"code":"51001","msg":"gone"}', 400, "51001"),
        (b"<html>cloudflare</html>", 503, "50001"),
        (b"Too Many Requests", 429, "50011"),
        (b"[1, 2]", 200, "50001"),
        (b"", 200, "50001"),
    ],
)
def test_the_code_decides_and_the_http_status_only_where_there_is_none(body, status, code):
    assert read_envelope(body, status)[0] == code
    assert read_envelope(body, status)[2] == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("50011", ExchangeUnavailable),
        ("50013", ExchangeUnavailable),
        ("50001", ExchangeUnavailable),
        ("51001", UnknownInstrument),
        ("50047", UnknownInstrument),
        ("51000", ExchangeRefused),
        ("50014", ExchangeRefused),
        ("", ExchangeRefused),
    ],
)
def test_what_a_code_means(code, error):
    with pytest.raises(error, match="/path"):
        raise_for_code(code, "text", "/path")


def test_success_is_no_error():
    raise_for_code("0", "", "/path")
