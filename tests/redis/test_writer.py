"""The real writer process on a real Redis: killed, fed nonsense, stopped."""

import ast
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import polars as pl
import pytest
import redis as plain_redis

from services.writer.compact import compact_now
from services.writer.disk.ledger import read_day
from services.writer.disk.store import RawStore
from services.writer.settings import WriterSettings
from services.writer.writer import Writer
from shared.bus.bus import Bus
from shared.bus.compaction import have_rows_merged
from shared.clock import ExchangeClock, Sample
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import encode
from shared.datasets.universe import Rank
from shared.grid import DAY
from shared.ledger.day import DayLedger, bus_field, from_bus, from_text, to_row, to_text
from shared.runtime.service import Health, Service
from shared.storage.layout import Partition, damaged_path, days, partitions
from shared.storage.parquet import read_rows, table_of, write_table
from shared.storage.segments import PendingRows, segments_of
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    a_verdict,
    an_entry,
    minute,
    store,
    wait_for,
    write_batch,
)
from tests.support.examples import examples_in
from tests.support.simulator import ROOT


class WriterProcess:
    """`python -m services.writer`, and what it left behind."""

    def __init__(self, redis_url, root, **settings):
        self.root = root
        self.environment = os.environ | {
            "REDIS_URL": redis_url,
            "DATA_DIR": str(root),
            "FLUSH_SECONDS": "0.1",
            "OKX_REST_URL": "http://127.0.0.1:9",
            "WRITER_METRICS_PORT": "0",
            "LOG_FORMAT": "json",
            **settings,
        }
        self.redis = plain_redis.Redis.from_url(redis_url, decode_responses=True)
        self.log = (root.parent / "writer.log").open("a")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.writer"], cwd=ROOT, env=self.environment, stderr=self.log
        )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self):
        self.kill()
        self.log.close()
        self.redis.close()

    def is_idle(self):
        """Return whether everything was delivered and acknowledged."""
        return self.is_idle_on("candles", "funding", "ledger", "universe")

    def is_idle_on(self, *streams):
        """Return the same of some streams."""
        for stream in streams:
            if not self.redis.exists(stream):
                return False
            groups = {group["name"]: group for group in self.redis.xinfo_groups(stream)}
            if "writer" not in groups or groups["writer"]["pending"] or groups["writer"]["lag"]:
                return False
        return True

    def candles(self):
        """Return every candle that is stored, in day files and segments, as often as it is there."""
        pending, found = PendingRows(self.root), Counter()
        pending.refresh([Candle])
        stored = pending.rows()
        files = {file for day in days(self.root, "kline_1m") for file, _ in partitions(self.root, "kline_1m", day)}
        for file in files | {*stored.waiting}:
            rows = stored.read(file, ["symbol", "open_time", "open"])
            found.update((row["symbol"], row["open_time"], row["open"]) for row in rows.to_pylist())
        return found

    def merged(self):
        """Return every candle in the day files, as often as it is there."""
        found = Counter()
        for path in (self.root / "kline_1m").rglob("*.parquet"):
            for row in read_rows(Candle, path, ["symbol", "open_time", "open"]).to_pylist():
                found[row["symbol"], row["open_time"], row["open"]] += 1
        return found


@pytest.fixture
def writer(redis_url, tmp_path):
    running = WriterProcess(redis_url, tmp_path / "okx_data")
    yield running
    running.close()


@pytest.mark.invariant(3)
async def test_what_the_disk_refuses_is_not_acknowledged_and_stored_once_there_is_room(bus, writer):
    """Invariant 3: nothing is acknowledged before it is durable."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    in_the_way = writer.root / "_segments"
    in_the_way.symlink_to("/proc")  # a folder in which nothing can be written
    await bus.publish([a_candle(open_time=minute(number)) for number in range(3)])

    wait_for(lambda: _refused(writer.redis))
    pending_while_refused = writer.redis.xpending("candles", "writer")["pending"]
    in_the_way.unlink()
    wait_for(lambda: writer.redis.xpending("candles", "writer")["pending"] == 0)

    assert pending_while_refused == 3
    assert len(writer.candles()) == 3


@pytest.mark.invariant(3)
async def test_what_the_disk_refuses_to_merge_waits_and_rows_go_on_to_be_stored(bus, writer):
    """Invariant 3: what was acknowledged is durable all the time."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    in_the_way = writer.root / "kline_1m"
    in_the_way.symlink_to("/proc")
    await bus.publish([a_candle()])
    wait_for(writer.candles)

    assert not await have_rows_merged(bus, 3.0)
    wait_for(lambda: "cannot merge" in (writer.redis.get("heartbeat:writer") or ""))
    await bus.publish([a_candle(open_time=minute(1))])
    wait_for(lambda: len(segments_of(writer.root)) == 2)
    in_the_way.unlink()

    assert await have_rows_merged(bus, 30.0)
    assert len(writer.merged()) == 2


async def test_who_asks_finds_in_the_day_files_what_was_stored_when_they_asked(bus, writer):
    await bus.publish([a_candle(), a_funding_rate(), a_prediction()])
    wait_for(lambda: writer.redis.exists("funding") and writer.is_idle_on("candles", "funding"), 90)
    assert len(segments_of(writer.root)) == 3

    command = [sys.executable, "-m", "services.writer.compact"]
    done = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=writer.environment)

    assert await done.wait() == 0
    assert segments_of(writer.root) == []
    assert len(writer.merged()) == 1
    for file in (Partition("funding", DAY_0), Partition("funding_predicted", DAY_0)):
        assert file.path(writer.root).exists()


async def test_without_a_writer_the_command_merges_by_itself(redis_url, tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]})

    assert await compact_now(WriterSettings(_env_file=None, data_dir=tmp_path, redis_url=redis_url), 1.0) == 0

    assert segments_of(tmp_path) == []
    assert Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path).exists()
    nowhere = WriterSettings(_env_file=None, data_dir=tmp_path / "nowhere", redis_url=redis_url)
    assert await compact_now(nowhere, 1.0) == 3


async def test_rows_are_merged_in_time_and_what_the_ledger_says_stays(bus, redis_url, tmp_path):
    quick = WriterProcess(redis_url, tmp_path / "okx_data", COMPACT_EVERY="0.02")
    try:
        await bus.publish([a_candle(), a_verdict("wanted", 0, 2)])
        wait_for(quick.merged)
        await bus.publish([a_candle(open_time=minute(1), source="rest")])
        wait_for(lambda: len(quick.merged()) == 2)

        known = DayLedger(wanted=0b11, received=1, healed=2)
        wait_for(lambda: quick.redis.hget("ledger:2025-04-05", "BTC_USDT") == to_text(known))
        assert read_day(quick.root, DAY_0)["kline_1m", "BTC_USDT"].ledger == known
    finally:
        quick.close()


@pytest.mark.invariant(7)
@pytest.mark.invariant(12)
async def test_what_was_wanted_survives_a_segment_that_is_damaged_while_the_writer_is_dead(bus, writer):
    """Invariants 7 and 12: it is not published again, and no data file says it; the bus knows it."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    await bus.publish([a_verdict("wanted", 0, 10), a_verdict("absent", 1445, 1446)])
    wait_for(lambda: len(writer.redis.hgetall("ledger:versions")) == 2)
    wait_for(lambda: writer.is_idle_on("ledger"))
    writer.kill()
    for segment in segments_of(writer.root, ["ledger"]):
        segment.path(writer.root).write_bytes(b"torn")

    writer.start()
    wait_for(lambda: len([*(writer.root / "ledger").rglob("*.parquet")]) == 2)

    wait_for(lambda: writer.redis.hget("ledger:2025-04-06", "BTC_USDT") == "absent=5-5")
    assert writer.redis.hget("ledger:2025-04-05", "BTC_USDT") == "wanted=0-9"
    assert read_day(writer.root, DAY_0)["kline_1m", "BTC_USDT"].ledger.wanted == 0b1111111111


@pytest.mark.invariant(8)
async def test_the_queries_for_fresh_rows_in_the_docs_lack_nothing_while_the_writer_appends_and_merges(
    bus, redis_url, tmp_path, monkeypatch
):
    """Invariant 8: what was acknowledged is there, once; and who reads day files alone finds these whole and unique."""
    (example,) = [one for one in examples_in(ROOT / "docs" / "datasets.md") if "FRESH" in one.code]
    queries = [ast.unparse(node) for node in ast.parse(example.code).body if isinstance(node, ast.Expr)]
    names = {
        "pl": pl,
        "duckdb": duckdb,
        "FRESH": ast.literal_eval(example.code.split("FRESH = ")[1].splitlines()[0]),
    }
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "okx_data", [a_candle("S0_USDT")])
    busy, rounds, refused = WriterProcess(redis_url, tmp_path / "okx_data", COMPACT_EVERY="0.01"), 40, 0
    try:
        for number in range(rounds):
            await bus.publish([a_candle(f"S{symbol}_USDT", minute(number)) for symbol in range(20)])
            wait_for(lambda: busy.redis.exists("candles") and busy.is_idle_on("candles"))
            for query in queries:
                rows, refusals = _answered(query, names)
                assert len(rows) == len({*zip(rows["symbol"], rows["open_time"], strict=True)}) == 20 * (number + 1)
                refused += refusals
            assert set(busy.merged().values()) <= {1}
        assert refused < rounds
        wait_for(lambda: len(busy.merged()) == 20 * rounds)
    finally:
        busy.close()


def _answered(query, names):
    """Ask until an answer comes, as the docs say: a file may be merged away between its listing and its reading."""
    for refusals in range(50):
        try:
            return eval(query, names), refusals  # noqa: S307 - out of our own documents
        except (pl.exceptions.PolarsError, duckdb.Error, OSError):
            continue
    raise AssertionError(query)


@pytest.mark.invariant(7)
@pytest.mark.invariant(12)
async def test_minutes_of_a_damaged_segment_are_missing_on_the_bus_and_so_fetched_again(bus, writer):
    """Invariants 7 and 12."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    await bus.publish([a_candle(), a_verdict("wanted", 0, 2)])
    wait_for(lambda: writer.redis.hget("ledger:2025-04-05", "BTC_USDT") == "wanted=0-1 received=0-0")
    (segment,) = segments_of(writer.root, ["kline_1m"])

    segment.path(writer.root).write_bytes(b"torn")

    wait_for(lambda: writer.redis.hget("ledger:2025-04-05", "BTC_USDT") == "wanted=0-1")
    assert len(list((writer.root / "_damaged").rglob("*.damaged"))) == 1


def _refused(server):
    beat = server.get("heartbeat:writer")
    return beat is not None and "cannot write" in beat


@pytest.mark.invariant(2)
@pytest.mark.invariant(3)
async def test_killed_again_and_again_it_stores_every_row_exactly_once(bus, writer):
    """Invariants 2 and 3: durable before acknowledged, and redelivery changes nothing."""
    dice = random.Random(3)
    expected = {}
    for round_number in range(8):
        for number in range(round_number * 150, round_number * 150 + 150):
            events = [a_candle(f"S{symbol}_USDT", minute(number * 3), 1.0 + number) for symbol in range(8)]
            expected |= {(event.symbol, event.open_time): event.open for event in events}
            await bus.publish(events)
        await asyncio.sleep(0.55 + dice.random() * 0.6)  # a start takes as long
        writer.kill()
        writer.start()

    wait_for(writer.is_idle, 60)

    stored = {(symbol, opened, price): 1 for (symbol, opened), price in expected.items()}
    assert writer.candles() == stored
    assert writer.stop() == 0
    assert writer.merged() == stored
    assert not list(writer.root.rglob(".*.tmp"))
    assert segments_of(writer.root) == []


@pytest.mark.invariant(2)
async def test_redelivery_and_corrections_leave_one_row_each(bus, writer):
    """Invariant 2."""
    late = a_candle(price=2.0, receive_time=minute(9))
    await bus.publish([late, a_candle(price=1.0), a_candle(price=1.0), late])

    wait_for(writer.candles)
    wait_for(writer.is_idle)

    assert writer.candles() == {("BTC_USDT", MIDNIGHT, 2.0): 1}


@pytest.mark.invariant(12)
async def test_an_entry_that_is_no_event_goes_to_the_dead_letters_and_blocks_nobody(bus, writer):
    """Invariant 12."""
    writer.redis.xadd("candles", {"event": "gossip"})
    bad_id = writer.redis.xadd("candles", encode(a_candle()) | {"open": "much"})
    await bus.publish([a_candle("ETH_USDT")])

    wait_for(writer.candles)
    wait_for(writer.is_idle)

    count, letters = await bus.dead_letters()
    assert count == 2
    assert letters[0]["origin"] == f"writer:candles:{bad_id}"
    assert "open" in letters[0]["error"]
    assert '"much"' in letters[0]["payload"]
    assert set(writer.candles()) == {("ETH_USDT", MIDNIGHT, 100.0)}


@pytest.mark.invariant(12)
async def test_rows_that_cannot_be_true_go_to_the_dead_letters_and_no_file_is_put_aside(bus, writer):
    """Invariant 12: one stored would make the symbol's whole day a damaged file."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    odd = [
        a_candle(open=float("nan")),
        a_candle(low=-5.0),
        a_candle(exchange="binance"),
        a_candle(interval="5m"),
        msgspec.structs.replace(a_candle(), open_time=datetime(9999, 12, 31, 23, 59, tzinfo=UTC)),
        msgspec.structs.replace(a_verdict("absent", 0, 9), end=datetime(9999, 12, 31, tzinfo=UTC)),
    ]
    await bus.publish(odd)
    writer.redis.xadd("candles", {b"event": b"candle", b"symbol": b"\xff\xfe"})
    await bus.publish([a_candle("ETH_USDT"), a_candle(open_time=minute(1))])

    wait_for(lambda: len(writer.candles()) == 2)
    wait_for(lambda: writer.is_idle_on("candles", "ledger"))

    assert (await bus.dead_letters())[0] == len(odd) + 1
    assert await have_rows_merged(bus, 30.0)
    assert not list(writer.root.rglob("*.damaged*"))
    assert [folder.name for folder in (writer.root / "kline_1m").iterdir()] == ["date=2025-04-05"]
    assert writer.process.poll() is None


@pytest.mark.invariant(13)
async def test_a_row_of_the_future_is_set_aside_and_a_file_of_it_moves_no_watermark(bus, tmp_path):
    """Invariant 13: at the exchange it is the noon of DAY_0."""
    service = Service("writer", bus, None, _clock_at(minute(720)), Health(), asyncio.Event())
    store(tmp_path, [a_candle(open_time=minute(700)), a_candle(open_time=minute(700) + 365 * DAY)])
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path))

    assert await writer._decode(an_entry(a_candle(open_time=minute(800)))) is None
    for _ in range(2):  # what is written up to is not said before the disk is known
        await writer._look_at_disk(everything=True)

    assert await bus.watermarks() == {"newest:BTC_USDT": minute(700), "written_until": minute(701)}


def _clock_at(instant):
    """Return a clock by which the exchange's time is `instant` now, at its own rate."""
    clock, here = ExchangeClock(), time.monotonic()
    for ago in (1.0, 0.0):
        clock.add(Sample(here - ago, here - ago, instant.timestamp() - ago))
    return clock


@pytest.mark.invariant(13)
async def test_how_old_a_row_is_the_exchanges_clock_says(bus, tmp_path):
    """Invariant 13: at the exchange it is the noon of DAY_0, here that is far beyond the retention."""
    service = Service("writer", bus, None, _clock_at(minute(720)), Health(), asyncio.Event())
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path, retention_days=90))
    kept, retired = (a_candle(open_time=MIDNIGHT - timedelta(days=days)) for days in (90, 91))

    assert await writer._decode(an_entry(kept, 1)) == kept
    assert await writer._decode(an_entry(retired, 2)) is None

    _, letters = await bus.dead_letters()
    assert [letter["origin"] for letter in letters] == ["writer:candles:2-0"]


@pytest.mark.invariant(3)
async def test_on_sigterm_it_writes_what_it_holds_and_ends_with_0(bus, redis_url, tmp_path):
    """Invariant 3, the friendly way."""
    patient = WriterProcess(redis_url, tmp_path / "okx_data", FLUSH_SECONDS="300")
    try:
        await bus.publish([a_candle(open_time=minute(number)) for number in range(50)])
        wait_for(lambda: any(group["pending"] == 50 for group in _groups(patient)))
        assert not patient.candles()

        assert patient.stop() == 0

        assert len(patient.merged()) == 50
        assert patient.is_idle()
    finally:
        patient.close()


def _groups(writer):
    return writer.redis.xinfo_groups("candles") if writer.redis.exists("candles") else []


async def test_settlements_and_rankings_have_files_of_their_own(bus, writer):
    ranking = a_ranking("BTC_USDT", others=["ETH_USDT"])
    await bus.publish([a_funding_rate("BTC_USDT"), a_funding_rate("ETH_USDT")])
    await bus.set_universe(ranking)

    files = {"funding": FundingRate, "universe": Rank}
    wait_for(lambda: writer.redis.exists("funding") and writer.is_idle_on("funding", "universe"))
    assert await have_rows_merged(bus, 30.0)

    for name, kind in files.items():
        table = read_rows(kind, Partition(name, DAY_0).path(writer.root))
        assert table["symbol"].to_pylist() == ["BTC_USDT", "ETH_USDT"]


@pytest.mark.invariant(7)
async def test_what_is_durable_is_published_at_the_start_and_after_every_write(bus, redis_url, tmp_path):
    """Invariant 7: the collector fetches what is missing here."""
    root = tmp_path / "okx_data"
    store(root, [a_candle(open_time=minute(number)) for number in (0, 1, 5)])
    writer = WriterProcess(redis_url, root)
    try:
        wait_for(lambda: writer.redis.exists("ledger:ready"))
        assert (await bus.ledger([DAY_0]))[DAY_0] == {"BTC_USDT": "received=0-1,5-5"}

        await bus.publish([a_candle(open_time=minute(2)), a_candle(open_time=minute(6))])
        wait_for(lambda: writer.redis.hget("ledger:2025-04-05", "BTC_USDT") != "received=0-1,5-5")

        assert from_text((await bus.ledger([DAY_0]))[DAY_0]["BTC_USDT"]).received == 0b1100111
        wait_for(lambda: writer.redis.hget("watermarks", "written_until"))
        assert (await bus.watermarks())["written_until"] == minute(7)
    finally:
        writer.close()


@pytest.mark.invariant(11)
async def test_the_stream_does_not_grow_with_what_is_stored(bus, writer):
    """Invariant 11: trimmed behind the slowest group."""
    for number in range(40):
        await bus.publish([a_candle(open_time=minute(number * 100 + ahead)) for ahead in range(100)])

    wait_for(lambda: len(writer.candles()) == 4000, 40)
    wait_for(writer.is_idle)

    wait_for(lambda: writer.redis.xlen("candles") < 500)


async def test_what_a_crash_left_behind_is_removed_at_the_start(redis_url, tmp_path):
    root = tmp_path / "okx_data"
    store(root, [a_candle()])
    stale = Partition("kline_1m", DAY_0, "BTC_USDT").path(root).with_name(".BTC_USDT_20250405.parquet.1.tmp")
    stale.write_text("half")

    writer = WriterProcess(redis_url, root)
    try:
        wait_for(lambda: not stale.exists())
        assert writer.candles()
    finally:
        writer.close()


async def test_it_beats(redis_url, writer):
    bus = Bus(redis_url)

    wait_for(lambda: writer.redis.exists("heartbeat:writer"))

    beat = await bus.heartbeat("writer")
    assert beat.pid == writer.process.pid
    await bus.close()


@pytest.mark.invariant(3)
async def test_a_second_writer_stands_by_and_takes_over_when_the_first_one_dies(bus, redis_url, writer):
    """Invariant 3: two that merge into the same files would lose each other's rows."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    second = WriterProcess(redis_url, writer.root, HOSTNAME="second")
    try:
        await bus.publish([a_candle(open_time=minute(number)) for number in range(100)])
        wait_for(lambda: len(writer.candles()) == 100)
        wait_for(lambda: "standing by" in (writer.redis.get("heartbeat:writer") or ""))
        assert len(writer.redis.xinfo_consumers("candles", "writer")) == 1

        writer.kill()
        await bus.publish([a_candle(open_time=minute(number)) for number in range(100, 200)])

        wait_for(lambda: len(second.candles()) == 200)
        assert set(second.candles().values()) == {1}
    finally:
        second.close()


@pytest.mark.invariant(3)
@pytest.mark.parametrize("happens", ["lock deleted", "folder replaced"])
async def test_a_writer_whose_lock_is_not_that_of_its_folder_any_more_ends(bus, writer, happens):
    """Invariant 3: another one could begin beside it. Whoever supervises it starts it again."""
    await bus.publish([a_candle()])
    wait_for(lambda: writer.redis.exists("candles") and writer.is_idle_on("candles"))
    if happens == "lock deleted":
        (writer.root / ".writer.lock").unlink()
    else:
        writer.root.rename(writer.root.with_name("moved"))
        shutil.copytree(writer.root.with_name("moved"), writer.root)

    assert writer.process.wait(20) == 1

    await bus.publish([a_candle(open_time=minute(1))])
    writer.start()
    wait_for(lambda: len(writer.candles()) == 2)
    assert set(writer.candles().values()) == {1}


@pytest.mark.invariant(7)
async def test_what_the_collector_found_out_is_durable_before_it_is_acknowledged(bus, writer):
    """Invariant 7: a verdict survives the writer and Redis."""
    await bus.publish([a_verdict("wanted", 0, 10), a_verdict("absent", 4, 5), a_candle()])
    wait_for(lambda: writer.redis.exists("ledger") and writer.is_idle_on("ledger", "candles"))
    writer.kill()
    writer.redis.flushall()
    writer.start()

    wait_for(lambda: writer.redis.exists("ledger:ready"))

    known = from_text((await bus.ledger([DAY_0]))[DAY_0]["BTC_USDT"])
    assert (known.wanted.bit_count(), known.absent, known.received) == (10, 0b10000, 1)
    assert known.missing(0b1111111111) == 0b1111101110


@pytest.mark.invariant(11)
@pytest.mark.invariant(12)
async def test_a_redis_that_came_back_empty_gets_everything_again(bus, writer):
    """Invariants 11 and 12."""
    await bus.publish([a_candle(), a_verdict("wanted", 0, 1)])
    wait_for(lambda: writer.redis.exists("ledger") and writer.is_idle_on("ledger", "candles"))

    writer.redis.flushall()
    wait_for(lambda: writer.redis.exists("ledger:ready"))

    assert from_text((await bus.ledger([DAY_0]))[DAY_0]["BTC_USDT"]).received == 1
    await bus.publish([a_candle(open_time=minute(1))])
    wait_for(lambda: len(writer.candles()) == 2)
    wait_for(lambda: writer.redis.hget("watermarks", "newest:BTC_USDT") == minute(1).isoformat())


@pytest.mark.invariant(7)
@pytest.mark.invariant(12)
@pytest.mark.parametrize("happens", ["damaged", "deleted", "replaced"])
async def test_a_ledger_that_somebody_spoils_keeps_what_was_wanted_and_the_bus_says_what_the_file_does(
    bus, tmp_path, happens
):
    """Invariants 7 and 12: what was wanted no data file says; of a day collected no more, the bus alone does."""
    service = Service("writer", bus, None, ExchangeClock(), Health(), asyncio.Event())
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path))
    store(tmp_path, [a_candle(), a_funding_rate()])
    write_batch(tmp_path, [], [a_verdict("wanted", 0, 10), a_verdict("absent", 4, 5)])
    await writer._look_at_disk(everything=True)
    path = Partition("ledger", DAY_0).path(tmp_path)
    if happens == "damaged":
        path.write_bytes(b"torn")
    elif happens == "deleted":
        path.unlink()
    else:
        row = to_row("okx", "ETH_USDT", DAY_0, DayLedger(wanted=3), "", about="kline_1m")
        write_table(path, table_of(LedgerRow, [row]))

    await writer._look_at_disk(everything=False)

    books = from_bus((await bus.ledger([DAY_0]))[DAY_0])
    if happens == "replaced":
        assert books["kline_1m"] == {"BTC_USDT": DayLedger(received=1), "ETH_USDT": DayLedger(wanted=3)}
    else:
        assert books["kline_1m"]["BTC_USDT"] == DayLedger(wanted=0b1111111111, received=1, absent=1 << 4)
    assert books["funding"] == {"BTC_USDT": DayLedger(wanted=1, received=1)}
    assert {bus_field(*key): to_text(one.ledger) for key, one in read_day(tmp_path, DAY_0).items()} == {
        bus_field(about, symbol): to_text(known) for about, of in books.items() for symbol, known in of.items()
    }


async def test_it_says_which_definitions_of_instruments_are_stored_also_to_a_redis_that_forgot(bus, writer):
    """The collector publishes again whatever is not said."""
    wait_for(lambda: writer.redis.exists("ledger:ready"))
    assert await bus.definitions() == {}
    first, second = a_definition(known_time=minute(5)), a_definition(known_time=minute(1500), state="suspend")

    await bus.publish([second, first, a_definition("ETH_USDT", minute(7))])
    wait_for(lambda: writer.redis.hlen("instruments:stored") == 3)

    expected = {"BTC_USDT": second, "ETH_USDT": a_definition("ETH_USDT", minute(7))}
    assert await bus.definitions() == expected
    writer.redis.flushall()
    wait_for(lambda: writer.redis.hlen("instruments:stored") == 3)
    assert await bus.definitions() == expected


async def test_a_definition_whose_file_is_damaged_is_not_said_to_be_stored_any_more(bus, tmp_path):
    store(tmp_path, [a_definition(known_time=minute(5)), a_definition("ETH_USDT", minute(1500))])
    service = Service("writer", bus, None, ExchangeClock(), Health(), asyncio.Event())
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path))
    await writer._look_at_disk(everything=True)
    assert set(await bus.definitions()) == {"BTC_USDT", "ETH_USDT"}

    Partition("instruments", DAY_0).path(tmp_path).write_bytes(b"no Parquet")
    await writer._look_at_disk(everything=False)

    assert set(await bus.definitions()) == {"ETH_USDT"}
    assert list((tmp_path / "_damaged" / "instruments").rglob("*.damaged"))


@pytest.mark.invariant(12)
async def test_a_ranking_whose_file_is_damaged_or_gone_is_not_said_to_be_stored_any_more(bus, tmp_path):
    """Invariant 12: then the ranker publishes it again."""
    rankings = [a_ranking("BTC_USDT", ranked_time=minute(number)) for number in (0, 1440, 2880)]
    store(tmp_path, [row for ranking in rankings for row in ranking.ranks])
    service = Service("writer", bus, None, ExchangeClock(), Health(), asyncio.Event())
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path))
    await writer._look_at_disk(everything=True)
    assert await bus.stored_rankings("okx") == {minute(0), minute(1440), minute(2880)}

    damaged, gone = (Partition("universe", DAY_0 + timedelta(days=ahead)).path(tmp_path) for ahead in (0, 1))
    damaged.write_bytes(b"no Parquet")
    gone.unlink()
    await writer._look_at_disk(everything=False)

    assert await bus.stored_rankings("okx") == {minute(2880)}
    assert damaged_path(tmp_path, damaged).with_suffix(".damaged.txt").read_text().strip()


@pytest.mark.invariant(12)
async def test_a_damaged_file_of_predictions_is_put_aside_although_no_row_of_its_day_comes(bus, tmp_path):
    """Invariant 12: else it would stand in the converter's way for ever."""
    store(tmp_path, [a_prediction(), a_prediction(known_time=minute(1440))])
    damaged = Partition("funding_predicted", DAY_0).path(tmp_path)
    service = Service("writer", bus, None, ExchangeClock(), Health(), asyncio.Event())
    writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path))
    await writer._look_at_disk(everything=True)
    damaged.write_bytes(b"no Parquet")

    await writer._look_at_disk(everything=False)

    assert [path.name for path in (tmp_path / "_damaged" / "funding_predicted").rglob("*.damaged")] == [
        f"{damaged.name}.damaged"
    ]


@pytest.mark.invariant(7)
async def test_a_writer_on_another_folder_does_not_leave_the_ledger_of_the_first_one(bus, tmp_path):
    """Invariant 7: what lay in the other folder is missing here, and is fetched."""
    store(tmp_path / "old", [a_candle(), a_candle("ETH_USDT"), a_candle(open_time=minute(1441))])
    store(tmp_path / "new", [a_candle()])
    for name in ("old", "new"):
        service = Service("writer", bus, None, ExchangeClock(), Health(), asyncio.Event())
        writer = Writer(service, WriterSettings(_env_file=None, data_dir=tmp_path / name))
        await writer._look_at_disk(everything=False)

    assert set(await bus.ledger_versions()) == {DAY_0}
    assert set((await bus.ledger([DAY_0]))[DAY_0]) == {"BTC_USDT"}
