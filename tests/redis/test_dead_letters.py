"""Dead letters replayed by the command, on a real Redis."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.progress import Progress

from services.writer.dead_letters import Choice, now_at, replay
from shared.bus import set_aside as set_aside_module
from shared.bus.heartbeat import Heartbeat
from shared.bus.set_aside import SetAside
from shared.bus.streams import DEAD_LETTER
from shared.datasets.registry import encode
from shared.metrics import DEAD_LETTERS
from tests.support.builders import MIDNIGHT, a_candle, a_candle_row, a_ranking, minute, until
from tests.support.simulator import ROOT

BAD_ENTRY = encode(a_candle()) | {"open": "a lot"}


@pytest.fixture
async def bus(bus):
    await bus.create_groups()
    return bus


def silent():
    return Progress(console=Console(quiet=True))


async def entries(bus, stream):
    return [fields for _, fields in await bus._redis.xrange(stream)]


async def origins(bus):
    return [letter.origin async for letter in bus.all_dead_letters()]


@pytest.mark.invariant(12)
async def test_what_makes_sense_now_is_published_and_gone_and_the_rest_stays_with_its_reason(bus):
    good = encode(a_candle("BTC_USDT"))
    await bus.dead_letter("writer:candles:1-0", good, "a bug of yesterday")
    await bus.dead_letter("writer:candles:2-0", BAD_ENTRY, "open: no number")
    await bus.dead_letter("collector:candles", {"instId": "ETH-USDT-SWAP", "row": a_candle_row()}, "a bug, too")
    await bus.dead_letter("collector:candles", ["1", "2"], "nonsense")

    outcome = await replay(bus, Choice(), await now_at(bus, 100_000), silent())

    assert (outcome.replayed, outcome.events) == (2, 2)
    assert sum(outcome.kept.values()) == 2
    assert any("open" in reason for reason in outcome.kept)
    assert await origins(bus) == ["writer:candles:2-0", "collector:candles"]
    published = await entries(bus, "candles")
    assert published[0] == good
    assert published[1]["symbol"] == "ETH_USDT"

    again = await replay(bus, Choice(), await now_at(bus, 100_000), silent())
    assert again.replayed == 0
    assert len(await entries(bus, "candles")) == 2


async def test_dry_run_changes_nothing(bus):
    await bus.dead_letter("writer:candles:1-0", encode(a_candle()), "a bug of yesterday")

    outcome = await replay(bus, Choice(), await now_at(bus, 100_000), silent(), dry_run=True)

    assert outcome.replayed == 1
    assert await bus.stream_length(DEAD_LETTER) == 1
    assert await bus.stream_length("candles") == 0


async def test_only_the_chosen_ones_are_replayed(bus):
    for number in range(3):
        await bus.dead_letter(f"writer:candles:{number}-0", encode(a_candle(open_time=minute(number))), "a bug")
    await bus.dead_letter("writer:universe:9-0", encode(a_ranking("BTC_USDT")), "a bug")
    ids = [letter.id async for letter in bus.all_dead_letters()]

    await replay(bus, Choice("writer:candles", {ids[1], ids[3]}), await now_at(bus, 100_000), silent())

    assert [letter.id async for letter in bus.all_dead_letters()] == [ids[0], ids[2], ids[3]]


async def test_many_pages_are_read_once_each_and_replayed_in_order(bus):
    for number in range(1201):
        await bus.dead_letter(f"writer:candles:{number}-0", encode(a_candle(open_time=minute(number))), "a bug")

    outcome = await replay(bus, Choice(), await now_at(bus, 100_000), silent())

    assert outcome.replayed == 1201
    assert await bus.stream_length(DEAD_LETTER) == 0
    assert [fields["open_time"] for fields in await entries(bus, "candles")] == [
        encode(a_candle(open_time=minute(number)))["open_time"] for number in range(1201)
    ]


async def test_now_is_the_exchanges(bus):
    now = datetime.now(UTC)
    fields = {"state": "ok", "reason": "works", "host": "box", "pid": 7, "started": now, "beaten": now}
    before = await now_at(bus, 90)
    await bus.beat(Heartbeat(service="writer", exchange_time=MIDNIGHT, **fields), 3600)

    assert before.exchange_time >= now
    assert (await now_at(bus, 90)).exchange_time == MIDNIGHT


async def test_set_aside_entries_are_counted_by_place_not_by_entry(bus):
    def counted():
        samples = next(iter(DEAD_LETTERS.collect())).samples
        return {sample.labels["origin"]: sample.value for sample in samples if sample.name.endswith("_total")}

    before = counted().get("writer:counted", 0)
    for number in range(3):
        await bus.dead_letter(f"writer:counted:{number}-0", {}, "bad")

    assert counted()["writer:counted"] == before + 3
    assert not [origin for origin in counted() if origin.startswith("writer:counted:")]


# --- As a command


def command(redis_url, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "services.writer.dead_letters", *arguments],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": redis_url, "RETENTION_DAYS": "100000", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_command_lists_replays_and_drops(bus, redis_url):
    await bus.dead_letter("writer:candles:1-0", encode(a_candle()), "a bug [of] yesterday")
    await bus.dead_letter("writer:candles:2-0", BAD_ENTRY, "open: no number")
    await bus.dead_letter("collector:funding", "[", "nonsense")

    def run(*arguments):
        return asyncio.to_thread(command, redis_url, *arguments)

    listed, as_json = await run("list"), await run("list", "--origin", "writer", "--json")
    assert "a bug [of] yesterday" in listed.stdout
    assert "collector:funding" in listed.stdout
    assert [json.loads(line)["error"] for line in as_json.stdout.splitlines()] == [
        "a bug [of] yesterday",
        "open: no number",
    ]

    dry, real = await run("replay", "--dry-run"), await run("replay")
    assert dry.stdout.startswith("1 would be replayed as 1 events, 2 stay")
    assert real.stdout.startswith("1 replayed as 1 events, 2 stay")
    assert real.returncode == 1
    assert await bus.stream_length("candles") == 1

    unsure, sure = await run("drop", "--origin", "writer"), await run("drop", "--origin", "writer", "--yes")
    assert (unsure.returncode, unsure.stdout) == (1, "1 would be deleted for good; --yes does it\n")
    assert (sure.returncode, sure.stdout) == (0, "1 deleted\n")
    assert await origins(bus) == ["collector:funding"]
    assert (await run("drop")).returncode == 2


def test_command_says_that_redis_does_not_answer():
    answer = command("redis://:sesame@127.0.0.1:1/0", "list")

    assert answer.returncode == 3
    assert answer.stderr.startswith("Redis does not answer")
    assert "sesame" not in answer.stderr


async def test_what_redis_does_not_take_in_waits_until_it_does_and_is_there_once(bus, logs_of):
    """A full Redis refuses every write; one that is away is the same to whoever sets something aside."""
    set_aside = SetAside(bus, "collector")
    await bus._redis.config_set("maxmemory", 1)
    with logs_of(set_aside_module) as logs:
        posting = asyncio.create_task(set_aside.run())
        try:
            for payload in (["1"], ["2"], ["1"]):
                set_aside("candles", payload, "nonsense")
            await until(lambda: any(entry["event"] == "dead letter waits for Redis" for entry in logs))
        finally:
            await bus._redis.config_set("maxmemory", 0)
        async with asyncio.timeout(20):
            while await bus.stream_length(DEAD_LETTER) < 2:  # noqa: ASYNC110 - what is waited for happens in Redis
                await asyncio.sleep(0.02)
        posting.cancel()

    assert [letter.payload async for letter in bus.all_dead_letters()] == ['["1"]', '["2"]']
