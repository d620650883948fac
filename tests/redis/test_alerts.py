"""Notifications: a real Redis, a real webhook, and the alert loop of the api between them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from services.api.alerts.condition import Thresholds
from services.api.alerts.lifecycle import AlertPolicy
from services.api.alerts.loop import AlertLoop
from services.api.alerts.notifiers import notifiers
from services.api.app import create_app
from services.api.completeness.reader import LedgerReader
from services.api.health.snapshot import API, SERVICES, Sources, redis_name
from shared.bus.bus import Bus
from shared.bus.heartbeat import Heartbeat
from shared.clock import ExchangeClock, Sample
from shared.grid import EPOCH
from shared.runtime.service import Health, Service
from shared.runtime.settings import CommonSettings
from tests.support.builders import a_ranking, until, wait_for
from tests.support.patience import patience
from tests.support.simulator import ROOT

TOKEN = "sesame0pen"  # noqa: S105 - nobody's
AT_ONCE = AlertPolicy(notify_after_seconds=0, resolve_after_seconds=0)


class Webhook:
    """A local HTTP server that takes what is posted to it, or refuses."""

    def __init__(self, port=0):
        hook = self
        self.refuses, self.posts, self.tries = False, [], 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.tries += 1
                if not hook.refuses:
                    hook.posts.append(json.loads(body))
                self.send_response(503 if hook.refuses else 200)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"json://127.0.0.1:{self.port}/{TOKEN}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webhook():
    hook = Webhook()
    yield hook
    hook.close()


@pytest.fixture
async def bus(bus):
    await bus.create_groups()
    await bus.set_universe(a_ranking("BTC_USDT", ranked_time=datetime.now(UTC)))
    return bus


@pytest.fixture
def sources(bus, redis_url, tmp_path):
    return Sources(
        bus=bus,
        redis_name=redis_name(CommonSettings(redis_url=redis_url).redis_url),
        clock=ExchangeClock(),
        health=Health(started=True),
        data_dir=tmp_path / "raw",
        qlib_dir=tmp_path / "qlib",
        ledger=LedgerReader(tmp_path / "raw"),
    )


class Running:
    """An alert loop that runs, and its end."""

    def __init__(self, sources, urls, policy=AT_ONCE):
        # The disk of the machine that tests run on may well be full.
        thresholds = Thresholds(free_share=0.0)
        self.loop = AlertLoop(sources, thresholds, policy, notifiers(urls), every_seconds=0.05, retry_seconds=0.05)
        self.service = Service(API, sources.bus, None, sources.clock, sources.health, asyncio.Event())

    async def __aenter__(self):
        self.task = asyncio.create_task(self.loop.run(self.service))
        return self.loop

    async def __aexit__(self, *_):
        self.service.stop.set()
        await asyncio.wait_for(self.task, patience(10))


async def beat(bus, *absent, **changes):
    now = datetime.now(UTC)
    for service in {*SERVICES, API} - set(absent):
        fields = {"state": "ok", "reason": "works", "host": "box", "pid": 7, "started": now, "beaten": now}
        fields |= changes.get(service, {})
        await bus.beat(Heartbeat(service=service, **fields), 3600)  # no test lasts so long, on whatever machine


def titles(webhook):
    return [post["title"] for post in webhook.posts]


async def evaluations(loop, count):
    """Wait for so many more evaluations."""
    seen, evaluate = 0, loop.evaluate

    async def counted():
        nonlocal seen
        await evaluate()
        seen += 1

    loop.evaluate = counted
    await until(lambda: seen >= count)
    loop.evaluate = evaluate


async def test_what_is_wrong_is_notified_once_grouped_and_resolved(bus, sources, webhook):
    await beat(bus, "writer", "ranker")

    async with Running(sources, webhook.url) as loop:
        await until(lambda: webhook.posts)
        await evaluations(loop, 5)
        (sent,) = webhook.posts
        assert sent["title"] == "qlib-crypto: 2 new"
        assert sent["type"] == "failure"
        assert "the ranker is down\nsince 20" in sent["message"]
        assert "the writer is down\nsince 20" in sent["message"]
        assert "The system: its supervisor restarts it; it then reads what waits" in sent["message"]

        await beat(bus)
        await until(lambda: len(webhook.posts) == 2)
        await evaluations(loop, 5)

    assert len(webhook.posts) == 2
    resolved = webhook.posts[1]
    assert (resolved["title"], resolved["type"]) == ("qlib-crypto: 2 resolved", "success")
    assert "Resolved: the writer is down\nlasted " in resolved["message"]


async def test_message_survives_a_webhook_that_is_down_and_other_targets_do_not_wait(bus, sources, webhook):
    broken = Webhook()
    broken.refuses = True
    await beat(bus, "writer")

    async with Running(sources, f"{broken.url}, {webhook.url}") as loop:
        await until(lambda: webhook.posts and broken.tries >= 2)
        problem = sources.health.problems["target 1 (JSON)"]
        assert "alerts do not reach target 1 (JSON)" in problem
        assert TOKEN not in problem
        assert loop.notifiers[1].problem is None

        broken.refuses = False
        await until(lambda: broken.posts)
        await until(lambda: not sources.health.problems)
        await evaluations(loop, 3)

    broken.close()
    assert titles(broken) == titles(webhook) == ["qlib-crypto: the writer is down"]


async def test_restart_notifies_nothing_twice_and_sends_later_what_could_not_be_sent(bus, sources):
    down = Webhook()
    down.close()  # nobody listens on its port now
    await beat(bus, "writer")
    async with Running(sources, down.url) as loop:
        await until(lambda: loop.notifiers[0].problem)
    kept = await bus.kept_alerts()
    assert TOKEN not in kept

    up = Webhook(down.port)
    async with Running(sources, up.url) as loop:
        await until(lambda: up.posts and not loop.notifiers[0].queue)  # one that is under way would be sent again
        await evaluations(loop, 5)
        assert list(loop.alerts) == ["down:writer"]
    async with Running(sources, up.url) as loop:
        await evaluations(loop, 5)
        await beat(bus)
        await until(lambda: len(up.posts) == 2)

    up.close()
    assert titles(up) == ["qlib-crypto: the writer is down", "qlib-crypto: resolved: the writer is down"]


async def test_saved_alerts_that_are_unreadable_are_notified_again(bus, sources, webhook):
    await bus.keep_alerts('{"alerts": 7}')
    await beat(bus, "writer")

    async with Running(sources, webhook.url):
        await until(lambda: webhook.posts)

    assert titles(webhook) == ["qlib-crypto: the writer is down"]


async def test_redis_away_is_notified_and_the_rest_is_not_resolved(bus, sources, webhook, tmp_path):
    await beat(bus, "writer")
    async with Running(sources, webhook.url) as loop:
        await until(lambda: len(webhook.posts) == 1)
        connection = bus._redis
        bus._redis = Bus("redis://127.0.0.1:1/0")._redis
        await until(lambda: len(webhook.posts) == 2)
        await evaluations(loop, 3)
        assert set(loop.alerts) == {"down:writer", "redis"}
        bus._redis = connection
        await until(lambda: len(webhook.posts) == 3)

    assert "does not answer (ConnectionError)" in titles(webhook)[1]
    assert titles(webhook)[2].startswith("qlib-crypto: resolved: Redis at")
    assert list(loop.alerts) == ["down:writer"]


async def test_open_alerts_are_shown_with_and_without_targets(bus, sources):
    await beat(bus, "converter", writer={"state": "degraded", "reason": "disk", "problems": {"disk": "no room"}})
    loop = AlertLoop(sources, Thresholds(free_share=0.0), AT_ONCE)
    app = create_app(sources, loop)
    await loop.evaluate()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        shown = (await client.get("/alerts")).json()
        metrics = (await client.get("/metrics")).text

    assert [row["key"] for row in shown["open"]] == ["down:converter", "problem:writer:disk"]
    assert shown["open"][1]["what"] == "writer: no room"
    assert shown["open"][0]["told"] is not None
    assert shown["targets"] == {}
    assert 'qlib_crypto_alerts_open{severity="critical"} 2.0' in metrics
    assert "qlib_crypto_redis_used_bytes" in metrics
    assert 'qlib_crypto_disk_free_bytes{folder="DATA_DIR"}' in metrics
    assert sources.health.details["alerts"] == {"open": 2, "targets": 0, "unsent": 0}


async def test_fresh_dead_letters_and_a_full_redis_are_seen_in_a_real_one(bus, sources):
    await beat(bus)
    await bus.dead_letter("writer:candles:1-0", {}, "event: None is none")
    await bus.dead_letter("writer:candles:2-0", {}, "event: None is none")
    loop = AlertLoop(sources, Thresholds(free_share=0.0), AT_ONCE)
    await loop.evaluate()

    (alert,) = loop.alerts.values()
    assert alert.what == "2 invalid inputs were set aside within 10 min: 2 of writer:candles"
    memory = await bus.memory()
    assert memory.used > 0
    assert memory.limit >= 0


async def test_stale_symbol_is_notified_on_the_exchanges_clock(bus, sources, webhook):
    """A clock of 2025: the host's says nothing about what is late."""
    exchange_now = datetime(2025, 4, 5, 12, 0, 30, tzinfo=UTC)
    here, there = time.monotonic(), (exchange_now - EPOCH).total_seconds()
    for ago in (2.0, 1.0, 0.0):
        sources.clock.add(Sample(here - ago, here - ago, there - ago))
    await beat(bus)
    members = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
    await bus.set_universe(a_ranking(*members, ranked_time=exchange_now - timedelta(hours=4)))
    marks = {f"newest:{symbol}": exchange_now - timedelta(seconds=90) for symbol in members}
    late = {"newest:SOL_USDT": exchange_now - timedelta(minutes=15), "written_until": exchange_now}
    await bus.set_watermarks(marks | late)

    async with Running(sources, webhook.url):
        await until(lambda: webhook.posts)

    assert titles(webhook) == ["qlib-crypto: SOL_USDT is stale: its newest candle opened at 2025-04-05 11:45 UTC"]


async def test_loop_that_fails_is_shown_and_goes_on(bus, sources, webhook, monkeypatch):
    await beat(bus, "writer")
    monkeypatch.setattr("services.api.alerts.loop.message_of", lambda *_: 1 / 0)

    async with Running(sources, webhook.url):
        await until(lambda: "alerts" in sources.health.problems)
        monkeypatch.undo()
        await until(lambda: webhook.posts)
        await until(lambda: not sources.health.problems)

    assert titles(webhook) == ["qlib-crypto: the writer is down"]


# --- As processes


def environment(redis_url, urls, tmp_path):
    return os.environ | {
        "REDIS_URL": redis_url,
        "OKX_REST_URL": "http://127.0.0.1:9",
        "ALERT_URLS": urls,
        "ALERT_AFTER": "0",
        "ALERT_EVERY": "0.2",
        "ALERT_DISK_FREE": "0",
        "API_PORT": "0",
        "DATA_DIR": str(tmp_path / "raw"),
        "QLIB_DIR": str(tmp_path / "qlib"),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
    }


def test_process_notifies_and_its_log_shows_no_address(redis_url, webhook, tmp_path):
    silent = f"json://127.0.0.1:9/{TOKEN}"
    settings = environment(redis_url, f"{webhook.url} {silent}", tmp_path)
    command, file = [sys.executable, "-m", "services.api"], tmp_path / "log"
    with file.open("w") as log, subprocess.Popen(command, cwd=ROOT, env=settings, stderr=log) as process:
        wait_for(lambda: webhook.posts and "alerts do not reach target 2 (JSON)" in file.read_text(), 30)
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    assert process.returncode == 0
    assert '"event": "state"' in file.read_text()
    assert TOKEN not in file.read_text()


def run_test_message(redis_url, urls, tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "services.api.alerts", *arguments],
        cwd=ROOT,
        env=environment(redis_url, urls, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_test_message_says_which_targets_failed(redis_url, webhook, tmp_path):
    good = run_test_message(redis_url, webhook.url, tmp_path, "--test")
    mixed = run_test_message(redis_url, f"{webhook.url} json://127.0.0.1:9/{TOKEN}", tmp_path, "--test")
    none = run_test_message(redis_url, "", tmp_path, "--test")

    assert (good.returncode, good.stdout) == (0, "target 1 (JSON): delivered\n")
    assert titles(webhook) == ["qlib-crypto: a test"] * 2
    assert mixed.returncode == 1
    assert "target 1 (JSON): delivered\ntarget 2 (JSON): A Connection error" in mixed.stdout
    assert (none.returncode, none.stdout) == (1, "ALERT_URLS is empty: no notification is sent\n")
    assert TOKEN not in mixed.stdout + mixed.stderr


async def test_command_shows_what_is_open(bus, sources, redis_url, tmp_path):
    before = await asyncio.to_thread(run_test_message, redis_url, "", tmp_path)
    await beat(bus, "writer")
    loop = AlertLoop(sources, Thresholds(free_share=0.0), AT_ONCE)
    await loop.evaluate()
    after = await asyncio.to_thread(run_test_message, redis_url, "", tmp_path)

    assert before.stdout == "no alert is open\n"
    assert "the writer is down" in after.stdout
