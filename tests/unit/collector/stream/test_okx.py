"""Frames through the real cryptofeed, without a socket: what a connection reports of them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.stream.connection import (
    Notice,
    Rejected,
    Row,
    Subscribed,
    TooManyRequests,
    Unreadable,
    WillClose,
)
from services.collector.stream.okx import OkxConnection, _OneConnection, open_streams
from shared.exchanges.okx.names import symbol_of
from shared.symbol import Symbol
from tests.support.builders import MIDNIGHT, a_candle_row, a_funding_row, minute

BTC, BTC_ID = "BTC_USDT", "BTC-USDT-SWAP"
ETH, ETH_ID = "ETH_USDT", "ETH-USDT-SWAP"
NOW = minute(10)


class Socket:
    """The exchange's end: it takes what is written, and answers nothing."""

    def __init__(self):
        self.sent = []

    async def write(self, text):
        self.sent.append(json.loads(text))


@pytest.fixture
def observed():
    return []


def a_connection(observe, name="candles"):
    return OkxConnection(open_streams("wss://127.0.0.1:9", ca_file=None, now=lambda: NOW)[name], observe)


async def subscribed(connection, *symbols):
    """Let a connection be open, with these asked for; return the other end."""
    socket = Socket()
    connection.opened(socket)
    await connection.send("subscribe", symbols)
    return socket


@pytest.fixture
async def feed(observed):
    connection = a_connection(observed.append)
    return _OneConnection(connection, connection.stream.endpoint.tls())


def a_frame(*rows, inst_id=BTC_ID, channel="candle1m"):
    return json.dumps({"arg": {"channel": channel, "instId": inst_id}, "data": rows})


def payloads(observed):
    return [observation.payload for observation in observed]


def a_payload(row, inst_id=BTC_ID):
    return {"instId": inst_id, "row": row}


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
async def test_a_frame_that_makes_no_sense_is_reported_and_the_next_one_is_taken(feed, observed, bad):
    """Invariant 12: it ends neither the handler nor with it the connection."""
    good = a_candle_row(minute(1))

    await feed.message_handler(bad, None, 0.0)
    await feed.message_handler(a_frame(good), None, 0.0)

    unreadable, row = observed
    assert isinstance(unreadable, Unreadable)
    assert unreadable.payload == bad[:4000]
    assert unreadable.reason.startswith("FrameError: ")
    assert isinstance(row, Row)
    assert row.payload == a_payload(good)


async def test_of_a_frame_with_several_rows_each_is_reported_with_what_it_means(feed, observed):
    rows = [a_candle_row(MIDNIGHT), a_candle_row(minute(1), confirm="0")]

    before = datetime.now(UTC)
    await feed.message_handler(a_frame(*rows), None, 0.0)

    assert payloads(observed) == [a_payload(row) for row in rows]
    assert [row.symbol for row in observed] == [BTC, BTC]
    closed, partial = (row.page for row in observed)
    (candle,) = closed.events
    assert (candle.symbol, candle.open_time, candle.source) == (BTC, MIDNIGHT, "ws")
    assert before <= candle.receive_time <= datetime.now(UTC)
    assert (partial.events, partial.partial) == ([], [minute(1)])
    assert all(row.is_sign_of_life for row in observed)


@pytest.mark.parametrize("row", [["x"] * 9, [], a_candle_row()[:4], None, "row", 5, {"ts": 1}])
async def test_a_row_is_reported_whatever_it_is_and_its_neighbours_are_too(feed, observed, row):
    good = a_candle_row(minute(1))

    await feed.message_handler(a_frame(row, good), None, 0.0)

    assert payloads(observed) == [a_payload(row), a_payload(good)]


@pytest.mark.parametrize("row", [["x"] * 9, [], None, "row", 5, {"ts": 1}, a_candle_row(minute(100))])
async def test_a_row_that_is_refused_is_no_sign_of_life(feed, observed, row):
    """As one from the future is."""
    await feed.message_handler(a_frame(row), None, 0.0)

    (found,) = observed
    assert len(found.page.refused) == 1
    assert not found.is_sign_of_life


async def test_a_value_that_cannot_be_held_does_not_cost_the_rows_beside_it(feed, observed):
    row, good = a_candle_row(MIDNIGHT), a_candle_row(minute(1))
    frame = a_frame(row, good).replace(json.dumps(row[8]), "1e999", 1)

    await feed.message_handler(frame, None, 0.0)

    odd, taken = payloads(observed)
    assert odd["row"][:8] == row[:8]
    assert not isinstance(odd["row"][8], str | int | float)
    assert taken == a_payload(good)


@pytest.mark.parametrize("inst_id", ["BTC-USDT-250627", "..-USDT-SWAP", "BTC_X-USDT-SWAP"])
async def test_a_row_that_names_no_instrument_of_ours_is_set_aside_with_its_name(feed, observed, inst_id):
    row = a_candle_row()

    await feed.message_handler(a_frame(row, row, inst_id=inst_id), None, 0.0)

    assert [type(one) for one in observed] == [Unreadable, Unreadable]
    assert payloads(observed) == [a_payload(row, inst_id)] * 2
    assert "instId: " in observed[0].reason


async def test_a_funding_row_brings_the_prediction_and_the_settlement(observed):
    connection = a_connection(observed.append, "funding")
    row = a_funding_row(BTC, at=NOW, funding_time=MIDNIGHT + timedelta(hours=8))
    stranger = row | {"instId": ETH_ID}

    connection.receive(a_frame(row, stranger, channel="funding-rate"))

    taken, refused = observed
    assert [type(event).__name__ for event in taken.page.events] == ["PredictedFundingRate", "FundingRate"]
    assert taken.payload == a_payload(row)
    assert (refused.page.refused[0].reason, refused.is_sign_of_life) == ("a row of another instrument", False)


async def test_a_pong_is_no_data_and_an_ack_is_no_row(feed, observed):
    ack = {"event": "subscribe", "arg": {"channel": "candle1m", "instId": BTC_ID}}
    await subscribed(feed._connection, BTC, ETH)
    observed.clear()

    await feed.message_handler("pong", None, 0.0)
    await feed.message_handler(json.dumps(ack), None, 0.0)
    await feed.message_handler(json.dumps(ack | {"event": "unsubscribe"}), None, 0.0)

    assert observed == [Subscribed([BTC])]


async def test_a_request_names_its_instruments_as_the_exchange_does(observed):
    connection = a_connection(observed.append)
    socket = await subscribed(connection, BTC, "BTC_USD_UM")
    await connection.send("unsubscribe", [BTC])

    names = [BTC_ID, "BTC-USD_UM-SWAP"]
    assert socket.sent == [
        {"op": "subscribe", "args": [{"channel": "candle1m", "instId": name} for name in names]},
        {"op": "unsubscribe", "args": [{"channel": "candle1m", "instId": BTC_ID}]},
    ]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"event": "error", "code": "60014", "msg": "too frequent"}, TooManyRequests("60014", "too frequent")),
        ({"event": "notice", "code": "64008", "msg": "an upgrade"}, WillClose("an upgrade")),
        ({"event": "error", "code": 60012, "msg": "Invalid request"}, Rejected([], "60012", "Invalid request")),
        ({"event": "notice", "code": "1", "msg": "hello"}, Notice('{"event":"notice","code":"1","msg":"hello"}')),
        (
            {"event": "subscribe", "arg": {"channel": "candle1m", "instId": "X-USDT-SWAP"}},
            Notice('{"event":"subscribe","arg":{"channel":"candle1m","instId":"X-USDT-SWAP"}}'),
        ),
    ],
)
async def test_a_control_frame_is_reported_without_its_spelling(observed, frame, expected):
    connection = a_connection(observed.append)
    await subscribed(connection, BTC)
    observed.clear()

    connection.receive(json.dumps(frame))

    assert observed == [expected]


async def test_a_rejection_names_its_instrument_only_inside_its_text(observed):
    connection = a_connection(observed.append)
    await subscribed(connection, BTC, ETH)
    observed.clear()
    text = (
        f"Wrong URL or channel:candle1m,instId:{BTC_ID} doesn't exist. Please use the correct URL, channel and "
        "parameters referring to API document."
    )

    connection.receive(json.dumps({"event": "error", "code": "60018", "msg": text, "connId": "a4d3ae55"}))

    assert observed == [Rejected([BTC], "60018", text)]


@given(
    names=st.sets(st.from_regex(r"[A-Z0-9ÄΩ币安]{1,5}-(USDT|USD|USD_UM)-SWAP", fullmatch=True), min_size=1, max_size=8),
    prefixes=st.lists(st.sampled_from(["1000", "X", "B", "币"]), max_size=3),
    text=st.sampled_from(["{}", "instId:{}", "channel:candle1m,instId:{} doesn't exist", "Invalid ({}).", "'{}' ?"]),
    data=st.data(),
)
async def test_whatever_the_wording_a_rejection_concerns_the_one_it_names(names, prefixes, text, data):
    names = sorted(names | {prefix + name for prefix in prefixes for name in names})
    at_fault = data.draw(st.sampled_from(names))
    observed = []
    connection = a_connection(observed.append)
    await subscribed(connection, *[symbol_of(name) for name in names])

    connection.receive(json.dumps({"event": "error", "code": "60018", "msg": text.format(at_fault)}))

    assert observed[-1].symbols == [symbol_of(at_fault)]


async def test_a_connection_that_cannot_be_written_to_ends(observed):
    class Broken:
        async def write(self, _):
            raise OSError("gone")

    connection = a_connection(observed.append)
    connection.opened(Broken())
    await connection.send("subscribe", [Symbol(BTC)])

    assert not connection.is_open
