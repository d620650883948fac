"""Frames through the real cryptofeed, without a socket."""

import json
import ssl

import pytest
from aiolimiter import AsyncLimiter

from services.collector.stream.okx import CHANNELS, Connection, Endpoint, _OneConnection
from tests.support.builders import MIDNIGHT, a_candle_row, minute

BTC = "BTC-USDT-SWAP"


class Listening:
    """Notes what a connection tells."""

    def __init__(self):
        self.rows, self.controls, self.bad = [], [], []

    def on_row(self, inst_id, row):
        self.rows.append((inst_id, row))

    def on_control(self, message):
        self.controls.append(message)

    def on_bad_frame(self, frame, error):
        self.bad.append((frame, error))


@pytest.fixture
def listening():
    return Listening()


@pytest.fixture
async def feed(listening):
    endpoint = Endpoint("wss://127.0.0.1:9", ssl.create_default_context, AsyncLimiter(1))
    return _OneConnection(Connection(CHANNELS["candles"], endpoint, listening), endpoint.tls())


def a_frame(*rows, inst_id=BTC):
    return json.dumps({"arg": {"channel": "candle1m", "instId": inst_id}, "data": rows})


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "no json",
        a_frame(a_candle_row())[:-20],
        '{"arg": {}, "data": []}',
        '{"event": 5, "arg": "?", "data": [[]]',
        '{"event": 5, "arg": "?", "data": [[]]}',
        '{"arg": {"channel": "candle1m", "instId": 5}, "data": [[]]}',
        '{"arg": {"channel": "funding-rate", "instId": "BTC-USDT-SWAP"}, "data": [{}]}',
        '{"arg": {"channel": "candle1m", "instId": "BTC-USDT-SWAP"}, "data": {}}',
        '{"arg": {"channel": "candle1m", "instId": "BTC-USDT-SWAP"}, "data": null}',
        '{"arg": {"channel": "candle1m", "instId": "BTC-USDT-SWAP"}}',
        "[" * 100_000,
        "5",
        "null",
    ],
)
async def test_a_frame_that_makes_no_sense_is_told_and_the_next_one_is_taken(feed, listening, bad):
    """Invariant 12: it ends neither the handler nor with it the connection."""
    good = a_candle_row(minute(1))

    await feed.message_handler(bad, None, 0.0)
    await feed.message_handler(a_frame(good), None, 0.0)

    ((frame, error),) = listening.bad
    assert frame == bad
    assert isinstance(error, Exception)
    assert listening.rows == [(BTC, good)]


async def test_of_a_frame_with_several_rows_each_is_handed_over_as_the_exchange_spelled_it(feed, listening):
    rows = [a_candle_row(MIDNIGHT), a_candle_row(minute(1), confirm="0")]

    await feed.message_handler(a_frame(*rows), None, 0.0)

    assert listening.rows == [(BTC, row) for row in rows]
    assert listening.bad == []


@pytest.mark.parametrize("row", [["x"] * 9, [], a_candle_row()[:4], None, "row", 5, {"ts": 1}])
async def test_a_row_is_handed_over_whatever_it_is_and_its_neighbours_are_too(feed, listening, row):
    good = a_candle_row(minute(1))

    await feed.message_handler(a_frame(row, good), None, 0.0)

    assert listening.rows == [(BTC, row), (BTC, good)]


async def test_a_value_that_cannot_be_held_does_not_cost_the_rows_beside_it(feed, listening):
    row, good = a_candle_row(MIDNIGHT), a_candle_row(minute(1))
    frame = a_frame(row, good).replace(json.dumps(row[8]), "1e999", 1)

    await feed.message_handler(frame, None, 0.0)

    (_, odd), taken = listening.rows
    assert odd[:8] == row[:8]
    assert not isinstance(odd[8], str | int | float)
    assert taken == (BTC, good)
    assert listening.bad == []


async def test_a_pong_is_no_data_and_an_answer_is_no_row(feed, listening):
    answer = {"event": "subscribe", "arg": {"channel": "candle1m", "instId": BTC}}

    await feed.message_handler("pong", None, 0.0)
    await feed.message_handler(json.dumps(answer), None, 0.0)

    assert (listening.rows, listening.controls, listening.bad) == ([], [answer], [])
