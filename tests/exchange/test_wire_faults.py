"""Each kind of fault as a client of the real process meets it."""

import asyncio
import json
import math
import time
import urllib.request
from itertools import pairwise

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.exchange.wire import args, connected, events, frames, rows, send, until
from tests.support.patience import Deadline
from tests.support.simulator import Simulator

MINUTE = 60_000
BTC, ETH, SOL = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP"
CANDLES = "/api/v5/market/candles"
FUNDING = "/api/v5/public/funding-rate"


@pytest.fixture(scope="module")
def sim():
    """Ten swaps; a simulated minute takes a second."""
    with Simulator.start(symbols=10, seed=5, start="2026-01-10T07:50:00", speed=60, extra=["--no-limits"]) as running:
        yield running


async def arm(sim, kind, **fields):
    armed = await asyncio.to_thread(sim.fault, kind, **fields)
    assert armed.get("armed") == 1, armed


def is_confirm(frame, open_ms=None):
    row = frame["data"][0] if frame.get("arg", {}).get("channel") == "candle1m" and "data" in frame else [""] * 9
    return row[8] == "1" and open_ms in (None, int(row[0]))


# Connections


async def attempt(sim, path):
    """Connect once, over the limit of three connects a second if need be; returns what came of it."""
    while True:
        try:
            socket = await websockets.connect(f"{sim.ws_url}/{path}", ssl=sim.ssl_context, ping_interval=None)
        except InvalidStatus as error:
            if error.response.status_code != 429:
                return error
            await asyncio.sleep(0.05)
        except (OSError, EOFError, websockets.exceptions.InvalidMessage) as error:
            return error
        else:
            await socket.close()
            return None


async def test_new_connections_are_refused_with_503_as_often_as_ordered(sim):
    await arm(sim, "refuse", count=2, path="business")

    outcomes = [await attempt(sim, "business") for _ in range(3)]

    assert [outcome.response.status_code for outcome in outcomes[:2]] == [503, 503]
    assert outcomes[2] is None


async def test_new_connections_are_reset_as_long_as_ordered(sim):
    await arm(sim, "refuse", duration=1, clock="wall", variant="tcp")

    refused = await attempt(sim, "public")
    await asyncio.sleep(1.1)

    assert refused is not None
    assert not isinstance(refused, InvalidStatus)
    assert await attempt(sim, "public") is None


async def test_a_notice_comes_sixty_simulated_seconds_before_a_clean_close_on_public(sim):
    async with connected(sim, "public") as public, connected(sim, "business") as business:
        await arm(sim, "notice")
        notice = json.loads(await asyncio.wait_for(public.recv(), 5))
        noticed = sim.now()
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(public.recv(), 5)
        ended = sim.now()
        await business.send("ping")
        assert await business.recv() == "pong"

    assert (notice["event"], notice["code"], len(notice["connId"])) == ("notice", "64008", 8)
    assert closed.value.rcvd.code == 1000
    assert ended - noticed >= 50_000


async def test_what_a_slow_socket_sends_leaves_late_and_in_order(sim):
    async with connected(sim, "business") as socket:
        await arm(sim, "slow_socket", duration=2, delay=1, clock="wall", path="business")
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await send(socket, "subscribe", args("candle1m", BTC), id="s1")
        first = json.loads(await socket.recv())
        waited = time.monotonic() - began
        received = await frames(socket, 4)

    assert (first["event"], waited >= 0.99) == ("subscribe", True)
    times = [int(row[0]) for row in rows(received) if row[8] == "1"]
    assert times == list(range(times[0], times[-1] + 1, MINUTE))
    assert len(times) >= 2


# Pushes


async def test_a_closed_row_comes_after_forming_rows_of_the_next_minute(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await arm(sim, "out_of_order", instId=BTC, delay=45)
        received = rows(await until(socket, is_confirm))

    confirm = received[-1]
    following = [row for row in received if int(row[0]) == int(confirm[0]) + MINUTE]
    assert len(following) >= 2
    assert {row[8] for row in following} == {"0"}


async def test_two_closed_minutes_come_in_the_wrong_order(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await arm(sim, "out_of_order", variant="swapped", instId=BTC)
        times = [int(row[0]) for row in rows(await frames(socket, 5)) if row[8] == "1"]

    backwards = [(sooner, later) for sooner, later in pairwise(times) if later < sooner]
    assert len(backwards) == 1
    assert sorted(times) == list(range(min(times), max(times) + 1, MINUTE))
    assert backwards[0][0] - backwards[0][1] == MINUTE


@pytest.mark.parametrize(("variant", "confirm"), [("confirm", "1"), ("forming", "0")])
async def test_an_old_row_is_pushed_again(sim, variant, confirm):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", ETH))
        await arm(sim, "old_row", variant=variant, instId=ETH, delay=130)
        received = rows(await frames(socket, 4.5))

    again = [index for index, row in enumerate(received) if row in received[:index]]
    assert len(again) == 1
    old = received[again[0]]
    assert old[8] == confirm
    assert max(int(row[0]) for row in received[: again[0]]) >= int(old[0]) + 2 * MINUTE


@pytest.mark.parametrize("variant", ["high_low", "negative", "off_grid", "future"])
async def test_an_impossible_candle_comes_in_front_of_the_right_one(sim, variant):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await frames(socket, 0.2)
        now_ms = sim.now()
        await arm(sim, "impossible", variant=variant, instId=BTC)
        received = rows(await frames(socket, 2.5))

    wrong = [index for index, row in enumerate(received) if is_impossible(row, now_ms)]
    assert len(wrong) == 1
    bad, right = received[wrong[0] : wrong[0] + 2]
    assert bad[4] == right[4]
    assert bad != right
    confirmed = [row for row in received if row[8] == "1" and row is not bad]
    assert confirmed == sim.truth_candles(BTC, int(confirmed[0][0]), int(confirmed[-1][0]) + 1)


def is_impossible(row, now_ms):
    figures = [float(value) for value in row[1:8]]
    return (
        figures[1] < figures[2] or min(figures) < 0 or int(row[0]) % MINUTE != 0 or int(row[0]) > now_ms + 30 * MINUTE
    )


@pytest.mark.parametrize("variant", ["high_low", "negative", "off_grid", "future"])
def test_an_impossible_candle_is_in_a_page_in_front_of_the_right_one(sim, variant):
    after = sim.now() // MINUTE * MINUTE
    sim.fault("impossible", variant=variant, where="rest", instId=BTC)

    odd, right = (sim.get(CANDLES, instId=BTC, after=after, limit=20)["data"] for _ in range(2))

    wrong = [row for row in odd if is_impossible(row, after)]
    assert len(wrong) == 1
    assert [row for row in odd if row not in wrong] == right


async def test_there_are_more_keys_and_columns_than_documented(sim):
    async with connected(sim, "business") as socket, connected(sim, "public") as public:
        await arm(sim, "unknown_fields", path="business")
        await arm(sim, "unknown_fields", path="public")
        await send(socket, "subscribe", args("candle1m", BTC))
        await send(public, "subscribe", args("funding-rate", BTC))
        (_, candle), (_, funding) = [
            [json.loads(await asyncio.wait_for(one.recv(), 5)) for _ in range(2)] for one in (socket, public)
        ]
    sim.fault("unknown_fields", where="rest")
    page = sim.get(CANDLES, instId=BTC, limit=2)["data"]

    assert len(candle["data"][0]) == 10
    assert funding["data"][0].keys() > {"fundingRate", "newField", "newList"}
    assert [len(row) for row in page] == [10, 10]


async def test_a_funding_row_is_nearly_empty(sim):
    async with connected(sim, "public") as public:
        await arm(sim, "empty_fields")
        await send(public, "subscribe", args("funding-rate", BTC))
        pushed = (await until(public, lambda frame: "data" in frame))[-1]["data"][0]
    sim.fault("empty_fields", where="rest")
    asked = sim.get(FUNDING, instId=BTC)["data"][0]

    for row in (pushed, asked):
        assert float(row["fundingRate"]) == pytest.approx(0, abs=0.01)
        assert int(row["fundingTime"]) > int(row["ts"])
        assert {row[name] for name in ("nextFundingTime", "settFundingRate", "prevFundingTime", "premium")} == {""}
    assert sim.get(FUNDING, instId=BTC)["data"][0]["nextFundingTime"]


# Subscriptions


async def test_a_subscription_is_rejected_although_it_exists(sim):
    async with connected(sim, "business") as socket:
        await arm(sim, "reject", instId=ETH)
        await send(socket, "subscribe", args("candle1m", BTC, ETH))
        first, second = await events(socket, 2)
        await send(socket, "subscribe", args("candle1m", ETH))
        (again,) = await events(socket, 1)

    assert (first["event"], second["event"], second["code"]) == ("subscribe", "error", "60018")
    assert again["event"] == "subscribe"


@pytest.mark.parametrize("variant", ["data", "silent"])
async def test_an_acknowledgement_is_lost_with_the_data_or_without(sim, variant):
    async with connected(sim, "business") as socket:
        await arm(sim, "lost_ack", variant=variant, instId=ETH)
        await send(socket, "subscribe", args("candle1m", ETH))
        received = await frames(socket, 1.5)

    assert [frame for frame in received if "event" in frame] == []
    assert bool(rows(received, ETH)) == (variant == "data")


@pytest.mark.parametrize("renewed_by", ["subscription", "connection"])
async def test_a_deaf_subscription_gets_nothing_until_it_is_renewed(sim, renewed_by):
    async with connected(sim, "business") as socket:
        await arm(sim, "deaf", instId=ETH)
        await send(socket, "subscribe", args("candle1m", BTC, ETH))
        assert {ack["event"] for ack in await events(socket, 2)} == {"subscribe"}
        await send(socket, "subscribe", args("candle1m", ETH))
        received = await frames(socket, 1.5)
        if renewed_by == "subscription":
            await send(socket, "unsubscribe", args("candle1m", ETH))
            await send(socket, "subscribe", args("candle1m", ETH))
            await until(socket, lambda frame: rows([frame], ETH))
    if renewed_by == "connection":
        async with connected(sim, "business") as socket:
            await send(socket, "subscribe", args("candle1m", ETH))
            await until(socket, lambda frame: rows([frame], ETH))

    assert rows(received, BTC)
    assert rows(received, ETH) == []


# Requests


def test_an_answer_is_late(sim):
    sim.fault("slow", delay=60, endpoint="public/time")

    began, asked = sim.now(), time.monotonic()
    row = sim.get("/api/v5/public/time")["data"][0]

    assert time.monotonic() - asked >= 1.0
    assert int(row["ts"]) - began < 30_000, "it was made when it was asked for"


def test_a_page_is_empty_or_has_holes_and_the_next_one_is_whole(sim):
    after = sim.now() // MINUTE * MINUTE
    sim.fault("empty")
    sim.fault("empty", variant="holes", endpoint="market/candles")

    pages = [sim.get(CANDLES, instId=BTC, after=after, limit=50) for _ in range(3)]
    rest = [page["data"] for page in pages]

    assert {page["code"] for page in pages} == {"0"}
    # Both faults see the first page, of which the first left nothing to make holes in.
    assert rest[0] == []
    assert len(rest[2]) == 50
    assert 0 < len(rest[1]) < 50
    assert set(map(tuple, rest[1])) < set(map(tuple, rest[2]))


def test_an_instrument_is_unknown_for_a_while(sim):
    sim.fault("unknown", instId=BTC, duration=60)

    assert sim.get(FUNDING, instId=BTC)["code"] == "51001"
    assert sim.get(CANDLES, instId=BTC)["code"] == "51001"
    assert sim.get(CANDLES, instId=ETH)["code"] == "0"
    sim.wait_until(sim.now() + 70_000)
    assert sim.get(FUNDING, instId=BTC)["code"] == "0"


def test_a_request_is_never_answered(sim):
    sim.fault("timeout", endpoint="public/time")

    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"{sim.rest_url}/api/v5/public/time", context=sim.ssl_context, timeout=1)  # noqa: S310 https
    assert sim.get("/api/v5/public/time")["code"] == "0"


def test_the_time_is_not_given(sim):
    sim.fault("time_error", count=2)

    assert sim.get("/api/v5/public/funding-rate", instId=BTC)["code"] == "0"
    assert [sim.get("/api/v5/public/time")["code"] for _ in range(3)] == ["50001", "50001", "0"]


# The exchange


def test_a_closed_minute_is_corrected_for_good(sim):
    after = sim.now() // MINUTE * MINUTE
    before = sim.get(CANDLES, instId=SOL, after=after, limit=30)["data"]
    sim.fault("corrected", instId=SOL, delay=300)
    deadline = Deadline(5)
    while not (happened := [entry for entry in sim.faults() if entry["kind"] == "corrected"]):
        assert not deadline.has_passed
        time.sleep(0.02)

    later = sim.get(CANDLES, instId=SOL, after=after, limit=30)["data"]

    (entry,) = happened
    assert [int(new[0]) for old, new in zip(before, later, strict=True) if old != new] == [entry["open_ms"]]
    assert entry["now_ms"] - entry["open_ms"] >= 360_000
    assert later[::-1] == sim.truth_candles(SOL, int(later[-1][0]), int(later[0][0]) + 1)
    corrected = next(row for row in later if int(row[0]) == entry["open_ms"])
    assert float(corrected[3]) <= float(corrected[1]) <= float(corrected[2])


@pytest.mark.proof
@pytest.mark.parametrize("variant", ["blind", "halt"])
async def test_maintenance_is_announced_closes_everything_and_ends(variant):
    channel = [{"channel": "status"}]
    with Simulator.start(symbols=3, seed=5, start="2026-01-10T07:50:00", speed=60, extra=["--no-limits"]) as sim:
        async with connected(sim, "public") as public, connected(sim, "business") as business:
            await send(public, "subscribe", channel)
            await events(public, 1)
            await arm(sim, "maintenance", variant=variant, duration=180)
            (notice, scheduled) = await until(public, lambda frame: "data" in frame)
            listed = sim.get("/api/v5/system/status")["data"]
            with pytest.raises(ConnectionClosed):
                await frames(business, 10)
        refused = await attempt(sim, "business")
        codes = {sim.get(path, instId=BTC)["code"] for path in (CANDLES, FUNDING)}
        during = sim.get("/api/v5/system/status")["data"]
        begin, end = (int(during[0][name]) for name in ("begin", "end"))
        sim.wait_until(end + 3 * MINUTE)
        page = sim.get(CANDLES, instId=BTC)["data"]
        truth = {int(row[0]) for row in sim.truth_candles(BTC, begin - 5 * MINUTE, end + 2 * MINUTE)}
        async with connected(sim, "public") as public:
            await send(public, "subscribe", channel)
            over = (await until(public, lambda frame: "data" in frame))[-1]["data"][0]
        effects = {entry["effect"] for entry in sim.faults() if entry["kind"] == "maintenance"}

    assert [row["state"] for row in (*scheduled["data"], *listed, *during, over)] == [
        "scheduled",
        "scheduled",
        "ongoing",
        "completed",
    ]
    assert notice["code"] == "64008"
    assert refused.response.status_code == 503
    assert codes == {"50001"}
    first = math.ceil(begin / MINUTE) * MINUTE
    window = set(range(first, end, MINUTE))
    assert len(window) == 3
    assert window & truth == (set() if variant == "halt" else window)
    assert {first - MINUTE, first + 3 * MINUTE} <= truth
    assert {int(row[0]) for row in page} & window == truth & window
    assert effects == {"notice", "close", "refuse", "http_error"}


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"kind": "refuse", "instId": BTC}, "does not take `instId`; it takes `path`, `variant`"),
        ({"kind": "refuse", "variant": "politely"}, "no variant 'politely'; there are http, tcp"),
        ({"kind": "slow_socket"}, "needs `duration` in seconds"),
        ({"kind": "maintenance"}, "needs `duration` in seconds"),
        ({"kind": "corrected"}, "needs `instId`"),
        ({"kind": "reject", "instId": "NOPE"}, "no instrument is called 'NOPE'"),
        ({"kind": "slow", "endpoint": "market/nothing"}, "no endpoint ends with"),
        ({"kind": "slow", "delay": -1}, "`delay` must be"),
        ({"kind": "timeout", "delay": 1}, "does not take `delay`"),
        ({"kind": "impossible", "where": "rest", "path": "public"}, "does not take `path`"),
        ({"kind": "impossible", "endpoint": "market/candles"}, "does not take `endpoint`"),
        ({"kind": "silence", "duration": 0}, "`duration` must be"),
        ({"kind": "http_error", "status": 200}, "`status` must be"),
        ({"kind": "drop", "count": 0}, "`count` must be"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(sim, fault, complaint):
    assert complaint in sim.fault(**fault)["error"]
