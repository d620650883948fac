"""What Redis may grow to: every stream at its hard cap fits under the ceiling that docker-compose.yml sets."""

import re

import pytest
import redis.asyncio as redis

from shared.bus import streams
from shared.bus.streams import CAPS
from tests.support.builders import a_candle, a_definition, a_funding_rate, a_ranking, a_verdict, minute
from tests.support.simulator import ROOT

SAMPLE = 2_000
SYMBOLS = [f"SYMBOL{number:03}_USDT" for number in range(500)]


def ceiling():
    """Return the memory ceiling of the containers' Redis, bytes."""
    return int(re.search(r"--maxmemory (\d+)gb", (ROOT / "docker-compose.yml").read_text())[1]) << 30


@pytest.mark.invariant(11)
async def test_all_streams_at_their_caps_fit_under_redis_memory_ceiling(bus, redis_url):
    """Invariant 11: measured per entry, with 500 symbols; half of the ceiling is left for the ledger and the rest."""
    rankings = [a_ranking(*SYMBOLS, ranked_time=minute(number)) for number in range(20)]
    await bus.publish([a_candle(SYMBOLS[number % 500], minute(number), 12345.678 + number) for number in range(SAMPLE)])
    await bus.publish([a_funding_rate(SYMBOLS[number % 500], minute(number)) for number in range(SAMPLE)])
    await bus.publish([a_verdict("wanted", number, number + 1, *SYMBOLS[:50]) for number in range(SAMPLE)])
    await bus.publish([a_definition(SYMBOLS[number % 500], minute(number)) for number in range(SAMPLE)])
    for ranking in rankings:
        await bus.set_universe(ranking)
    for number in range(SAMPLE):
        await bus.dead_letter("collector:candles", "x" * 4000, f"error {number}")

    async with redis.Redis.from_url(redis_url) as raw:
        used = {
            stream: await raw.memory_usage(stream, samples=0) / await raw.xlen(stream) * cap
            for stream, cap in CAPS.items()
        }

    assert sum(used.values()) < ceiling() / 2, {stream: f"{size / 1e6:.0f} MB" for stream, size in used.items()}


@pytest.mark.invariant(11)
async def test_a_stream_never_grows_far_beyond_its_cap_though_nobody_reads_it(bus, monkeypatch):
    """Invariant 11: what is dropped so is found missing, and healed."""
    for stream in CAPS:
        monkeypatch.setitem(streams.CAPS, stream, 200)

    for number in range(500):
        await bus.publish(
            [
                a_candle(open_time=minute(number)),
                a_funding_rate(),
                a_verdict("wanted", number, number + 1),
                a_definition(known_time=minute(number)),
            ]
        )
        await bus.set_universe(a_ranking("BTC_USDT", ranked_time=minute(number)))
        await bus.dead_letter("test", "payload", str(number))

    for stream in CAPS:
        assert 200 <= await bus.stream_length(stream) < 400, stream
