"""The live subscriptions over the real cryptofeed: one in trouble is helped, and its neighbours never notice.

Invariant 10: liveness is per (instrument, channel).
"""

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from services.collector.stream import link as links
from services.collector.stream.liveness import Patience
from services.collector.stream.okx import open_streams
from services.collector.stream.subscriptions import LiveChannel
from shared.datasets.candle import Candle
from shared.exchanges.okx.names import inst_id_of, symbol_of
from shared.grid import to_ms
from tests.support.builders import at
from tests.support.patience import patience as stretched
from tests.support.simulator import Simulator

pytestmark = pytest.mark.invariant(10)

SPEED = 60
"""A minute of the exchange lasts a second."""
MINUTE_MS = 60_000
PATIENCE = Patience(
    silence_seconds=2.5,
    connection_seconds=2.5,
    ack_seconds=1.0,
    renew_first_seconds=0.5,
    renew_cap_seconds=1.0,
    rejected_cap_seconds=1.0,
    batch_seconds=0.2,
    new_connection_seconds=1.0,
)
NEVER = replace(PATIENCE, silence_seconds=600.0, connection_seconds=600.0, ack_seconds=600.0)
"""For tests in which a busy machine must not be taken for a silent exchange."""
FAR_AHEAD = at("2030-01-01 00:00")
"""The simulator's time runs at its own speed: here no row is from the future."""


class Tape:
    """What came, and what was set aside."""

    def __init__(self):
        self.closed = defaultdict(set)
        self.rows = defaultdict(int)
        self.bad = []

    def row(self, row):
        self.rows[row.symbol] += 1
        for event in row.page.events:
            if isinstance(event, Candle):
                self.closed[row.symbol].add(to_ms(event.open_time))

    def set_aside(self, *what):
        self.bad.append(what)

    def lost(self, symbols):
        """Return the minutes between the first and the last of each instrument that did not come."""
        lost = {}
        for symbol in symbols:
            opens = self.closed[symbol]
            expected = set(range(min(opens), max(opens) + 1, MINUTE_MS))
            if expected != opens:
                lost[symbol] = sorted(expected - opens)
        return lost


class Following:
    """A channel that runs, the set that it is given, and what came of it."""

    def __init__(self, channel, tape, wanted):
        self.channel = channel
        self.tape = tape
        self.wanted = wanted

    def follow(self, symbols):
        self.wanted[:] = symbols
        self.channel.reconcile()

    @property
    def links(self):
        return {number: shard.link for number, shard in self.channel.shards.items()}

    async def until(self, condition, seconds=20.0):
        try:
            async with asyncio.timeout(stretched(seconds)):
                while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; {self.channel.details()}") from None

    async def until_all_have_rows(self, symbols=None, more=1):
        wanted = list(self.wanted if symbols is None else symbols)
        before = {symbol: self.tape.rows[symbol] for symbol in wanted}
        await self.until(lambda: all(self.tape.rows[symbol] >= before[symbol] + more for symbol in wanted))

    async def until_all_have_closed(self, symbols, more=2):
        before = {symbol: len(self.tape.closed[symbol]) for symbol in symbols}
        await self.until(lambda: all(len(self.tape.closed[one]) >= before[one] + more for one in symbols))


@contextlib.asynccontextmanager
async def following(exchange, symbols, *, name="candles", patience=PATIENCE, per_connection=200, per_hour=None, **more):
    tape, wanted = Tape(), list(symbols)
    stream = open_streams(exchange.ws_url, ca_file=exchange.ca_file, now=lambda: FAR_AHEAD)[name]
    channel = LiveChannel(
        stream=replace(stream, patience=patience, requests_per_hour=per_hour or stream.requests_per_hour),
        wanted=lambda: wanted,
        on_row=tape.row,
        on_unreadable=tape.set_aside,
        symbols_per_connection=per_connection,
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
    return sorted(symbol_of(row["instId"]) for row in found if row["state"] == "live")


def opened(exchange, path="business"):
    return exchange.stats()["connections_total"].get(path, 0)


def renewals(channel, reason):
    labels = {"channel": channel, "reason": reason}
    return REGISTRY.get_sample_value("qlib_crypto_collector_renewals_total", labels) or 0.0


async def test_a_silent_instrument_is_found_and_renewed_and_its_neighbours_keep_their_connection(exchange):
    silent, *others = names = swaps(exchange)[:10]
    exchange.fault("deaf", path="business", instId=inst_id_of(silent), count=2)
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


@pytest.mark.parametrize(("name", "path"), [("candles", "business"), ("funding", "public")])
async def test_a_rejected_subscription_is_renewed_until_it_is_accepted(exchange, name, path):
    rejected, *others = names = swaps(exchange)[:5]
    exchange.fault("reject", instId=inst_id_of(rejected), count=3)
    async with following(exchange, names, name=name, patience=replace(PATIENCE, silence_seconds=30.0)) as found:
        await found.until(lambda: found.channel.details()["rejected"] == {rejected: "60018"})
        assert f"rejects {rejected}" in found.channel.problem()
        assert found.channel.details()["subscribed"] == len(others)

        await found.until(lambda: found.tape.rows[rejected] > 0)
        assert found.channel.details()["rejected"] == {}
        assert found.channel.problem() is None

    assert opened(exchange, path) == 1


async def test_a_lost_ack_is_missed_and_asked_for_again(exchange):
    lost, *_ = names = swaps(exchange)[:5]
    exchange.fault("lost_ack", path="business", instId=inst_id_of(lost), variant="silent")
    before = renewals("candles", "unacknowledged")
    async with following(exchange, names) as found:
        await found.until_all_have_rows([lost])

        assert renewals("candles", "unacknowledged") == before + 1
        assert found.channel.details()["unacknowledged"] == []
    assert opened(exchange) == 1


@pytest.mark.proof
async def test_what_no_renewal_wakes_gets_one_new_connection_and_nobody_else_loses_a_row(exchange):
    silent, *others = names = swaps(exchange)[:12]
    exchange.fault("deaf", path="business", instId=inst_id_of(silent), count=1000)
    slow = replace(NEVER, silence_seconds=4.0, renew_first_seconds=0.2, renew_cap_seconds=0.3, batch_seconds=0.1)
    async with following(exchange, names, patience=slow) as found:
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
    exchange.fault("deaf", path="business", instId=inst_id_of(suspended), count=1000)
    async with following(exchange, names, is_expected_silent=lambda symbol: symbol == suspended) as found:
        await found.until(lambda: found.channel.details()["expected_silent"] == [suspended])
        await found.until_all_have_closed(others, more=4)

        details = found.channel.details()
        assert found.channel.problem() is None
        assert (details["silent"], details["connections"]) == ([], 1)
    assert [entry["kind"] for entry in exchange.faults()] == ["deaf"], "subscribed once"


@pytest.mark.proof
async def test_of_three_connections_with_450_instruments_only_the_one_that_is_cut_reconnects():
    with Simulator.start(symbols=450, seed=4, start="2025-06-09T12:00:00", speed=10) as exchange:
        names = swaps(exchange)[:450]
        async with following(exchange, names, patience=NEVER) as found:
            await found.until_all_have_rows()
            before = found.links
            assert {number: len(shard.symbols) for number, shard in found.channel.shards.items()} == {
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
            kept = set(names) - found.channel.shards[changed[0]].symbols
            assert found.tape.lost(kept) == {}
            assert len(kept) == 300
        assert opened(exchange) == 4


@pytest.mark.proof
async def test_those_who_stay_lose_nothing_when_the_set_changes_ten_times(exchange):
    names = swaps(exchange)
    stay, change = names[:20], names[20:]
    async with following(exchange, stay + change[:20], patience=NEVER, per_connection=25) as found:
        await found.until_all_have_rows()
        for number in range(10):
            found.follow(stay + change[number * 4 :][:20])
            await found.until_all_have_rows(more=2)
        await found.until_all_have_closed(stay)
        await found.until(lambda: exchange.stats()["subscriptions_now"]["candle1m"] == len(found.wanted))

    assert opened(exchange) == 2
    assert found.tape.lost(stay) == {}
    assert min(len(found.tape.closed[symbol]) for symbol in stay) > 4


async def test_an_emptied_connection_is_closed_and_a_needed_one_opened(exchange):
    names = swaps(exchange)[:8]
    async with following(exchange, names, patience=NEVER, per_connection=4) as found:
        await found.until_all_have_rows()
        last = found.channel.shards[0].symbols

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
    async with following(exchange, names, patience=replace(NEVER, ack_seconds=10.0)) as found:
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
    async with following(exchange, names, patience=replace(PATIENCE, silence_seconds=60.0)) as found:
        await found.until_all_have_rows()
        exchange.fault("silence", path="business", duration=4, clock="wall")
        await found.until(lambda: opened(exchange) == 2)
        await found.until_all_have_rows(more=2)


async def test_when_the_hours_operations_are_used_up_a_next_connection_takes_over(exchange):
    stay, extra, later = swaps(exchange)[:10], swaps(exchange)[10], swaps(exchange)[11]
    async with following(exchange, stay, patience=replace(NEVER, ack_seconds=10.0), per_hour=4) as found:
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


async def test_a_request_refused_as_one_too_many_is_sent_again_later(exchange):
    stay, extra, later = swaps(exchange)[:3], swaps(exchange)[10], swaps(exchange)[11]
    async with following(
        exchange, stay, patience=replace(NEVER, ack_seconds=10.0), per_hour=100_000, hold_seconds=0.2
    ) as found:
        await found.until_all_have_rows()
        for number in range(479):  # with the first one, all that the exchange takes in an hour
            found.follow([*stay, extra] if number % 2 == 0 else stay)
            await found.until(lambda: found.links[0].liveness.asked_for == set(found.wanted))
        before = found.links[0]

        found.follow([*stay, later])
        await found.until_all_have_rows([later])

        await found.until(lambda: found.links[0] is not before)
        assert before._refusals >= links._REFUSALS_BEFORE_NEW_CONNECTION
        await found.until_all_have_closed(stay)

    assert found.tape.lost(stay) == {}
