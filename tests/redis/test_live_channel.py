"""The live subscriptions over the real cryptofeed: one in trouble is helped, and its neighbours never notice.

Invariant 10: liveness is per (instrument, channel).
"""

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import replace

import pytest
from aiolimiter import AsyncLimiter
from prometheus_client import REGISTRY

from services.collector.stream import subscriptions as live
from services.collector.stream.liveness import Limits
from services.collector.stream.okx import CHANNELS, CONNECTS_PER_SECOND, Endpoint
from services.collector.stream.subscriptions import LiveChannel
from shared.exchanges.registry import tls_context
from tests.support.patience import patience
from tests.support.simulator import Simulator

pytestmark = [pytest.mark.invariant(10), pytest.mark.slow]

SPEED = 60
"""A minute of the exchange lasts a second."""
MINUTE_MS = 60_000
LIMITS = Limits(
    silence_seconds=2.5,
    connection_seconds=2.5,
    ack_seconds=1.0,
    renew_first_seconds=0.5,
    renew_cap_seconds=1.0,
    rejected_cap_seconds=1.0,
    batch_seconds=0.2,
    new_connection_seconds=1.0,
)
NEVER = replace(LIMITS, silence_seconds=600.0, connection_seconds=600.0, ack_seconds=600.0)
"""For tests in which a busy machine must not be taken for a silent exchange."""


class Tape:
    """What came, and what was set aside."""

    def __init__(self):
        self.closed = defaultdict(set)
        self.rows = defaultdict(int)
        self.bad = []

    def row(self, inst_id, row):
        self.rows[inst_id] += 1
        if isinstance(row, list) and row[8] == "1":
            self.closed[inst_id].add(int(row[0]))
        return True

    def set_aside(self, *what):
        self.bad.append(what)

    def lost(self, inst_ids):
        """Return the minutes between the first and the last of each instrument that did not come."""
        lost = {}
        for inst_id in inst_ids:
            opens = self.closed[inst_id]
            expected = set(range(min(opens), max(opens) + 1, MINUTE_MS))
            if expected != opens:
                lost[inst_id] = sorted(expected - opens)
        return lost


class Following:
    """A channel that runs, the set that it is given, and what came of it."""

    def __init__(self, channel, tape, wanted):
        self.channel = channel
        self.tape = tape
        self.wanted = wanted

    def follow(self, inst_ids):
        self.wanted[:] = inst_ids
        self.channel.reconcile()

    @property
    def links(self):
        return {number: shard.link for number, shard in self.channel.shards.items()}

    async def until(self, condition, seconds=20.0):
        try:
            async with asyncio.timeout(patience(seconds)):
                while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; {self.channel.details()}") from None

    async def until_all_have_rows(self, inst_ids=None, more=1):
        wanted = list(self.wanted if inst_ids is None else inst_ids)
        before = {inst_id: self.tape.rows[inst_id] for inst_id in wanted}
        await self.until(lambda: all(self.tape.rows[inst_id] >= before[inst_id] + more for inst_id in wanted))

    async def until_all_have_closed(self, inst_ids, more=2):
        before = {inst_id: len(self.tape.closed[inst_id]) for inst_id in inst_ids}
        await self.until(lambda: all(len(self.tape.closed[one]) >= before[one] + more for one in inst_ids))


@contextlib.asynccontextmanager
async def following(exchange, inst_ids, *, name="candles", limits=LIMITS, per_connection=200, **more):
    tape, wanted = Tape(), list(inst_ids)
    channel = LiveChannel(
        channel=replace(CHANNELS[name], limits=limits),
        endpoint=Endpoint(
            exchange.ws_url, lambda: tls_context(exchange.ca_file), AsyncLimiter(1, 1 / CONNECTS_PER_SECOND)
        ),
        wanted=lambda: wanted,
        on_row=tape.row,
        on_bad=tape.set_aside,
        args_per_connection=per_connection,
        **more,
    )
    task = asyncio.create_task(channel.run())
    try:
        yield Following(channel, tape, wanted)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def exchange():
    with Simulator.start(symbols=60, seed=4, start="2025-06-09T12:00:00", speed=SPEED) as simulator:
        yield simulator


def swaps(exchange):
    found = exchange.get("/api/v5/public/instruments", instType="SWAP")["data"]
    return sorted(row["instId"] for row in found if row["state"] == "live")


def opened(exchange, path="business"):
    return exchange.stats()["connections_total"].get(path, 0)


def renewals(channel, reason):
    labels = {"channel": channel, "reason": reason}
    return REGISTRY.get_sample_value("qlib_crypto_collector_renewals_total", labels) or 0.0


async def test_a_silent_instrument_is_found_and_renewed_and_its_neighbours_keep_their_connection(exchange):
    silent, *others = names = swaps(exchange)[:10]
    exchange.fault("deaf", path="business", instId=silent, count=2)
    async with following(exchange, names) as found:
        await found.until(lambda: found.channel.details()["silent"] == [silent])
        assert silent in found.channel.problem()
        assert "REST" in found.channel.problem()

        await found.until(lambda: found.tape.rows[silent] > 0)
        assert found.channel.details()["silent"] == []
        assert found.channel.problem() is None
        await found.until_all_have_closed([silent])

    assert opened(exchange) == 1
    assert found.tape.lost(others) == {}


@pytest.mark.parametrize("name", ["candles", "funding"])
async def test_a_rejected_subscription_is_renewed_until_it_is_accepted(exchange, name):
    rejected, *others = names = swaps(exchange)[:5]
    exchange.fault("reject", instId=rejected, count=3)
    async with following(exchange, names, name=name, limits=replace(LIMITS, silence_seconds=30.0)) as found:
        await found.until(lambda: found.channel.details()["rejected"] == {rejected: "60018"})
        assert f"rejects {rejected}" in found.channel.problem()
        assert found.channel.details()["subscribed"] == len(others)

        await found.until(lambda: found.tape.rows[rejected] > 0)
        assert found.channel.details()["rejected"] == {}
        assert found.channel.problem() is None

    assert opened(exchange, CHANNELS[name].path.removeprefix("/")) == 1


async def test_a_lost_ack_is_missed_and_asked_for_again(exchange):
    lost, *_ = names = swaps(exchange)[:5]
    exchange.fault("lost_ack", path="business", instId=lost, variant="silent")
    before = renewals("candles", "unacknowledged")
    async with following(exchange, names) as found:
        await found.until_all_have_rows([lost])

        assert renewals("candles", "unacknowledged") == before + 1
        assert found.channel.details()["unacknowledged"] == []
    assert opened(exchange) == 1


async def test_what_no_renewal_wakes_gets_one_new_connection_and_nobody_else_loses_a_row(exchange):
    silent, *others = names = swaps(exchange)[:12]
    exchange.fault("deaf", path="business", instId=silent, count=1000)
    limits = replace(NEVER, silence_seconds=4.0, renew_first_seconds=0.2, renew_cap_seconds=0.3, batch_seconds=0.1)
    async with following(exchange, names, limits=limits) as found:
        await found.until(lambda: opened(exchange) == 2)
        await found.until(lambda: found.channel.details()["silent"] == [silent])
        subscribed = exchange.stats()["subscriptions_now"]["candle1m"]
        await found.until_all_have_closed(others, more=8)

        assert found.channel.details()["silent"] == [silent]
        assert found.channel.details()["connected"] == 1

    assert opened(exchange) == 2
    assert subscribed <= 2 * len(names)
    assert found.tape.lost(others) == {}


async def test_of_a_suspended_instrument_nothing_is_asked_but_it_is_shown(exchange):
    suspended, *others = names = swaps(exchange)[:3]
    exchange.fault("deaf", path="business", instId=suspended, count=1000)
    async with following(exchange, names, is_expected_silent=lambda inst_id: inst_id == suspended) as found:
        await found.until(lambda: found.channel.details()["expected_silent"] == [suspended])
        await found.until_all_have_closed(others, more=4)

        details = found.channel.details()
        assert found.channel.problem() is None
        assert (details["silent"], details["connections"]) == ([], 1)
    assert [entry["kind"] for entry in exchange.faults()] == ["deaf"], "subscribed once"


async def test_of_three_connections_with_450_instruments_only_the_one_that_is_cut_reconnects():
    with Simulator.start(symbols=450, seed=4, start="2025-06-09T12:00:00", speed=10) as exchange:
        names = swaps(exchange)[:450]
        async with following(exchange, names, limits=NEVER) as found:
            await found.until_all_have_rows()
            before = found.links
            assert {number: len(shard.instruments) for number, shard in found.channel.shards.items()} == {
                0: 150,
                1: 150,
                2: 150,
            }
            assert opened(exchange) == 3

            exchange.fault("drop", path="business", count=1)
            await found.until(lambda: opened(exchange) == 4)
            await found.until(lambda: found.channel.details()["subscribed"] == 450)
            await found.until_all_have_closed(names)

            changed = [number for number, link in found.links.items() if link is not before[number]]
            assert len(changed) == 1
            kept = set(names) - found.channel.shards[changed[0]].instruments
            assert found.tape.lost(kept) == {}
            assert len(kept) == 300
        assert opened(exchange) == 4


async def test_those_who_stay_lose_nothing_when_the_set_changes_ten_times(exchange):
    names = swaps(exchange)
    stay, change = names[:20], names[20:]
    async with following(exchange, stay + change[:20], limits=NEVER, per_connection=25) as found:
        await found.until_all_have_rows()
        for number in range(10):
            found.follow(stay + change[number * 4 :][:20])
            await found.until_all_have_rows(more=2)
        await found.until_all_have_closed(stay)
        await found.until(lambda: exchange.stats()["subscriptions_now"]["candle1m"] == len(found.wanted))

    assert opened(exchange) == 2
    assert found.tape.lost(stay) == {}
    assert min(len(found.tape.closed[inst_id]) for inst_id in stay) > 4


async def test_an_emptied_connection_is_closed_and_a_needed_one_opened(exchange):
    names = swaps(exchange)[:8]
    async with following(exchange, names, limits=NEVER, per_connection=4) as found:
        await found.until_all_have_rows()
        last = found.channel.shards[0].instruments

        found.follow(sorted(last))
        await found.until(lambda: exchange.stats()["connections_now"]["business"] == 1)
        found.follow([])
        await found.until(lambda: exchange.stats()["connections_now"]["business"] == 0)
        assert found.channel.problem() is None

        found.follow(names)
        await found.until_all_have_rows()
    assert opened(exchange) == 4


async def test_at_the_notice_of_an_upgrade_the_next_connection_is_there_before_the_old_one_ends(exchange):
    names = swaps(exchange)[:20]
    async with following(exchange, names, limits=replace(NEVER, ack_seconds=10.0)) as found:
        await found.until_all_have_closed(names)
        exchange.fault("notice", path="business", delay=30, clock="wall")
        await found.until(lambda: exchange.stats()["connections_now"]["business"] == 2)
        await found.until(lambda: exchange.stats()["connections_now"]["business"] == 1)
        await found.until_all_have_closed(names, more=3)

    assert opened(exchange) == 2
    assert "notice" not in exchange.stats()["closes"], "left before it was closed"
    assert found.tape.lost(names) == {}


async def test_a_connection_that_only_answers_pings_is_replaced(exchange):
    names = swaps(exchange)[:10]
    async with following(exchange, names, limits=replace(LIMITS, silence_seconds=60.0)) as found:
        await found.until_all_have_rows()
        exchange.fault("silence", path="business", duration=4, clock="wall")
        await found.until(lambda: opened(exchange) == 2)
        await found.until_all_have_rows(more=2)


async def test_when_the_hours_operations_are_used_up_a_next_connection_takes_over(exchange, monkeypatch):
    monkeypatch.setattr(live, "OPERATIONS_PER_HOUR", 4)
    stay, extra, later = swaps(exchange)[:10], swaps(exchange)[10], swaps(exchange)[11]
    async with following(exchange, stay, limits=replace(NEVER, ack_seconds=10.0)) as found:
        await found.until_all_have_closed(stay)
        for wanted in ([*stay, extra], stay, [*stay, extra]):
            found.follow(wanted)
            await found.until(lambda: found.links[0].liveness.asked_for == set(found.wanted))
        assert opened(exchange) == 1

        found.follow([*stay, later])
        await found.until_all_have_rows([later])
        await found.until_all_have_closed(stay, more=3)

    assert opened(exchange) == 2
    assert found.tape.lost(stay) == {}


async def test_a_request_refused_as_one_too_many_is_sent_again_later(exchange, monkeypatch):
    monkeypatch.setattr(live, "OPERATIONS_PER_HOUR", 100_000)
    stay, extra, later = swaps(exchange)[:3], swaps(exchange)[10], swaps(exchange)[11]
    async with following(exchange, stay, limits=replace(NEVER, ack_seconds=10.0), hold_seconds=0.2) as found:
        await found.until_all_have_rows()
        for number in range(479):  # with the first one, all that the exchange takes in an hour
            found.follow([*stay, extra] if number % 2 == 0 else stay)
            await found.until(lambda: found.links[0].liveness.asked_for == set(found.wanted))
        before = found.links[0]

        found.follow([*stay, later])
        await found.until_all_have_rows([later])

        await found.until(lambda: found.links[0] is not before)
        assert before._refusals >= live._REFUSALS_BEFORE_NEW_CONNECTION
        await found.until_all_have_closed(stay)

    assert found.tape.lost(stay) == {}
