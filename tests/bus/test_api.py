"""The api over a real Redis, and as a real process without one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from services.api.app import create_app
from services.api.snapshot import API, PATIENCE_SECONDS, SERVICES, Sources, redis_name
from shared.bus import Bus, Heartbeat
from shared.clock import ExchangeClock, Sample
from shared.dataset import partition_of
from shared.events import Candle, Rank, Ranking
from shared.grid import EPOCH
from shared.parquet import table_of, write_table
from shared.service import Health
from shared.settings import CommonSettings

EXCHANGE_NOW = datetime(2025, 4, 5, 12, 0, 30, tzinfo=UTC)
RANKED = datetime(2025, 4, 5, 8, tzinfo=UTC)
PASSWORD = "sesame-open"  # noqa: S105 - nobody's


@pytest.fixture
async def bus(bus):
    """Return the bus as every service that starts leaves it."""
    await bus.create_groups()
    return bus


def exchange_clock():
    """Return a clock that the exchange has told 2025."""
    clock, here, there = ExchangeClock(), time.monotonic(), (EXCHANGE_NOW - EPOCH).total_seconds()
    for ago in (2.0, 1.0, 0.0):
        clock.add(Sample(here - ago, here - ago, there - ago))
    return clock


def client_of(bus, url, folder):
    sources = Sources(
        bus=bus,
        redis_name=redis_name(CommonSettings(redis_url=url).redis_url),
        clock=exchange_clock(),
        health=Health(started=True),
        data_dir=folder / "raw",
        qlib_dir=folder / "qlib",
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(sources)), base_url="http://api")


@pytest.fixture
async def api(bus, redis_url, tmp_path):
    async with client_of(bus, redis_url, tmp_path) as client:
        yield client


@pytest.fixture
async def deaf_api(tmp_path):
    """Return an api whose Redis takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/0"
        bus = Bus(url)
        async with client_of(bus, url, tmp_path) as client:
            yield client
        await bus.close()


def heartbeat(service, **changes):
    now = datetime.now(UTC)
    fields = {"state": "ok", "reason": "works", "host": "box", "pid": 7, "started": now, "beaten": now}
    return Heartbeat(service=service, **fields | changes)


async def all_beat(bus):
    for service in (*SERVICES, API):
        await bus.beat(heartbeat(service), 20)


def ranking(ranked=RANKED, symbols=("BTC_USDT", "ETH_USDT", "SOL_USDT")):
    ranks = tuple(
        Rank(
            exchange="OKX",
            symbol=symbol,
            ranked_time=ranked,
            rank=place,
            funding_rate=-0.003 / place,
            score=0.003 / place,
            interval_hours=8,
            funding_time=ranked + timedelta(hours=8),
            member=place < len(symbols),
            rank_by="raw",
            known_time=ranked,
        )
        for place, symbol in enumerate(symbols, 1)
    )
    return Ranking(
        exchange="OKX",
        ranked_time=ranked,
        rank_by="raw",
        top_n=len(symbols) - 1,
        members=symbols[:-1],
        added=symbols[:-1],
        removed=(),
        ranks=ranks,
    )


def candle(symbol="BTC_USDT"):
    return Candle(
        exchange="OKX",
        symbol=symbol,
        interval="1m",
        open_time=RANKED,
        open=1.0,
        high=1.0,
        low=1.0,
        close=1.0,
        volume=1.0,
        amount=1.0,
        contracts=1.0,
        source="ws",
        receive_time=RANKED,
    )


async def test_only_get_exists(api):
    paths = (await api.get("/openapi.json")).json()["paths"]

    assert {method for path in paths.values() for method in path} == {"get"}
    for path in paths:
        for method in ("post", "put", "patch", "delete"):
            assert (await getattr(api, method)(path)).status_code == 405


async def test_index_lists_every_question(api):
    paths = set((await api.get("/openapi.json")).json()["paths"]) - {"/"}

    assert set((await api.get("/")).json()["questions"]) == paths


async def test_ready_waits_for_every_service(api, bus):
    answer = await api.get("/ready")
    assert answer.status_code == 503
    assert len(answer.json()["reasons"]) == 4

    await all_beat(bus)
    assert (await api.get("/ready")).status_code == 200

    await bus.beat(heartbeat("writer", state="starting"), 20)
    answer = await api.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"][0].startswith("writer: starting for")


async def test_status_tells_verdicts_and_the_exchanges_clock(api, bus):
    await all_beat(bus)
    await bus.set_universe(ranking())
    await bus.beat(heartbeat("collector", state="degraded", reason="candles: not connected"), 20)

    status = (await api.get("/status")).json()

    assert status["verdict"] == "degraded"
    assert status["reason"] == "collector: candles: not connected"
    assert status["clock"]["source"] == "exchange"
    assert status["clock"]["exchange_time"].startswith("2025-04-05T12:00:3")
    assert status["clock"]["offset_seconds"] < 0
    assert {row["service"]: row["verdict"] for row in status["services"]} == {
        "ranker": "ok",
        "collector": "degraded",
        "writer": "ok",
        "converter": "ok",
        "api": "ok",
    }


async def test_lag_tells_groups_and_ages(api, bus):
    await bus.set_universe(ranking())
    await bus.publish([candle(), candle("ETH_USDT")])
    async for entries in bus.consume(["candles"], "writer", consumer="one", count=1, block_ms=10):
        if entries:
            break
    await bus.set_watermarks({"newest:BTC_USDT": EXCHANGE_NOW - timedelta(seconds=90)})

    lag = (await api.get("/lag")).json()

    (candles,) = (row for row in lag["groups"] if row["stream"] == "candles")
    assert (candles["group"], candles["length"], candles["lag"], candles["pending"]) == ("writer", 2, 1, 1)
    assert candles["oldest_age_seconds"] < 60
    assert [row["symbol"] for row in lag["symbols"]] == ["ETH_USDT", "BTC_USDT"]
    assert lag["symbols"][0]["age_seconds"] is None
    assert lag["symbols"][1]["age_seconds"] == pytest.approx(30, abs=10)


async def test_universe_of_now_has_rates_and_scores(api, bus):
    assert (await api.get("/universe")).status_code == 404

    await bus.set_universe(ranking())
    universe = (await api.get("/universe")).json()

    assert (universe["ranked_time"], universe["rank_by"], universe["total"]) == ("2025-04-05T08:00:00Z", "raw", 3)
    assert [(row["rank"], row["symbol"], row["score"]) for row in universe["members"]] == [
        (1, "BTC_USDT", 0.003),
        (2, "ETH_USDT", 0.0015),
    ]


async def test_universe_of_now_keeps_its_names_without_the_stream(api, bus):
    await bus.set_universe(ranking())
    await bus._redis.delete("universe")

    universe = (await api.get("/universe")).json()

    assert universe["total"] is None
    assert [(row["symbol"], row["funding_rate"]) for row in universe["members"]] == [
        ("BTC_USDT", None),
        ("ETH_USDT", None),
    ]


async def test_replayed_ranking_of_the_past_does_not_pose_as_the_universe_of_now(api, bus):
    await bus.set_universe(ranking())
    await bus.publish([ranking(RANKED - timedelta(hours=8), ("XRP_USDT", "BTC_USDT", "ETH_USDT"))])

    universe = (await api.get("/universe")).json()

    assert (universe["ranked_time"], universe["members"][0]["symbol"]) == ("2025-04-05T08:00:00Z", "BTC_USDT")


async def test_docs_need_no_internet(api):
    page = (await api.get("/docs")).text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith("/")
        assert (await api.get(address)).status_code == 200


async def test_universe_of_a_time_comes_from_disk_and_the_newest_from_the_bus(api, bus, tmp_path):
    ranks = ranking(RANKED - timedelta(hours=8), ("XRP_USDT", "BTC_USDT", "ETH_USDT")).ranks
    write_table(partition_of(ranks[0]).path(tmp_path / "raw"), table_of(Rank, ranks))
    await bus.set_universe(ranking())

    before = (await api.get("/universe", params={"at": "2025-04-05T07:59:59"})).json()
    after = (await api.get("/universe", params={"at": "2025-04-05T10:00:00+02:00"})).json()

    assert (before["source"], before["members"][0]["symbol"], before["total"]) == ("disk", "XRP_USDT", 3)
    assert (after["source"], after["members"][0]["symbol"]) == ("bus", "BTC_USDT")
    assert (await api.get("/universe", params={"at": "2025-04-04T23:59:59Z"})).status_code == 404


@pytest.mark.parametrize("bad", ["yesterday", "2025-13-01", "0001-01-01T00:00:00+10:00"])
async def test_bad_time_is_refused(api, bad):
    assert (await api.get("/universe", params={"at": bad})).status_code == 422


async def test_datasets_tell_files_and_watermarks(api, bus, tmp_path):
    path = partition_of(candle()).path(tmp_path / "raw")
    write_table(path, table_of(Candle, [candle()]))
    await bus.set_watermarks({"written_until": RANKED, "newest:BTC_USDT": RANKED})

    answer = (await api.get("/datasets")).json()

    candles = answer["raw"][0]
    assert (candles["dataset"], candles["first_day"], candles["files"]) == ("kline_1m", "2025-04-05", 1)
    assert (candles["bytes"], candles["symbols"]) == (path.stat().st_size, 1)
    assert answer["watermarks"] == {"written_until": "2025-04-05T08:00:00Z"}


async def test_dead_letters_newest_first(api, bus):
    for number in range(3):
        await bus.dead_letter("collector:candles", {"row": number}, f"bad {number}")

    answer = (await api.get("/dead-letters", params={"count": 2})).json()

    assert answer["total"] == 3
    assert [letter["error"] for letter in answer["newest"]] == ["bad 2", "bad 1"]
    assert (await api.get("/dead-letters", params={"count": 0})).status_code == 422


async def test_metrics_are_prometheus_text(api, bus):
    await all_beat(bus)

    answer = await api.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'qlib_crypto_service_up{service="writer"} 1.0' in answer.text
    assert 'qlib_crypto_group_lag{group="writer",stream="candles"} 0.0' in answer.text
    assert "process_resident_memory_bytes" in answer.text


async def test_garbage_on_the_bus_is_told_not_a_crash(api, bus):
    await all_beat(bus)
    await bus._redis.set("heartbeat:writer", "{")
    writer = (await api.get("/status")).json()["services"][2]
    assert (writer["service"], writer["verdict"]) == ("writer", "unknown")

    await bus._redis.set("universe:current", "{")
    answer = await api.get("/status")
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "down"


@pytest.mark.parametrize(
    ("path", "code"),
    [("/status", 200), ("/ready", 503), ("/lag", 503), ("/universe", 503), ("/dead-letters", 503), ("/metrics", 200)],
)
async def test_silent_redis_is_told_in_bounded_time_and_without_its_password(deaf_api, path, code):
    began = time.monotonic()
    answer = await deaf_api.get(path)

    assert time.monotonic() - began < PATIENCE_SECONDS + 1
    assert answer.status_code == code
    assert PASSWORD not in answer.text


async def test_health_does_not_wait_for_redis(deaf_api):
    assert (await deaf_api.get("/health", timeout=1)).json() == {"status": "ok"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def process(tmp_path):
    """Start the api as a process whose Redis and exchange do not exist; yields it and its address."""
    port = free_port()
    environment = os.environ | {
        "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0",
        "OKX_REST_URL": f"http://127.0.0.1:{free_port()}",
        "API_PORT": str(port),
        "DATA_DIR": str(tmp_path / "raw"),
        "QLIB_DIR": str(tmp_path / "qlib"),
        "LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "services.api"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        yield running, f"http://127.0.0.1:{port}"
        running.kill()


def wait_until_it_answers(address):
    deadline = time.monotonic() + 20
    while True:
        try:
            return httpx.get(f"{address}/health")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_process_answers_with_redis_down_and_stops_cleanly(process):
    running, address = process
    assert wait_until_it_answers(address).status_code == 200

    ready, status = httpx.get(f"{address}/ready"), httpx.get(f"{address}/status")
    running.send_signal(signal.SIGTERM)
    _, log = running.communicate(timeout=10)

    assert ready.status_code == 503
    assert status.status_code == 200
    assert status.json()["verdict"] == "down"
    assert "Redis at 127.0.0.1" in status.json()["reason"]
    assert running.returncode == 0
    assert '"event": "stopped"' in log
    assert PASSWORD not in log + ready.text + status.text


def test_port_in_use_is_said_and_ends_with_1(process):
    _, address = process
    wait_until_it_answers(address)
    environment = os.environ | {"API_PORT": address.rpartition(":")[2], "REDIS_URL": "redis://127.0.0.1:1/0"}

    second = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert second.returncode == 1
    assert "cannot listen" in second.stderr
    assert "Traceback" not in second.stderr
