"""The real collector, over the real cryptofeed, against an exchange that misbehaves in every way we know.

Invariants 1, 2, 7, 10, 11, 12: every closed minute arrives, exactly once, as it was; nobody who stays loses anything.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from shared.bus.bus import Bus
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import Verdict
from shared.datasets.registry import decode
from shared.datasets.universe import Ranking
from shared.exchanges.okx.names import inst_id_of
from shared.grid import DAY, MINUTE, ceil_minute, floor_day, floor_minute, from_ms, to_ms
from tests.support.builders import a_ranking, at
from tests.support.patience import patience
from tests.support.simulator import ROOT, Simulator

pytestmark = [pytest.mark.invariant(number) for number in (1, 2, 7, 11, 12)]

SPEED = 120
STAYS = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
LEAVES, JOINS = "XRP_USDT", "DOGE_USDT"


@contextlib.contextmanager
def a_collector(exchange, redis_url, folder, **settings):
    environment = os.environ | {
        "REDIS_URL": redis_url,
        "OKX_REST_URL": exchange.rest_url,
        "OKX_WS_URL": exchange.ws_url,
        "OKX_CA_FILE": str(exchange.ca_file),
        "DATA_DIR": str(folder),
        "COLLECTOR_METRICS_PORT": "0",
        "LOG_FORMAT": "json",
        **settings,
    }
    with (folder / "collector.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.collector"], cwd=ROOT, env=environment, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Tape:
    """What the collector published, read from the stream as it is."""

    def __init__(self, bus):
        self._bus = bus

    async def events(self, stream):
        return [decode(fields) for _, fields in await self._bus._redis.xrange(stream)]

    async def opens(self, symbol):
        return {event.open_time for event in await self.events("candles") if event.symbol == symbol}


async def wait_until(condition, seconds):
    async with asyncio.timeout(patience(seconds)):
        while not await condition():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.2)


def misbehave(exchange):
    """Do everything at once, and keep at it."""
    exchange.fault("lost_confirm", count=12)
    exchange.fault("duplicate_confirm", count=12)
    exchange.fault("late_confirm", count=6, delay=200)
    exchange.fault("garbage", count=5)
    exchange.fault("garbage", count=5, variant="truncated")
    exchange.fault("garbage", count=3, variant="empty_rate")
    exchange.fault("http_error", count=3, endpoint="market/candles", html=True)
    exchange.fault("rate_limit", count=1, endpoint="history-candles")


@pytest.mark.proof
async def test_every_closed_minute_arrives_exactly_once_whatever_the_exchange_does(redis_url, tmp_path):
    bus = Bus(redis_url)
    tape = Tape(bus)
    with Simulator.start(symbols=6, seed=11, start="2025-06-09T23:40:00", speed=SPEED) as exchange:
        first = a_ranking(*STAYS, LEAVES, ranked_time=from_ms(exchange.now()))
        await bus.create_groups()
        await bus.set_universe(first)
        await bus.set_ledger_ready(ready=True)
        with a_collector(exchange, redis_url, tmp_path, BACKFILL_DAYS="1") as process:
            await wait_until(lambda: _has_live_rows(tape), 30)
            misbehave(exchange)
            await asyncio.sleep(3)

            exchange.fault("drop")
            before = exchange.stats()["connections_total"]
            exchange.fault("close", path="business", duration=4, clock="wall")
            await asyncio.sleep(4)
            during = exchange.stats()["connections_total"]
            opened = sum(during.values()) - sum(before.values())
            assert 1 <= opened <= 3 * 4 + 3, "a clean close must not become a storm of connects"

            left = from_ms(exchange.now())
            change = a_ranking(*STAYS, JOINS, ranked_time=left, removed=[LEAVES])
            await bus.set_universe(change)
            await wait_until(lambda: _is_subscribed(exchange), 20)
            exchange.fault("silence", path="business", duration=3, clock="wall")
            await asyncio.sleep(6)

            end = floor_minute(from_ms(exchange.now()))
            begin = at("2025-06-08 00:00")
            spans = dict.fromkeys(STAYS, (begin, end)) | {LEAVES: (begin, ceil_minute(left))}
            spans[JOINS] = floor_day(end) - DAY, end  # one day of history before the day on which it joined
            with contextlib.suppress(TimeoutError):
                await wait_until(lambda: _is_whole(tape, spans), 40)
            assert await _missing(tape, spans) == {}
            assert process.poll() is None

        candles = await tape.events(Candle.stream)
        copies = Counter((event.symbol, event.open_time) for event in candles)
        assert {identity: count for identity, count in copies.items() if count > 1} == {}
        assert {symbol for symbol, _ in copies} == set(spans)
        for symbol in spans:
            truth = {int(row[0]): row for row in exchange.truth_candles(inst_id_of(symbol), to_ms(begin))}
            for event in (event for event in candles if event.symbol == symbol):
                values = (event.open, event.high, event.low, event.close, event.contracts, event.volume, event.amount)
                assert values == tuple(map(float, truth[to_ms(event.open_time)][1:8]))
        assert {event.source for event in candles} == {"ws", "rest"}
        await _check_settlements(exchange, tape)
        count, letters = await bus.dead_letters()
        assert count >= 10, "garbage has an address"
        assert all(letter["origin"].startswith("collector:") for letter in letters)
        assert {"lost_confirm", "garbage", "drop", "close", "silence", "http_error"} <= {
            entry["kind"] for entry in exchange.faults()
        }
    await bus.close()


async def _has_live_rows(tape):
    return any(event.source == "ws" for event in await tape.events(Candle.stream))


async def _is_subscribed(exchange):
    return exchange.stats()["subscriptions_now"].get("candle1m", 0) >= len(STAYS)


async def _is_whole(tape, spans):
    return not await _missing(tape, spans)


async def _missing(tape, spans):
    """Return symbol → minutes of its span that were not published."""
    opens = {symbol: await tape.opens(symbol) for symbol in spans}
    missing = {
        symbol: sorted({begin + number * MINUTE for number in range((end - begin) // MINUTE)} - opens[symbol])
        for symbol, (begin, end) in spans.items()
    }
    return {symbol: minutes for symbol, minutes in missing.items() if minutes}


async def _check_settlements(exchange, tape):
    """Whatever of the settlements was published last, per identity, is what was charged; midnight is among them."""
    newest = {}
    for event in await tape.events(FundingRate.stream):
        if isinstance(event, FundingRate):
            key = event.symbol, event.funding_time
            if key not in newest or event.known_time >= newest[key].known_time:
                newest[key] = event
    midnight = at("2025-06-10 00:00")
    for symbol in STAYS:
        truth = exchange.truth_funding(inst_id_of(symbol), to_ms(at("2025-06-08 00:00")), to_ms(midnight) + 1)
        assert truth
        for row in truth:
            settled = newest[symbol, from_ms(int(row["fundingTime"]))]
            assert settled.funding_rate == float(row["realizedRate"])
        assert newest[symbol, midnight].interval_hours in {1, 2, 4, 8}


async def test_on_sigterm_it_publishes_what_it_holds_and_ends_with_0(redis_url, tmp_path):
    bus = Bus(redis_url)
    with Simulator.start(symbols=3, seed=2, start="2025-06-10T12:00:00", speed=SPEED) as exchange:
        await bus.create_groups()
        await bus.set_universe(a_ranking("BTC_USDT", ranked_time=from_ms(exchange.now())))
        await bus.set_ledger_ready(ready=True)
        with a_collector(exchange, redis_url, tmp_path, BACKFILL_DAYS="0") as process:
            await wait_until(lambda: _has_live_rows(Tape(bus)), 30)

            process.terminate()

            assert await asyncio.to_thread(process.wait, 20) == 0
    assert isinstance(await bus.universe(), Ranking)
    await bus.close()


async def test_a_ranking_is_acknowledged_once_what_it_asks_for_is_published(redis_url, tmp_path):
    """Invariant 7: who is dropped by the next ranking, while the collector is down, is not forgotten."""
    bus = Bus(redis_url)
    with Simulator.start(symbols=3, seed=2, start="2025-06-10T12:00:00", speed=1) as exchange:
        await bus.create_groups()
        await bus.set_ledger_ready(ready=True)
        await bus.set_universe(a_ranking("BTC_USDT", "ETH_USDT", ranked_time=from_ms(exchange.now())))
        with a_collector(exchange, redis_url, tmp_path, BACKFILL_DAYS="2"):
            await wait_until(lambda: _has_acknowledged(bus), 30)
            verdicts = [event for event in await Tape(bus).events("ledger") if isinstance(event, Verdict)]
    wanted = [event for event in verdicts if event.verdict == "wanted"]
    assert {symbol for event in wanted for symbol in event.symbols} == {"BTC_USDT", "ETH_USDT"}
    assert min(event.begin for event in wanted) == at("2025-06-08 00:00")
    await bus.close()


@pytest.mark.invariant(12)
async def test_a_ledger_on_the_bus_that_makes_no_sense_is_asked_for_again_and_stops_nothing(redis_url, tmp_path):
    """Invariant 12: what is of another version, or makes no sense, is published again by the writer."""
    bus = Bus(redis_url)

    async def asked_again():
        return not await bus.ledger_ready()

    with Simulator.start(symbols=3, seed=2, start="2025-06-10T12:00:00", speed=SPEED) as exchange:
        await bus.create_groups()
        day = from_ms(exchange.now()).date()
        await bus.set_ledger(day, {"BTC_USDT": "wonted=0-1439", "foo/BTC_USDT": "wanted=1-2"})
        await bus.set_ledger_ready(ready=True)
        await bus.set_universe(a_ranking("BTC_USDT", ranked_time=from_ms(exchange.now())))
        with a_collector(exchange, redis_url, tmp_path, BACKFILL_DAYS="0") as process:
            await wait_until(asked_again, 30)
            await bus.set_ledger(day, {"BTC_USDT": "received=5-99999"}, all_of_them=True)
            await bus.set_ledger_ready(ready=True)
            await wait_until(asked_again, 30)
            await bus.set_ledger(day, {"BTC_USDT": "wanted=0-1"}, all_of_them=True)
            await bus.set_ledger_ready(ready=True)
            await wait_until(lambda: _has_live_rows(Tape(bus)), 30)
            assert process.poll() is None
    await bus.close()


async def _has_acknowledged(bus):
    groups = await bus._redis.xinfo_groups("universe")
    return any(g["name"] == "collector" and g["pending"] == 0 and g["lag"] == 0 for g in groups)
