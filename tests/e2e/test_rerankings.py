"""Ten rankings that turn a third of 300 symbols over: who stays, and who returns in time, loses nothing."""

import asyncio
import random
from datetime import timedelta

import numpy as np
import pytest

from cli.stack import Stack
from proofs.judges.stored import judge_candles, read_stored, read_truth
from proofs.judges.tally import Role
from shared.bus.bus import Bus
from shared.grid import MINUTE, floor_minute, to_ms
from tests.support.builders import a_ranking, wait_for
from tests.support.patience import patience
from tests.support.running import Running

pytestmark = [pytest.mark.invariant(7), pytest.mark.invariant(10), pytest.mark.proof]

SYMBOLS, MEMBERS, TURNOVER, RANKINGS = 400, 300, 100, 10
BETWEEN = 5 * MINUTE
GRACE = timedelta(minutes=12)
MARKET = ["--symbols", str(SYMBOLS), "--seed", "3", "--start", "2026-03-01T10:00:00", "--speed", "60"]
SETTINGS = {
    "BACKFILL_DAYS": "0",
    "FLUSH_SECONDS": "2",
    "COMPACT_EVERY": "0.1",
    "LEAVER_GRACE_HOURS": str(GRACE / timedelta(hours=1)),
}


def turned_over(members, everybody, dice):
    """Return the next members: some leave at random, and as many others come or come back."""
    leaving = set(dice.sample(sorted(members), TURNOVER))
    return (members - leaving) | set(dice.sample(sorted(everybody - members), TURNOVER))


async def rank(bus, members, before, at):
    ranking = a_ranking(*sorted(members), ranked_time=at, added=members - before, removed=before - members)
    await bus.set_universe(ranking)


async def until_subscribed(running, members):
    async with asyncio.timeout(patience(60)):
        while running.stack.ask_simulator("/sim/stats")["subscriptions_now"].get("candle1m", 0) < len(members):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def windows_of(history, end):
    """Return when each symbol is wanted: while a member, and for the grace time after it left, gaps joined."""
    found = {}
    for (at, members), (until, _) in zip(history, [*history[1:], (end, None)], strict=True):
        for symbol in members:
            spans = found.setdefault(symbol, [])
            last = min(end, until + GRACE) if until < end else end
            if spans and at <= spans[-1][1]:
                spans[-1] = spans[-1][0], last
            else:
                spans.append((at, last))
    return found


async def test_ten_rankings_that_change_a_third_of_300_lose_no_candle(tmp_path):
    """Invariants 7 and 10."""
    dice = random.Random(4)
    with Stack(tmp_path / "run", SETTINGS, simulator=MARKET) as stack:
        running, bus = Running(stack), Bus(stack.redis_url)
        wait_for(lambda: running.redis.exists("universe:current"), 30)
        stack.stop_program("ranker")
        everybody = {place.symbol for place in (await bus.last_ranking()).ranks if place.symbol.endswith("_USDT")}
        members = set(dice.sample(sorted(everybody), MEMBERS))
        await rank(bus, members, set(), running.now())
        history = [(running.now(), members)]
        await until_subscribed(running, members)
        for _ in range(RANKINGS):
            due = history[-1][0] + BETWEEN
            wait_for(lambda due=due: running.now() >= due, 30)
            before, members = members, turned_over(members, everybody, dice)
            at = running.now()
            await rank(bus, members, before, at)
            history.append((at, members))
        due = history[-1][0] + BETWEEN
        wait_for(lambda: running.now() >= due, 30)
        end = floor_minute(running.now())
        lost = {}

        def whole():
            lost.clear()
            for symbol, spans in windows_of(history, end).items():
                lost.update(judged(running, symbol, spans))
            return not lost

        async with asyncio.timeout(patience(60)):
            while not await asyncio.to_thread(whole):  # noqa: ASYNC110 - on disk
                await asyncio.sleep(1)
        await bus.close()
    stayed = set.intersection(*(set(members) for _, members in history))
    returned = [
        symbol for symbol, spans in windows_of(history, end).items() if len(spans) == 1 and symbol not in stayed
    ]
    assert stayed
    assert returned
    assert lost == {}


def judged(running, symbol, spans):
    """Return the minutes of a symbol that are lost, doubled or wrong."""
    truth = read_truth(running.stack.ask_simulator, symbol, to_ms(spans[0][0]), to_ms(spans[-1][1]))
    stored, _ = read_stored(running.stack.data_dir, symbol)
    inside = np.zeros(len(truth.opens), bool)
    for begin, end in spans:
        first, last = to_ms(floor_minute(begin)), to_ms(floor_minute(end))
        inside |= (truth.opens >= first) & (truth.opens < last)
    wrong = judge_candles(symbol, stored, truth, inside).counts(Role.FAULT)
    return {symbol: found} if (found := {kind: n for kind, n in wrong.items() if n and kind != "invented"}) else {}
