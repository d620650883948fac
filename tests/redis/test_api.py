"""The api over a real Redis, and as a real process without one."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from services.api.app import create_app
from services.api.completeness.reader import LedgerReader
from services.api.health.moment import FRESH_SECONDS
from services.api.health.snapshot import API, REDIS_TIMEOUT_SECONDS, SERVICES, Sources, redis_name
from services.api.heavy import RETRY_AFTER_SECONDS, Turns
from services.ranker.settings import RankerSettings
from shared.bus.bus import Bus
from shared.bus.heartbeat import Heartbeat
from shared.clock import ExchangeClock, Sample
from shared.datasets.candle import Candle
from shared.datasets.ledger import LedgerRow
from shared.datasets.universe import Rank, Ranking
from shared.grid import DAY, EPOCH
from shared.ledger.day import DayLedger, bus_field, to_row, to_text
from shared.ledger.minutes import FULL_DAY, span_mask
from shared.runtime.service import Health, running
from shared.runtime.settings import CommonSettings
from shared.storage.layout import Partition, partition_of
from shared.storage.parquet import table_of, write_table
from tests.support.patience import Deadline, patience

EXCHANGE_NOW = datetime(2025, 4, 5, 12, 0, 30, tzinfo=UTC)
TODAY = EXCHANGE_NOW.date()
RANKED = datetime(2025, 4, 5, 8, tzinfo=UTC)
PASSWORD = "sesame-open"  # noqa: S105 - nobody's


@pytest.fixture
async def bus(bus):
    """Return the bus as every service that starts leaves it."""
    await bus.create_groups()
    return bus


def exchange_clock():
    """Return a clock that the exchange has set to 2025."""
    clock, here, there = ExchangeClock(), time.monotonic(), (EXCHANGE_NOW - EPOCH).total_seconds()
    for ago in (2.0, 1.0, 0.0):
        clock.add(Sample(here - ago, here - ago, there - ago))
    return clock


def client_of(bus, url, folder, **options):
    """Return a client of an api in which, unless options say otherwise, every request reads the bus itself."""
    sources = Sources(
        bus=bus,
        redis_name=redis_name(CommonSettings(redis_url=url).redis_url),
        clock=exchange_clock(),
        health=Health(started=True),
        data_dir=folder / "raw",
        qlib_dir=folder / "qlib",
        ledger=LedgerReader(folder / "raw"),
    )
    app = create_app(sources, **{"fresh_seconds": 0} | options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")


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
        await bus.beat(heartbeat(service), 3600)


def ranking(ranked=RANKED, symbols=("BTC_USDT", "ETH_USDT", "SOL_USDT")):
    ranks = tuple(
        Rank(
            exchange="okx",
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
        exchange="okx",
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
        exchange="okx",
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

    await bus.beat(heartbeat("writer", state="starting"), 3600)
    answer = await api.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"][0].startswith("writer: starting for")


async def test_status_shows_verdicts_and_the_exchanges_clock(api, bus):
    await all_beat(bus)
    await bus.set_universe(ranking())
    await bus.beat(heartbeat("collector", state="degraded", reason="candles: not connected"), 3600)

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


@pytest.mark.parametrize(
    ("every_hours", "ago", "verdict"),
    [
        (1, timedelta(minutes=70), "ok"),
        (1, timedelta(hours=2), "stale"),
        (24, timedelta(hours=20), "ok"),
    ],
)
async def test_ranker_is_late_by_the_cadence_that_it_publishes(api, bus, redis_url, every_hours, ago, verdict):  # noqa: PLR0917 - a table
    """The api has no such setting: what the ranker is set to is in its heartbeat."""
    settings = RankerSettings(redis_url=redis_url, okx_rest_url="http://127.0.0.1:9", rank_every_hours=every_hours)
    async with running("ranker", settings):
        while (published := await bus.heartbeat("ranker")) is None:  # noqa: ASYNC110 - it appears in Redis
            await asyncio.sleep(0.02)
    await all_beat(bus)
    await bus.beat(heartbeat("ranker", cadence=published.cadence), 3600)
    await bus.set_universe(ranking(EXCHANGE_NOW - ago))

    rows = {row["service"]: row for row in (await api.get("/status")).json()["services"]}

    assert rows["ranker"]["verdict"] == verdict, rows["ranker"]["reason"]


async def test_lag_shows_groups_and_ages(api, bus):
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


async def test_datasets_show_files_and_watermarks(api, bus, tmp_path):
    path = partition_of(candle()).path(tmp_path / "raw")
    write_table(path, table_of(Candle, [candle()]))
    await bus.set_watermarks({"written_until": RANKED, "newest:BTC_USDT": RANKED})

    answer = (await api.get("/datasets")).json()

    candles = answer["raw"][0]
    assert (candles["dataset"], candles["first_day"], candles["files"]) == ("kline_1m", "2025-04-05", 1)
    assert (candles["bytes"], candles["symbols"]) == (path.stat().st_size, 1)
    assert answer["watermarks"] == {"written_until": "2025-04-05T08:00:00Z"}


MORNING = DayLedger(wanted=span_mask(0, 720), received=span_mask(0, 719))
"""Up to 12:00: that last minute is on its way at EXCHANGE_NOW."""
SETTLED = DayLedger(wanted=1, received=1)


async def publish_ledger(bus, day, about="kline_1m", **ledgers):
    await bus.set_ledger(day, {bus_field(about, symbol): to_text(ledger) for symbol, ledger in ledgers.items()})
    await bus.set_ledger_ready(ready=True)


def write_ledger(root, day, **ledgers):
    rows = [to_row("okx", symbol, day, ledger, "v", about="kline_1m") for symbol, ledger in ledgers.items()]
    write_table(Partition(LedgerRow.dataset, day).path(root), table_of(LedgerRow, rows))


@pytest.mark.invariant(7)
async def test_ledger_sums_up_the_bus_and_the_files_of_older_days(api, bus, tmp_path):
    whole = DayLedger(wanted=FULL_DAY, healed=FULL_DAY)
    write_ledger(tmp_path / "raw", TODAY - DAY, BTC_USDT=whole, OLD_USDT=whole)
    await publish_ledger(
        bus, TODAY, BTC_USDT=MORNING, ETH_USDT=replace(MORNING, received=span_mask(0, 709), halted=1 << 711)
    )
    await publish_ledger(bus, TODAY, about="funding", BTC_USDT=SETTLED, ETH_USDT=SETTLED)

    answer = (await api.get("/ledger", params={"begin": "2025-04-01"})).json()

    assert [(row["symbol"], row["wanted"], row["healed"]) for row in answer["symbols"]] == [
        ("BTC_USDT", 1440 + 720, 1440),
        ("ETH_USDT", 720, 0),
        ("OLD_USDT", 1440, 1440),
    ]
    assert answer["symbols"][1]["missing"] == 9
    assert answer["symbols"][1]["complete"] == "98.750 %"
    assert (answer["total"]["missing"], answer["total"]["halted"], answer["total"]["settlements"]) == (9, 1, 2)
    assert answer["symbols"][0]["complete"] == "100.000 %"


async def test_ledger_of_one_symbol_and_of_a_part_of_a_day(api, bus):
    await publish_ledger(bus, TODAY, BTC_USDT=MORNING, ETH_USDT=MORNING)
    query = {"symbol": "BTC_USDT", "begin": "2025-04-05T02:00:00+01:00", "end": "2025-04-05T02:00:00Z"}

    answer = (await api.get("/ledger", params=query)).json()

    assert [row["symbol"] for row in answer["symbols"]] == ["BTC_USDT"]
    assert (answer["total"]["wanted"], answer["total"]["complete"]) == (60, "100.000 %")
    assert (await api.get("/ledger", params={"symbol": "NO_USDT"})).status_code == 404


@pytest.mark.parametrize("path", ["/ledger", "/gaps"])
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"begin": "2025-04-02", "end": "2025-04-01"}, "begin must be before end"),
        ({"begin": "2020-01-01"}, "at most 366 days"),
        ({"begin": "soon"}, "begin"),
    ],
)
async def test_a_span_that_makes_no_sense_is_refused_with_a_reason(api, path, query, reason):
    answer = await api.get(path, params=query)

    assert answer.status_code == 422
    assert reason in answer.text


async def test_only_days_that_changed_are_counted_again(api, bus):
    await publish_ledger(bus, TODAY - DAY, BTC_USDT=DayLedger(wanted=3))
    await publish_ledger(bus, TODAY, BTC_USDT=DayLedger(wanted=1))
    assert (await api.get("/gaps")).json()["minutes"] == 3

    await publish_ledger(bus, TODAY, BTC_USDT=DayLedger(wanted=1, healed=1))
    assert (await api.get("/gaps")).json()["minutes"] == 2

    await bus.forget_ledger([TODAY - DAY])
    assert (await api.get("/gaps", params={"begin": "2025-04-01"})).json()["minutes"] == 0


@pytest.mark.invariant(7)
async def test_gaps_of_each_verdict(api, bus):
    ledger = DayLedger(wanted=span_mask(0, 719), received=span_mask(0, 99), absent=span_mask(100, 109), halted=1 << 110)
    await publish_ledger(bus, TODAY, BTC_USDT=ledger)
    await publish_ledger(bus, TODAY, about="funding", BTC_USDT=DayLedger(wanted=1 << 480))

    async def gaps(**query):
        return (await api.get("/gaps", params=query)).json()

    missing = await gaps()
    (gap,) = missing["gaps"]
    assert (gap["symbol"], gap["begin"], gap["minutes"]) == ("BTC_USDT", "2025-04-05T01:51:00Z", 720 - 111)
    assert gap["age_seconds"] == pytest.approx((12 * 60 - 111) * 60 + 30, abs=10)
    assert [(row["symbol"], row["at"]) for row in missing["settlements"]] == [("BTC_USDT", "2025-04-05T08:00:00Z")]
    assert (await gaps(verdict="absent"))["minutes"] == 10
    assert (await gaps(verdict="halted"))["gaps"][0]["end"] == "2025-04-05T01:51:00Z"
    assert (await gaps(verdict="halted"))["settlements"] == []
    assert (await gaps(end="2025-04-05T01:00:00Z"))["total"] == 0
    settled = await gaps(dataset="funding")
    assert (settled["dataset"], settled["minutes"], settled["settlements"]) == ("funding", 1, [])
    counted = (await api.get("/ledger", params={"dataset": "funding"})).json()["total"]
    assert (counted["wanted"], counted["missing"], counted["settlements"]) == (1, 1, 0)
    assert (await api.get("/gaps", params={"verdict": "received"})).status_code == 422
    assert (await api.get("/gaps", params={"dataset": "books"})).status_code == 422


@pytest.mark.invariant(7)
async def test_status_lag_and_metrics_show_what_the_ledger_lacks(api, bus):
    await all_beat(bus)
    assert (await api.get("/lag")).json()["missing_minutes"] is None

    for symbol, stored in (("BTC_USDT", 718), ("ETH_USDT", 717)):
        await publish_ledger(bus, TODAY, **{symbol: replace(MORNING, received=span_mask(0, stored - 1))})

    collector = (await api.get("/status")).json()["services"][1]
    assert collector["reason"] == (
        "collector: works, 5 minutes of 2 symbols missing since 2025-04-05 11:57 UTC; being healed"
    )
    assert (await api.get("/lag")).json()["missing_minutes"] == 5
    metrics = (await api.get("/metrics")).text.splitlines()
    assert 'qlib_crypto_ledger_minutes{verdict="missing"} 5.0' in metrics
    assert "qlib_crypto_ledger_open_gaps 2.0" in metrics


async def test_ledger_that_is_unreadable_is_reported_and_leaves_the_rest_readable(api, bus):
    await all_beat(bus)
    await bus.set_universe(ranking())
    await publish_ledger(bus, TODAY, BTC_USDT=MORNING)
    await bus.set_ledger(TODAY, {"BTC_USDT": "wonted=0-1439"})

    status = (await api.get("/status")).json()

    assert (status["verdict"], status["services"][2]["verdict"]) == ("degraded", "ok")
    assert "ledger on the bus is unreadable" in status["reason"]
    assert (await api.get("/lag")).json()["missing_minutes"] is None


async def test_damaged_ledger_file_is_reported_with_its_name(api, bus, tmp_path):
    write_ledger(tmp_path / "raw", TODAY - DAY, BTC_USDT=MORNING)
    Partition(LedgerRow.dataset, TODAY - DAY).path(tmp_path / "raw").write_bytes(b"PAR1")

    for path in ("/ledger", "/gaps", "/completeness"):
        answer = await api.get(path)
        assert answer.status_code == 503
        assert "ledger_20250404.parquet is unreadable" in answer.text


async def test_completeness_is_a_page_that_needs_nothing_from_elsewhere(api, bus):
    await publish_ledger(bus, TODAY, BTC_USDT=MORNING)
    await publish_ledger(bus, TODAY, about="funding", BTC_USDT=SETTLED)

    answer = await api.get("/completeness")

    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert 'title="BTC_USDT 2025-04-05: 720 minutes wanted: 720 received, 1 settlement"' in answer.text
    assert "100.000 %" in answer.text


async def test_all_who_ask_within_the_same_second_are_answered_from_one_snapshot(bus, redis_url, tmp_path):
    paths = ("/status", "/lag", "/metrics", "/ready", "/ledger", "/gaps", "/completeness")
    async with client_of(bus, redis_url, tmp_path, fresh_seconds=3600) as client:
        before = [await client.get(path) for path in paths]
        asked = (await bus._redis.info("commandstats"))["cmdstat_xinfo|groups"]["calls"]
        await all_beat(bus)
        after = await asyncio.gather(*(client.get(path) for path in paths))

        assert [answer.content for answer in before] == [answer.content for answer in after]
        assert (await bus._redis.info("commandstats"))["cmdstat_xinfo|groups"]["calls"] == asked


async def test_a_snapshot_is_read_again_once_it_is_a_second_old(bus, redis_url, tmp_path):
    async with client_of(bus, redis_url, tmp_path, fresh_seconds=FRESH_SECONDS) as client:
        assert (await client.get("/ready")).status_code == 503
        await all_beat(bus)
        await asyncio.sleep(FRESH_SECONDS)

        assert (await client.get("/ready")).status_code == 200


async def test_a_heavy_request_that_gets_no_turn_is_asked_to_come_back(bus, redis_url, tmp_path):
    await publish_ledger(bus, TODAY, BTC_USDT=MORNING)
    turns = Turns(1, wait_seconds=0.01)
    async with client_of(bus, redis_url, tmp_path, turns=turns) as client:
        async with turns.turn():
            refused = {path: await client.get(path) for path in ("/ledger", "/gaps", "/completeness")}
            assert (await client.get("/status")).status_code == 200
        served = [await client.get(path) for path in refused]

    for answer in refused.values():
        assert (answer.status_code, answer.headers["retry-after"]) == (503, str(RETRY_AFTER_SECONDS))
        assert "too many heavy requests" in answer.json()["detail"]
    assert [answer.status_code for answer in served] == [200, 200, 200]


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


async def test_what_makes_no_sense_on_the_bus_hides_nothing_else(api, bus):
    await all_beat(bus)
    await bus._redis.set("heartbeat:writer", "{")
    await bus._redis.set("universe:current", "{")

    status = (await api.get("/status")).json()

    assert status["redis"] == "ok"
    verdicts = {row["service"]: row["verdict"] for row in status["services"]}
    assert verdicts.pop("writer") == "unknown"
    assert "unknown" not in verdicts.values()


async def test_a_key_of_another_type_is_named(api, bus):
    await all_beat(bus)
    await bus._redis.rpush("watermarks", "x")

    assert "refuses: watermarks: WRONGTYPE" in (await api.get("/status")).json()["redis"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/status", 200),
        ("/ready", 503),
        ("/lag", 503),
        ("/universe", 503),
        ("/dead-letters", 503),
        ("/metrics", 200),
        ("/ledger", 200),
        ("/gaps", 200),
        ("/completeness", 200),
    ],
)
async def test_silent_redis_is_reported_in_bounded_time_and_without_its_password(deaf_api, path, code):
    began = time.monotonic()
    answer = await deaf_api.get(path)

    assert time.monotonic() - began < patience(4 * REDIS_TIMEOUT_SECONDS)  # the client itself would wait for 15 s
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
    deadline = Deadline(20)
    while True:
        try:
            return httpx.get(f"{address}/health")
        except httpx.TransportError:
            assert not deadline.has_passed
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
