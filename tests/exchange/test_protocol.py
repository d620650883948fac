"""The wire itself: TLS, frames, codes, limits and faults, against the real process."""

import asyncio
import json
import subprocess
import sys
import urllib.request

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.exchange.wire import args, connected, events, frames, send
from tests.support.simulator import ROOT, Simulator

MINUTE = 60_000
BTC, ETH = "BTC-USDT-SWAP", "ETH-USDT-SWAP"


@pytest.fixture(scope="module")
def sim():
    """Ten swaps; a simulated minute takes a second."""
    with Simulator.start(symbols=10, seed=5, start="2026-01-10T07:50:00", speed=60) as running:
        yield running


async def test_each_argument_is_acknowledged_with_id_and_connection(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC, ETH), id="a1")
        first, second = await events(socket, 2)

    assert first == {"id": "a1", "event": "subscribe", "arg": args("candle1m", BTC)[0], "connId": first["connId"]}
    assert (second["arg"]["instId"], second["connId"]) == (ETH, first["connId"])


async def test_what_is_not_there_is_refused_with_60018_without_an_arg(sim):
    absent = [
        ("candle1m", "NOPE-USDT-SWAP"),
        ("candle1m", "COMING-USDT-SWAP"),
        ("candle7m", BTC),
        ("funding-rate", BTC),
    ]
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", [args(*key)[0] for key in absent])
        errors = await events(socket, len(absent))

    for error, (_, inst_id) in zip(errors, absent, strict=True):
        assert (error["event"], error["code"], "arg" in error, "id" in error) == ("error", "60018", False, False)
        assert inst_id in error["msg"]


async def test_candles_are_not_on_the_public_url(sim):
    async with connected(sim, "public") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        (error,) = await events(socket, 1)

    assert error["code"] == "60018"


async def test_one_bad_argument_does_not_spoil_the_others(sim):
    async with connected(sim, "public") as socket:
        await send(socket, "subscribe", args("funding-rate", BTC, "NOPE", ETH))
        answers = await events(socket, 3)

    assert [answer["event"] for answer in answers] == ["subscribe", "error", "subscribe"]


async def test_malformed_requests_get_a_single_60012(sim):
    malformed = [
        "{",
        "[]",
        '"x"',
        '{"op":"subscribe"}',
        '{"op":"dance","args":[{}]}',
        '{"op":"subscribe","args":["x"]}',
    ]
    async with connected(sim, "public") as socket:
        for text in malformed:
            await socket.send(text)
        answers = await events(socket, len(malformed))

    assert {answer["code"] for answer in answers} == {"60012"}


async def test_a_text_ping_is_answered_and_candles_follow_the_minute(sim):
    async with connected(sim, "business") as socket:
        await socket.send("ping")
        assert await socket.recv() == "pong"
        await send(socket, "subscribe", args("candle1m", BTC))
        received = [frame["data"][0] for frame in await frames(socket, 2.6) if "data" in frame]

    closed = [row for row in received if row[8] == "1"]
    assert received[0][8] == "0"
    assert len(closed) in {2, 3}
    assert closed == sim.truth_candles(BTC, int(closed[0][0]), int(closed[-1][0]) + 1)
    assert {row[0] for row in received if row[8] == "0"} >= {row[0] for row in closed[1:]}


async def test_after_unsubscribing_pushes_stop(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC, ETH))
        await send(socket, "unsubscribe", args("candle1m", BTC))
        await events(socket, 3)
        received = await frames(socket, 1.5)

    assert {frame["arg"]["instId"] for frame in received} == {ETH}


async def test_a_too_long_frame_closes_with_1009(sim):
    async with connected(sim, "public") as socket:
        await socket.send(json.dumps({"op": "subscribe", "args": args("funding-rate", *["X" * 100] * 700)}))
        with pytest.raises(ConnectionClosed) as closed:
            await frames(socket, 3)

    assert closed.value.rcvd.code == 1009


async def test_more_than_480_operations_an_hour_are_refused(sim):
    async with connected(sim, "public") as socket:
        for _ in range(481):
            await send(socket, "unsubscribe", args("funding-rate", BTC))
        answers = await events(socket, 481)

    assert {answer["event"] for answer in answers[:480]} == {"unsubscribe"}
    assert answers[480]["code"] == "60014"


async def test_a_fourth_connection_within_a_second_is_refused(sim):
    await asyncio.sleep(1.1)
    outcomes = await asyncio.gather(
        *(websockets.connect(f"{sim.ws_url}/public", ssl=sim.ssl_context) for _ in range(5)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, InvalidStatus)]
    for outcome in outcomes:
        if outcome not in refused:
            await outcome.close()

    assert [outcome.response.status_code for outcome in refused] == [429, 429]


@pytest.mark.parametrize(("kind", "code"), [("drop", None), ("close", 1000)])
async def test_connections_are_cut_as_ordered(sim, kind, code):
    async with connected(sim, "business") as socket:
        await asyncio.to_thread(sim.fault, kind, path="business")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 3)

    assert (closed.value.rcvd.code if closed.value.rcvd else None) == code


async def test_during_silence_only_pongs_arrive(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await events(socket, 1)
        await asyncio.to_thread(sim.fault, "silence", duration=1.5, clock="wall", path="business")
        await asyncio.sleep(0.2)
        await socket.send("ping")
        silent = await asyncio.wait_for(_until_pong(socket), 2)
        quiet = [frame for frame in await frames(socket, 1.0) if "data" in frame]
        loud = await frames(socket, 1.5)

    assert silent
    assert quiet == []
    assert loud


async def _until_pong(socket):
    while await socket.recv() != "pong":
        pass
    return True


async def test_confirms_are_lost_late_and_doubled_as_ordered(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC, ETH))
        await events(socket, 2)
        for fault in (("lost_confirm", {}), ("duplicate_confirm", {"instId": ETH}), ("late_confirm", {"delay": 30})):
            await asyncio.to_thread(sim.fault, fault[0], **({"instId": BTC, "count": 1} | fault[1]))
        rows = [
            (frame["arg"]["instId"], int(frame["data"][0][0]))
            for frame in await frames(socket, 3.3)
            if frame.get("data", [[""] * 9])[0][8] == "1"
        ]
    btc = [time for inst_id, time in rows if inst_id == BTC]
    eth = [time for inst_id, time in rows if inst_id == ETH]

    happened = {entry["kind"] for entry in sim.faults()}
    assert happened >= {"lost_confirm", "duplicate_confirm", "late_confirm"}
    assert len(eth) == len(set(eth)) + 1
    assert len(btc) == len(set(btc)) == len(set(eth)) - 1


def test_rest_limits_are_enforced_and_alternate_in_status(sim):
    answers = [sim.get("/api/v5/public/funding-rate-history", instId="SYM000-USDT-SWAP") for _ in range(13)]

    assert [answer["code"] for answer in answers] == ["0"] * 10 + ["50011"] * 3
    assert 1 <= sim.stats()["http_429"] <= 2
    assert sim.get("/api/v5/public/funding-rate-history", instId="SYM001-USDT-SWAP")["code"] == "0"


def test_requests_fail_as_ordered(sim):
    sim.fault("http_error", endpoint="public/time", status=503)
    sim.fault("rate_limit", endpoint="system/status")

    assert sim.get("/api/v5/public/time")["code"] == "50001"
    assert sim.get("/api/v5/system/status")["code"] == "50011"
    assert sim.get("/api/v5/public/time")["code"] == "0"
    assert "error" in sim.fault("explode")


def test_published_predictions_are_the_truth(sim):
    rows = sim.get("/api/v5/public/funding-rate", instId="ANY")["data"]

    truth = sim.truth_predicted(int(rows[0]["ts"]))
    assert {row["instId"]: row["fundingRate"] for row in rows if row["instType"] == "SWAP"} == truth


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_certificate_is_valid_for_the_local_names(sim, name):
    with urllib.request.urlopen(f"https://{name}:{sim.rest_port}/sim/clock", context=sim.ssl_context) as response:
        assert json.loads(response.read())["speed"] == 60


def test_a_replay_stands_still_at_its_end(recording):
    with Simulator.start(data=recording.folder, start="2025-06-02T11:58:30", speed=600) as sim:
        sim.wait_until(sim.end_ms, 5)
        clock = sim.clock()
        page = sim.get("/api/v5/market/candles", instId="ADA-USDT-SWAP", limit=1)["data"]

    assert clock["ended"]
    assert clock["now_ms"] == sim.end_ms == max(recording.candles["ADA-USDT-SWAP"]) + 65_000
    assert (int(page[0][0]), page[0][8]) == (max(recording.candles["ADA-USDT-SWAP"]), "1")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "either --data FOLDER"),
        (["--data", "."], "no such file"),
        (["--symbols", "1", "--faults", "pyproject.toml"], "not a fault"),
    ],
)
def test_unusable_arguments_end_with_2_and_a_sentence(arguments, complaint):
    done = subprocess.run(
        [sys.executable, "-m", "services.simulator", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
