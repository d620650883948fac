"""What the REST client takes of an exchange that sends too much, elsewhere, or without an end."""

import gzip
import json
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.exchanges.base import ExchangeRefused, ExchangeUnavailable
from shared.exchanges.okx.rest import MOST_BYTES, OkxClient
from shared.grid import from_ms, to_ms
from tests.support.builders import a_candle_row, minute

pytestmark = pytest.mark.invariant(11)

INSTRUMENTS = "/api/v5/public/instruments"
HISTORY = "/api/v5/public/funding-rate-history"


@pytest.fixture
async def answer_with():
    """Return a function that starts a server with one answer to everything, and a client of it."""
    servers, clients = [], []

    async def start(handler):
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        client = OkxClient(f"http://127.0.0.1:{server.port}", timeout_seconds=30)
        clients.append(client)
        return await client.__aenter__()

    yield start
    for client in clients:
        await client.__aexit__()
    for server in servers:
        await server.close()


def envelope(rows):
    return json.dumps({"code": "0", "msg": "", "data": rows}).encode()


async def test_an_answer_that_is_packed_is_unpacked(answer_with):
    body = gzip.compress(envelope([{"instId": "BTC-USDT-SWAP", "state": "live"}]))

    client = await answer_with(always(body, {"Content-Encoding": "gzip"}))

    assert set((await client.instruments()).instruments) == {"BTC_USDT"}


def always(body, headers=None):
    """Return a handler that answers the same to everything."""

    async def handler(_):
        return web.Response(body=body, headers=headers)

    return handler


async def test_a_swap_that_was_live_once_keeps_its_name_while_it_is_suspended(answer_with):
    swap = {"instId": "BTC-USDT-SWAP", "state": "live", "ctType": "linear"}
    answers = [[swap], [swap | {"state": "suspend"}, swap | {"instId": "btc-USDT-SWAP"}]]

    async def handler(_):
        return web.Response(body=envelope(answers.pop(0)))

    client = await answer_with(handler)

    assert [set((await client.instruments()).instruments) for _ in range(2)] == [{"BTC_USDT"}] * 2


async def test_a_small_packed_answer_that_becomes_huge_is_refused_before_it_is_unpacked(answer_with):
    packed = gzip.compress(b"0" * (40 * MOST_BYTES), compresslevel=9)
    assert len(packed) < MOST_BYTES

    client = await answer_with(always(packed, {"Content-Encoding": "gzip"}))

    with pytest.raises(ExchangeRefused, match="larger than 16,000,000 bytes"):
        await client.instruments()


async def test_a_huge_answer_is_refused(answer_with):
    client = await answer_with(always(b" " * (MOST_BYTES + 1)))

    with pytest.raises(ExchangeRefused, match="larger than"):
        await client.instruments()


@pytest.mark.parametrize("packing", ["br", "deflate", "zstd", "gzip, gzip"])
async def test_an_answer_that_is_packed_otherwise_is_refused(answer_with, packing):
    client = await answer_with(always(b"x", {"Content-Encoding": packing}))

    with pytest.raises((ExchangeRefused, ExchangeUnavailable)):
        await client._once(INSTRUMENTS, {})


@pytest.mark.parametrize("body", [b'{"code":"0","msg":""}', b'{"code":"0","msg":"","data":null}'])
@pytest.mark.parametrize("final", [True, False])
async def test_a_success_without_a_list_is_asked_again_and_never_taken_for_no_candle(answer_with, body, final):
    answers = [body, envelope([a_candle_row(minute(0))])]

    async def handler(_):
        return web.Response(body=answers.pop(0))

    client = await answer_with(handler)

    page = await client.candles("BTC_USDT", minute(0), minute(1), now=minute(1), final=final)

    assert [candle.open_time for candle in page.events] == [minute(0)]


async def test_an_answer_whose_packing_is_broken_is_unavailability(answer_with):
    client = await answer_with(always(b"no gzip at all", {"Content-Encoding": "gzip"}))

    with pytest.raises(ExchangeUnavailable):
        await client._once(INSTRUMENTS, {})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_says_where_it_would_go(answer_with, status):
    asked = []

    async def elsewhere(request):
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "https://evil.example/x"})

    client = await answer_with(elsewhere)

    with pytest.raises(ExchangeRefused, match=r"redirected to https://evil\.example/x.*OKX_REST_URL"):
        await client.instruments()
    assert asked == [INSTRUMENTS]


def settlements(count, newest):
    return [
        {"instId": "BTC-USDT-SWAP", "fundingTime": str(newest - number * 3_600_000), "realizedRate": "0"}
        for number in range(count)
    ]


async def test_settlements_before_those_that_were_asked_for_are_left_out(answer_with):
    """A history that ignores its cursor gives three months of them, which are older than what is kept."""
    newest, odd = 1743811200000, {"instId": "BTC-USDT-SWAP", "fundingTime": "n/a"}

    async def all_there_is(_):
        return web.Response(body=envelope([odd, *settlements(270, newest)]))

    client = await answer_with(all_there_is)
    since = from_ms(newest - 5 * 3_600_000)
    page = await client.settlements("BTC_USDT", since, from_ms(newest + 1), now=from_ms(newest + 1))

    assert [to_ms(one.funding_time) for one in page.events] == [newest - hour * 3_600_000 for hour in range(6)]
    assert [refused.row for refused in page.refused] == [odd]


async def test_a_history_whose_cursor_is_ignored_ends(answer_with):
    pages = []

    async def same_page(_):
        pages.append(1)
        return web.Response(body=envelope(settlements(400, 1743811200000)))

    client = await answer_with(same_page)

    with pytest.raises(ExchangeRefused, match="the cursor is ignored"):
        await client.settlements("BTC_USDT", minute(0) - timedelta(days=900), minute(1), now=minute(1))
    assert len(pages) == 2


@pytest.mark.parametrize("odd", [[], [5] * 300, [{"instId": None}] * 400, [{"fundingTime": "x"}] * 400])
async def test_a_history_of_rows_without_a_time_ends(answer_with, odd):
    client = await answer_with(always(envelope(odd)))

    page = await client.settlements("BTC_USDT", minute(0) - timedelta(days=900), minute(1), now=minute(1))

    assert page.events == []
    assert [refused.row for refused in page.refused] == odd


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b"<html>",
        b'{"code":"0","data":{}}',
        b'{"code":"0","data":5}',
        b"[" * 50_000,
        b'{"code":[],"data":[]}',
        b"\xff",
    ],
)
async def test_a_body_that_is_no_answer_is_unavailability(answer_with, body):
    client = await answer_with(always(body))

    with pytest.raises(ExchangeUnavailable):
        await client._once(INSTRUMENTS, {})


@pytest.mark.parametrize("rows", [[], [{"ts": ""}], [{"time": "1"}], [5], [{"ts": "99999999999999999"}]])
async def test_an_answer_without_a_time_is_unavailability(answer_with, rows):
    client = await answer_with(always(envelope(rows)))

    with pytest.raises(ExchangeUnavailable, match="/public/time"):
        await client.measure_time()
