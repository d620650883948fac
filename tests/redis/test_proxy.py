"""Behind an HTTP proxy: the real services, a real proxy, and an exchange whose name only the proxy can find."""

import asyncio
import os
import socket
import subprocess
import sys
from base64 import b64encode
from contextlib import contextmanager

import pytest

from shared.bus.bus import Bus
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.registry import decode
from shared.datasets.universe import Ranking
from shared.exchanges.base import ExchangeError
from shared.exchanges.okx.rest import OkxClient
from shared.grid import from_ms
from tests.support.builders import a_ranking, wait_for
from tests.support.proxy import Proxy
from tests.support.simulator import ROOT, Simulator

SPEED = 60
FOUND_BY_THE_PROXY = "exchange.invalid"
"""The certificate has this name, and no resolver knows one of this domain: who gets there was led there."""
MEMBERS = ("BTC_USDT", "ETH_USDT")


@pytest.fixture(scope="module")
def exchange():
    names = ["--tls-name", FOUND_BY_THE_PROXY]
    with Simulator.start(symbols=6, seed=11, start="2025-06-10T07:58:00", speed=SPEED, extra=names) as running:
        yield running


@pytest.fixture
def proxy():
    with Proxy(names={FOUND_BY_THE_PROXY: "127.0.0.1"}) as running:
        yield running


@pytest.fixture
def settings(exchange, redis_url, tmp_path):
    """Return what a service needs, with the exchange under the name that only the proxy finds."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(FOUND_BY_THE_PROXY, exchange.rest_port)
    return {
        "REDIS_URL": redis_url,
        "OKX_REST_URL": f"https://{FOUND_BY_THE_PROXY}:{exchange.rest_port}",
        "OKX_WS_URL": f"wss://{FOUND_BY_THE_PROXY}:{exchange.ws_port}/ws/v5",
        "OKX_CA_FILE": str(exchange.ca_file),
        "DATA_DIR": str(tmp_path),
        "COLLECTOR_METRICS_PORT": "0",
        "RANKER_METRICS_PORT": "0",
        "BACKFILL_DAYS": "0",
        "TOP_N": "2",
        "LOG_FORMAT": "json",
        "PYTHONPATH": str(ROOT),
    }


def directly(settings, exchange):
    """Name the exchange so that it is found without a proxy."""
    return settings | {"OKX_REST_URL": exchange.rest_url, "OKX_WS_URL": exchange.ws_url}


def both_ways(exchange, host=FOUND_BY_THE_PROXY):
    return {f"{host}:{exchange.rest_port}", f"{host}:{exchange.ws_port}"}


@contextmanager
def a_service(name, settings, folder):
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"], cwd=folder, env=os.environ | settings, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def started(name, settings, folder, *arguments):
    """Run a service that ends by itself; return exit code and stderr."""
    command = [sys.executable, "-m", f"services.{name}", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


async def events(bus, kind):
    return [decode(fields) for _, fields in await bus._redis.xrange(kind.stream)]


async def until(condition, seconds=40):
    """Wait for what happens in another process."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.1)


@pytest.fixture
async def followed(bus: Bus, exchange):
    """Let a collector begin at once: it follows two swaps, and a writer's ledger is there."""
    await bus.create_groups()
    await bus.set_universe(a_ranking(*MEMBERS, ranked_time=from_ms(exchange.now())))
    await bus.set_ledger_ready(ready=True)
    return bus


async def until_collecting(bus, exchange):
    """Wait until candles have come both ways, over REST for a row that the stream has lost."""
    exchange.fault("lost_confirm", count=4)

    async def both():
        sources = {event.source for event in await events(bus, Candle)}
        return sources == {"ws", "rest"} and await events(bus, FundingRate)

    await until(both)


async def reason_of(bus, service):
    beat = await bus.heartbeat(service)
    return "" if beat is None else beat.reason


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
async def test_the_collector_reaches_rest_and_websocket_only_through_the_proxy(
    name, *, exchange, proxy, settings, followed, tmp_path
):
    with a_service("collector", settings | {name: proxy.url}, tmp_path):
        await until_collecting(followed, exchange)

    assert set(proxy.tunnels) == both_ways(exchange), "neither Redis nor anything else"
    assert proxy.tunnels[f"{FOUND_BY_THE_PROXY}:{exchange.ws_port}"] >= 2, "a connection a channel"
    assert not proxy.refused


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
async def test_the_ranker_reaches_the_exchange_only_through_the_proxy(
    name, *, exchange, proxy, settings, bus, tmp_path
):
    code, said = started("ranker", settings | {name: proxy.url}, tmp_path, "--once")

    assert code == 0, said
    assert set(proxy.tunnels) == {f"{FOUND_BY_THE_PROXY}:{exchange.rest_port}"}
    assert len((await events(bus, Ranking))[0].members) == 2
    assert f"the proxy of HTTPS_PROXY ({proxy.url})" in said


@pytest.mark.parametrize("other", ["HTTP_PROXY", "ALL_PROXY", "SOCKS_PROXY", "WSS_PROXY"])
async def test_a_proxy_for_something_else_is_not_used(other, exchange, proxy, settings, tmp_path):
    code, said = started("ranker", directly(settings, exchange) | {other: proxy.url}, tmp_path, "--once")

    assert code == 0, said
    assert not proxy.tunnels
    assert not proxy.refused
    assert ("ALL_PROXY is not used" in said) == (other == "ALL_PROXY")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SOCKS_PROXY": "socks5://127.0.0.1:9", "WSS_PROXY": "http://127.0.0.1:9"},
        {"https_proxy": "PROXY", "NO_PROXY": "localhost, 127.0.0.1"},
        {"HTTPS_PROXY": "PROXY", "no_proxy": "*"},
        {"HTTPS_PROXY": "PROXY", "NO_PROXY": "127.0.0.0/8"},
    ],
    ids=["nothing set", "others set", "host", "all", "network"],
)
async def test_without_a_proxy_or_where_no_proxy_names_the_host_both_go_directly(
    variables, *, exchange, proxy, settings, followed, tmp_path
):
    variables = {name: value.replace("PROXY", proxy.url) for name, value in variables.items()}

    with a_service("collector", directly(settings, exchange) | variables, tmp_path):
        await until_collecting(followed, exchange)

    assert not proxy.tunnels
    assert not proxy.refused


async def test_an_exception_for_another_host_changes_nothing(exchange, proxy, settings, followed, tmp_path):
    variables = {"HTTPS_PROXY": proxy.url, "NO_PROXY": f"localhost,::1,127.0.0.1:{exchange.rest_port}"}

    with a_service("collector", directly(settings, exchange) | variables, tmp_path):
        await until_collecting(followed, exchange)

    assert set(proxy.tunnels) == {f"127.0.0.1:{exchange.ws_port}"}, "the port belongs to the exception"


async def test_user_and_password_are_given_to_the_proxy_and_to_no_log(exchange, settings, followed, tmp_path):
    with Proxy(names={FOUND_BY_THE_PROXY: "127.0.0.1"}, user="näme:p@ss/w:rd") as proxy:
        variables = {"HTTPS_PROXY": proxy.url_for("n%C3%A4me:p%40ss%2Fw%3Ard"), "LOG_LEVEL": "DEBUG"}
        with a_service("collector", settings | variables, tmp_path):
            await until_collecting(followed, exchange)

        assert set(proxy.tunnels) == both_ways(exchange)
        assert not proxy.refused
    assert "ss%2Fw" not in (log := (tmp_path / "collector.log").read_text())
    assert "p@ss" not in log
    assert b64encode("näme:p@ss/w:rd".encode()).decode() not in log
    assert f"the proxy of HTTPS_PROXY ({proxy.url})" in log


@pytest.mark.proof
async def test_a_proxy_that_refuses_is_named_with_its_setting_and_used_once_it_does_not(
    exchange, proxy, settings, followed, tmp_path
):
    proxy.refuse = 403
    mine = f"the proxy of HTTPS_PROXY ({proxy.url})"

    async def is_said(service, *texts):
        reason = await reason_of(followed, service)
        return all(text in reason for text in texts)

    variables = settings | {"HTTPS_PROXY": proxy.url}
    with a_service("ranker", variables, tmp_path), a_service("collector", variables, tmp_path) as collector:
        for service in ("ranker", "collector"):
            await until(lambda service=service: is_said(service, f"{mine} refuses: HTTP 403"))
        assert not proxy.tunnels

        proxy.refuse = 0
        await until_collecting(followed, exchange)
        proxy.refuse = 503
        exchange.fault("drop")
        await until(lambda: is_said("collector", f"not connected to the exchange through {mine}"))
        proxy.refuse = 0
        await until(lambda: _is_well(followed))
        assert collector.poll() is None

    assert set(proxy.tunnels) == both_ways(exchange)
    log = (tmp_path / "collector.log").read_text()
    assert f"HTTP 503, through {mine}" in log


async def _is_well(bus):
    return await reason_of(bus, "collector") == "works"


async def test_a_password_that_is_wrong_is_said_without_it(exchange, settings, monkeypatch):
    with Proxy(names={FOUND_BY_THE_PROXY: "127.0.0.1"}, user="name:right") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url_for("name:wr0ng"))
        async with OkxClient(settings["OKX_REST_URL"], ca_file=exchange.ca_file) as client:
            with pytest.raises(ExchangeError, match=r"the proxy of HTTPS_PROXY \(.*\) refuses: HTTP 407") as refused:
                await client.measure_time()
    assert "wr0ng" not in str(refused.value)


async def test_a_proxy_that_is_not_there_is_named_with_its_setting(exchange, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed}")
    said = rf"cannot connect to the proxy of HTTPS_PROXY \(http://127.0.0.1:{closed}\): Connect"

    async with OkxClient(exchange.rest_url, ca_file=exchange.ca_file) as client:
        with pytest.raises(ExchangeError, match=said):
            await client.measure_time()


async def test_a_certificate_that_is_not_trusted_is_said_with_the_proxy(exchange, proxy, monkeypatch):
    """So it looks where the proxy inspects TLS and its CA is not in OKX_CA_FILE."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)

    async with OkxClient(exchange.rest_url) as client:  # without the simulator's certificate
        with pytest.raises(ExchangeError, match=r"certificate.*, through the proxy of HTTPS_PROXY"):
            await client.measure_time()


@pytest.mark.parametrize("service", ["ranker", "collector", "writer", "converter", "api"])
def test_a_scheme_that_cannot_work_stops_every_service_at_its_start(service, settings, tmp_path):
    code, said = started(service, settings | {"https_proxy": "socks5://me:s3cret@127.0.0.1:1080"}, tmp_path)

    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("wrong setting: HTTPS_PROXY='socks5://***@127.0.0.1:1080': a proxy of socks5:// cannot be")


def test_a_proxy_that_is_not_used_stops_no_start(exchange, settings, redis_url, tmp_path):
    variables = {"HTTPS_PROXY": "socks5://127.0.0.1:1080", "HTTP_PROXY": "nonsense://", "NO_PROXY": "127.0.0.1"}

    code, said = started("ranker", directly(settings, exchange) | variables, tmp_path, "--once")

    assert code == 0, said


def test_a_proxy_in_the_file_of_settings_counts_as_well(exchange, proxy, settings, tmp_path):
    (tmp_path / ".env").write_text(f"HTTPS_PROXY={proxy.url}\nNO_PROXY=localhost\n")

    code, said = started("ranker", settings, tmp_path, "--once")

    assert code == 0, said
    assert set(proxy.tunnels) == {f"{FOUND_BY_THE_PROXY}:{exchange.rest_port}"}
    assert "unknown setting" not in said


def test_an_exchange_without_tls_has_a_proxy_of_its_own(settings, tmp_path):
    """HTTP_PROXY: the request itself goes to the proxy, which here refuses what is no tunnel."""
    variables = settings | {"OKX_REST_URL": "http://exchange.test"}
    with (
        Proxy(user="me:secret") as proxy,
        a_service("ranker", variables | {"HTTP_PROXY": proxy.url_for("me:secret")}, tmp_path),
    ):
        wait_for(lambda: proxy.refused["GET http://exchange.test/api/v5/public/time"] > 0, 30)
        assert not proxy.tunnels
