"""The subscriptions on an exchange unlike OKX: nothing of the collector's stream but its own file knows an exchange.

A real WebSocket server, whose answers are per request, all or nothing, and name no instrument.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.collector.stream.liveness import Patience
from services.collector.stream.subscriptions import LiveChannel
from tests.support.other_exchange.server import OtherExchange
from tests.support.other_exchange.stream import name_of, open_streams
from tests.support.patience import patience as stretched

pytestmark = pytest.mark.invariant(10)

NAMES = [f"c{number:02}/usdt" for number in range(12)]
SYMBOLS = [f"C{number:02}_USDT.OTHER" for number in range(12)]
NEVER = 600.0
"""A busy machine must not be taken for a silent exchange."""
PATIENCE = Patience(
    silence_seconds=NEVER,
    connection_seconds=NEVER,
    ack_seconds=NEVER,
    renew_first_seconds=0.05,
    rejected_cap_seconds=0.1,
    batch_seconds=0.0,
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Following:
    """A channel that runs, and what came of it."""

    def __init__(self, url, symbols, stream_changes):
        self.rows, self.unreadable = defaultdict(list), []
        self.symbols = symbols
        stream = open_streams(url, ca_file=None, now=lambda: NOW)["candles"]
        self.channel = LiveChannel(
            stream=replace(stream, patience=PATIENCE, **stream_changes),
            wanted=lambda: self.symbols,
            on_row=lambda row: self.rows[row.symbol].append(row),
            on_unreadable=lambda *what: self.unreadable.append(what),
            symbols_per_connection=100,
            hold_seconds=0.05,
        )

    async def until(self, condition):
        try:
            async with asyncio.timeout(stretched(20)):
                while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(self.channel.details()) from None

    async def until_subscribed(self, count):
        await self.until(lambda: self.channel.details()["subscribed"] == count)


@contextlib.asynccontextmanager
async def following(exchange, symbols, **stream_changes):
    found = Following(exchange.url, symbols, stream_changes)
    task = asyncio.create_task(found.channel.run())
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_answer_to_a_request_acknowledges_all_of_it_and_rows_come_as_symbols():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS) as found:
        await found.until_subscribed(12)
        await exchange.push(NAMES[3], open=0, sent=30)
        await exchange.push(NAMES[3], open=0, sent=60)
        await found.until(lambda: len(found.rows[SYMBOLS[3]]) == 2)

        partial, closed = (row.page for row in found.rows[SYMBOLS[3]])
        assert (len(partial.partial), len(partial.events)) == (1, 0)
        assert [(event.symbol, event.close) for event in closed.events] == [(SYMBOLS[3], 2.0)]
        assert found.channel.data_age() is not None
        assert found.channel.problem() is None
        assert [len(request["topics"]) for request in exchange.requests] == [8, 4], "as many as the stream declares"


async def test_a_row_that_was_refused_is_handed_on_and_is_no_sign_of_life():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS[:1]) as found:
        await found.until_subscribed(1)
        await exchange.push(NAMES[0], open=NOW.timestamp() + 3600, sent=NOW.timestamp() + 7200)
        await found.until(lambda: found.rows[SYMBOLS[0]])

        assert found.rows[SYMBOLS[0]][0].page.refused[0].reason == "from the future"
        assert found.channel.data_age() is None


async def test_of_a_request_that_is_rejected_as_a_whole_the_one_at_fault_is_isolated_and_asked_for_on():
    unlisted = NAMES[5]
    async with OtherExchange.open(*set(NAMES) - {unlisted}) as exchange, following(exchange, SYMBOLS) as found:
        await found.until(lambda: found.channel.details()["rejected"] == {SYMBOLS[5]: "bad request"})
        await found.until_subscribed(11)
        assert found.channel.problem().startswith(f"candles: the exchange rejects {SYMBOLS[5]}, asking again;")

        exchange.listed.add(unlisted)
        await found.until_subscribed(12)
        assert found.channel.details()["rejected"] == {}
    assert exchange.opened == 1


async def test_a_connection_that_was_cut_is_opened_again_with_everything():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS) as found:
        await found.until_subscribed(12)
        await exchange.cut()
        await found.until(lambda: exchange.opened == 2)
        await found.until_subscribed(12)
        await exchange.push(NAMES[0])
        await found.until(lambda: found.rows[SYMBOLS[0]])


async def test_a_connection_that_will_close_is_left_before_it_does():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS) as found:
        await found.until_subscribed(12)
        await exchange.say('{"bye": "maintenance"}')
        await found.until(lambda: len(exchange.topics) == 2)
        assert found.channel.problem() is None
        await found.until(lambda: len(exchange.topics) == 1)
        await found.until_subscribed(12)
    assert exchange.opened == 2


async def test_a_request_refused_as_one_too_many_is_sent_again_later():
    async with OtherExchange.open(*NAMES) as exchange:
        exchange.busy = True
        async with following(exchange, SYMBOLS[:3]) as found:
            await found.until(lambda: len(exchange.requests) >= 2)
            assert found.channel.details()["subscribed"] == 0
            exchange.busy = False
            await found.until_subscribed(3)


async def test_where_the_budget_of_a_connection_is_used_up_the_next_one_takes_over():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS[:2], requests_per_hour=2) as found:
        await found.until_subscribed(2)
        for symbols in (SYMBOLS[:3], SYMBOLS[:4]):
            found.symbols = symbols
            found.channel.reconcile()
            await found.until_subscribed(len(symbols))
    assert exchange.opened == 2
    assert found.channel.details()["wanted"] == 4


@pytest.mark.invariant(12)
async def test_what_makes_no_sense_is_set_aside_and_the_connection_lives_on():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS[:1]) as found:
        await found.until_subscribed(1)
        for text in ("no json", "5", '{"topic": "?"}', '{"no": 77, "status": "ok"}'):
            await exchange.say(text)
        await exchange.push(NAMES[0])
        await found.until(lambda: found.rows[SYMBOLS[0]])

        assert [(origin, payload) for origin, payload, _ in found.unreadable] == [
            ("candles", "no json"),
            ("candles", "5"),
            ("candles", '{"topic": "?"}'),
            ("candles", '{"no": 77, "status": "ok"}'),
        ]
    assert exchange.opened == 1


async def test_one_that_left_is_unsubscribed_and_the_others_are_not_touched():
    async with OtherExchange.open(*NAMES) as exchange, following(exchange, SYMBOLS) as found:
        await found.until_subscribed(12)
        found.symbols = SYMBOLS[1:]
        found.channel.reconcile()
        await found.until(lambda: len(exchange.requests) == 3)

        assert exchange.requests[-1]["do"] == "unsubscribe"
        assert exchange.requests[-1]["topics"] == [f"{name_of(SYMBOLS[0])}@1m"]


def test_the_subscriptions_load_no_exchange():
    """Nothing that they import is of an exchange, or of cryptofeed."""
    code = (
        "import services.collector.stream.subscriptions, sys;"
        "print([name for name in sys.modules if 'okx' in name or 'cryptofeed' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"
