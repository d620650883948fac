"""The real stack while something that it stands on is gone: nobody dies, and afterwards nothing is missing."""

import shutil

import pytest
import redis

from cli.stack import SERVICES, Stack
from proofs.judges.stored import read_stored
from shared.bus.bus import Bus
from shared.datasets.candle import Candle
from shared.grid import MINUTE, from_ms
from shared.ledger.day import MinuteVerdict
from shared.ledger.replica import LedgerCopy
from shared.storage.layout import damaged_path
from tests.support.builders import wait_for
from tests.support.running import MARKET, SYMBOLS, Running, minutes_of

pytestmark = [pytest.mark.invariant(7), pytest.mark.invariant(11), pytest.mark.proof]


SETTINGS = {"TOP_N": "all", "BACKFILL_DAYS": "0", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1", "BUFFER_EVENTS": "1000"}


@pytest.fixture
def running(tmp_path):
    with Stack(tmp_path / "run", SETTINGS, simulator=MARKET) as stack:
        yield Running(stack)


def test_redis_is_gone_for_ten_minutes_and_nobody_dies_and_nothing_is_lost(running):
    """Invariant 11: a bounded buffer, then forgetting, then healing. A settlement falls into the outage."""
    begin, pids = running.until_live(), running.pids()
    running.stack.stop_program("valkey")
    gone = running.now()
    wait_for(lambda: running.now() - gone > 20 * MINUTE, 60)
    running.stack.start_program("valkey")

    running.until_whole(begin)

    assert running.pids() == pids


def test_redis_comes_back_empty_and_everything_is_rebuilt(running):
    """Invariant 11: groups, universe, ledger and watermarks."""
    begin, pids = running.until_live(), running.pids()
    running.stack.stop_program("valkey")
    shutil.rmtree(running.stack.folder / "valkey")
    (running.stack.folder / "valkey").mkdir()
    running.stack.start_program("valkey")

    wait_for(running.redis_answers)
    wait_for(lambda: running.redis.exists("ledger:ready", "universe:current", "watermarks") == 3, 30)
    running.until_whole(begin)

    assert running.pids() == pids
    for stream in ("candles", "funding", "ledger", "universe"):
        assert [group["name"] for group in running.redis.xinfo_groups(stream)]


def test_redis_at_its_memory_ceiling_refuses_and_is_emptied_by_the_writer_and_nothing_is_lost(tmp_path):
    """Invariant 11: full means errors, which are waited out; what is acknowledged makes room."""
    market = ["--symbols", "24", *MARKET[2:]]
    with Stack(tmp_path / "run", SETTINGS, simulator=market) as stack:
        running = Running(stack)
        begin, pids = running.until_live(), running.pids()
        stack.stop_program("writer")
        ceiling = running.redis.info("memory")["used_memory"] + 400_000
        running.redis.config_set("maxmemory", ceiling)
        running.redis.config_set("maxmemory-policy", "noeviction")
        wait_for(lambda: _is_full(running.redis), 60)
        since = running.now()
        wait_for(lambda: running.now() - since > 5 * MINUTE, 30)

        stack.start_program("writer")
        running.until_whole(begin)

        del pids["writer"]
        assert pids.items() <= running.pids().items()
        assert running.redis.info("memory")["used_memory"] < ceiling


def _is_full(server):
    try:
        server.set("probe", "x" * 1000, ex=1)
    except redis.exceptions.OutOfMemoryError:
        return True
    return False


def test_started_in_any_order_they_find_each_other(tmp_path):
    """Invariant 11: the order of recovery does not matter."""
    with Stack(tmp_path / "run", SETTINGS, simulator=MARKET) as stack:
        running = Running(stack)
        begin = running.until_live()
        programs = [*SERVICES, "valkey"]
        for name in programs:
            stack.stop_program(name)
        for name in ("writer", "converter", "collector", "api", "ranker", "valkey"):
            stack.start_program(name)
        running.until_whole(begin, 150)


def test_a_damaged_file_is_put_aside_and_healed_from_the_exchange(running):
    """Invariant 12."""
    begin = running.until_live()
    victim = next((running.stack.data_dir / "kline_1m").rglob("ETH_USDT_*.parquet"))
    victim.write_bytes(victim.read_bytes()[:200])

    wait_for(damaged_path(running.stack.data_dir, victim).exists, 90)
    running.until_whole(begin)

    assert damaged_path(running.stack.data_dir, victim).with_suffix(".damaged.txt").read_text().strip()


async def test_what_the_ledger_says_is_what_is_stored(running):
    """Invariant 7: to the minute, after an outage of the socket and of REST."""
    begin = running.until_live()
    gone = {"duration": 6, "clock": "wall"}
    running.stack.tell_simulator("/sim/faults", [{"kind": "drop", **gone}, {"kind": "http_error", **gone}])
    struck = running.now()
    wait_for(lambda: running.now() - struck > 8 * MINUTE, 30)
    end = running.until_whole(begin)

    bus, copy = Bus(running.stack.redis_url), LedgerCopy()
    await copy.refresh(bus)
    await bus.close()
    for symbol in SYMBOLS:
        stored = {from_ms(int(opened)) for opened in read_stored(running.stack.data_dir, symbol)[0].opens}
        for day, symbols in copy[Candle.dataset].days.items():
            known = symbols[symbol]
            verdicts = known.verdicts(known.wanted)
            assert not verdicts[MinuteVerdict.ABSENT]
            assert not verdicts[MinuteVerdict.HALTED]
            assert {opened for opened in stored if opened.date() == day and opened < end} <= set(
                minutes_of(day, known.stored)
            )
        healed = sum(symbols[symbol].healed.bit_count() for symbols in copy[Candle.dataset].days.values())
        assert healed >= 4
