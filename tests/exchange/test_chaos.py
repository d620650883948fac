"""Seeded chaos: the schedule, and a run of the real process under it."""

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException

from services.simulator.engine.market import HOUR_MS, MINUTE_MS
from services.simulator.faults.chaos import Chaos, Recipe, schedule
from services.simulator.faults.kinds import KINDS, SUBSCRIBE_KINDS
from tests.exchange.wire import args, connected, send
from tests.support.patience import Deadline
from tests.support.simulator import ROOT, Simulator

NOW = 1_795_000_020_000
RECIPE = Recipe(7, 56, "hour", ("BTC-USDT-SWAP", "ETH-USDT-SWAP"))
CANDLES = "/api/v5/market/candles"


@given(st.integers(0, 10**6), st.integers(1, 100))
@settings(max_examples=20, deadline=None)
def test_windows_that_follow_each_other_make_one_schedule(seed, cut):
    recipe = replace(RECIPE, seed=seed)
    middle, end = NOW + cut * MINUTE_MS, NOW + 3 * HOUR_MS

    whole = schedule(recipe, 1, NOW, end)

    assert schedule(recipe, 1, NOW, middle) + schedule(recipe, 1, middle, end) == whole
    assert [fault.at for fault in whole] == sorted(fault.at for fault in whole)


def test_each_kind_comes_equally_often_and_another_seed_is_another_order():
    kinds = Counter(fault.kind for fault in schedule(RECIPE, 1, NOW, NOW + 100 * HOUR_MS))
    mine, other = (
        [fault.kind for fault in schedule(replace(RECIPE, seed=seed), 1, NOW, NOW + HOUR_MS)] for seed in (7, 8)
    )

    assert set(kinds) == set(KINDS)
    assert max(kinds.values()) - min(kinds.values()) <= 2
    assert sum(kinds.values()) == pytest.approx(5_600, abs=2)
    assert mine != other


def test_nothing_lasts_for_ever_and_named_instruments_are_those_given():
    for fault in schedule(RECIPE, 1, NOW, NOW + 100 * HOUR_MS):
        assert 0 < fault.duration <= 120
        assert fault.clock == "wall"
        assert fault.inst_id in {None, *RECIPE.inst_ids}
        assert (fault.delay or 0) <= 900


def test_a_rate_by_wall_time_does_not_depend_on_the_speed():
    recipe = replace(RECIPE, rate=30, per="wall minute")

    slow, fast = (schedule(recipe, speed, NOW, NOW + 10 * MINUTE_MS * speed) for speed in (1, 600))

    assert len(slow) == pytest.approx(300, abs=1)
    assert len(fast) == pytest.approx(300, abs=1)


def test_a_kind_that_is_left_out_never_comes():
    recipe = replace(RECIPE, kinds=("drop", "slow"))

    assert {fault.kind for fault in schedule(recipe, 1, NOW, NOW + 10 * HOUR_MS)} == {"drop", "slow"}


def test_what_is_due_is_given_once_and_nothing_after_a_stop():
    chaos = Chaos(RECIPE, 1, NOW)

    hours = [len(chaos.due(NOW + hour * HOUR_MS)) for hour in (1, 1, 2)]
    chaos.steer(NOW + 3 * HOUR_MS, stop=True)
    stopped = chaos.due(NOW + 4 * HOUR_MS)
    chaos.steer(NOW + 5 * HOUR_MS, stop=False)

    assert hours[0] == pytest.approx(56, abs=2)
    assert hours[1] == 0
    assert hours[2] == pytest.approx(56, abs=2)
    assert stopped == ()
    assert len(chaos.due(NOW + 6 * HOUR_MS)) == pytest.approx(56, abs=2)


async def stubborn(sim, path, channel, inst_ids, stop):
    """Be a client that comes back whatever happens, and renews its subscriptions all the time."""
    while not stop.is_set():
        with contextlib.suppress(OSError, EOFError, TimeoutError, WebSocketException):
            async with connected(sim, path) as socket:
                while not stop.is_set():
                    await send(socket, "subscribe", args(channel, *inst_ids))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            while True:
                                await socket.recv()
                    await send(socket, "unsubscribe", args(channel, *inst_ids))
        await asyncio.sleep(0.05)


async def curious(sim, inst_ids, stop):
    """Be a client that asks for everything again and again, and gives up soon."""
    paths = [f"{CANDLES}?instId={inst_id}" for inst_id in inst_ids]
    paths += [f"/api/v5/public/funding-rate?instId={inst_id}" for inst_id in inst_ids]
    paths += [f"{CANDLES}?instId={inst_id}&after={sim.start_ms}" for inst_id in inst_ids]
    while not stop.is_set():
        for path in (*paths, "/api/v5/public/time", "/api/v5/public/instruments?instType=SWAP"):
            with contextlib.suppress(OSError):
                await asyncio.to_thread(ask, sim, path)


def ask(sim, path):
    with urllib.request.urlopen(sim.rest_url + path, context=sim.ssl_context, timeout=0.5) as response:  # noqa: S310 https
        return response.read()


@pytest.mark.proof
async def test_a_run_meets_every_kind_and_settles_when_it_is_stopped(tmp_path):
    log = tmp_path / "faults.jsonl"
    options = ["--no-limits", "--chaos", "3", "--rate", "150", "--chaos-wall", "--fault-log", str(log)]
    with Simulator.start(symbols=3, seed=5, start="2026-01-10T07:50:00", speed=300, extra=options) as sim:
        live = ["BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP"]
        stop = asyncio.Event()
        clients = [
            asyncio.create_task(stubborn(sim, "business", "candle1m", live, stop)),
            asyncio.create_task(stubborn(sim, "public", "funding-rate", live, stop)),
            asyncio.create_task(curious(sim, live, stop)),
        ]
        deadline = Deadline(60)
        while missing := KINDS.keys() - (await progress_of(sim))["happened"].keys():
            assert not deadline.has_passed, f"chaos has not met {missing}"
            await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*clients)
        running = await progress_of(sim)
        stopped = sim.post("/sim/chaos", {"stop": True})
        at, count = sim.now(), len(sim.faults())
        sim.wait_until(at + 60 * MINUTE_MS)
        page = sim.get(CANDLES, instId=live[0], after=at // MINUTE_MS * MINUTE_MS)["data"]
        settled = sim.get("/sim/chaos")
        remembered = sim.faults()
        assert page[::-1] == sim.truth_candles(live[0], int(page[-1][0]), int(page[0][0]) + 1)

    assert max(running["armed"].values()) - min(running["armed"].values()) <= 2
    assert all(running["happened"][kind] <= running["armed"][kind] for kind in running["happened"])
    assert (stopped["stopped"], stopped["waiting"]) == (True, 0)
    assert settled["armed"] == stopped["armed"]
    assert len(remembered) == count
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == remembered or lines[-len(remembered) :] == remembered
    assert all({"kind", "now_ms", "wall"} <= line.keys() for line in lines)
    assert {"drop", *SUBSCRIBE_KINDS} <= {line["kind"] for line in lines}


async def progress_of(sim):
    """Ask what chaos has done so far; it does not touch this port's own routes."""
    return await asyncio.to_thread(sim.get, "/sim/chaos")


def test_without_chaos_there_is_nothing_to_stop():
    with Simulator.start(symbols=1) as sim:
        answers = [sim.get("/sim/chaos"), sim.post("/sim/chaos", {"stop": True})]

    assert all("start with --chaos" in answer["error"] for answer in answers)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--chaos", "1", "--chaos-without", "explode"], "no fault is called 'explode'"),
        (["--chaos-wall"], "belong to --chaos SEED"),
        (["--events", "pyproject.toml"], "not a change"),
        (["--fault-log", "/nowhere/faults.jsonl"], "No such file"),
    ],
)
def test_unusable_options_end_with_2_and_a_sentence(arguments, complaint):
    done = subprocess.run(
        [sys.executable, "-m", "services.simulator", "--symbols", "1", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
