"""Minutes, windows, states and names that are odd, as a client of the real process meets them, and their truth."""

import json
import subprocess
import sys

import pytest

from services.simulator.engine.odd_minutes import TOO_LARGE, TOO_SMALL
from tests.exchange.wire import args, connected, events, rows, send, until
from tests.support.simulator import ROOT, Simulator

MINUTE = 60_000
BTC, ETH, SOL, XRP = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP", "XRP-USDT-SWAP"
CANDLES, HISTORY = "/api/v5/market/candles", "/api/v5/market/history-candles"
FUNDING, SETTLED = "/api/v5/public/funding-rate", "/api/v5/public/funding-rate-history"
INSTRUMENTS, STATUS = "/api/v5/public/instruments", "/api/v5/system/status"
START = "2026-01-10T07:50:00"


@pytest.fixture(scope="module")
def sim():
    """Ten swaps; a simulated minute takes a second."""
    with Simulator.start(symbols=10, seed=5, start=START, speed=60, extra=["--no-limits"]) as running:
        yield running


def arm(sim, kind, **fields):
    armed = sim.fault(kind, **fields)
    assert armed.get("armed") == 1, armed


def refused(sim, inst_id, begin, end):
    return sim.get("/sim/truth/refused", instId=inst_id, begin=begin, end=end)


def page_row(sim, path, inst_id, open_ms):
    found = sim.get(path, instId=inst_id, after=open_ms + 1, before=open_ms - 1)["data"]
    return found[0] if found else None


# Minutes


@pytest.mark.parametrize(
    ("variant", "inst_id", "prices"),
    [
        ("zero", BTC, lambda true: ["0", true[2], "0", "0"]),
        ("huge", ETH, lambda _: [TOO_LARGE] * 4),
        ("tiny", SOL, lambda _: [TOO_SMALL] * 4),
    ],
)
def test_a_minute_with_impossible_prices_for_good_is_no_truth_but_refused(sim, variant, inst_id, prices):
    open_ms = sim.now() // MINUTE * MINUTE - 30 * MINUTE
    (true,) = sim.truth_candles(inst_id, open_ms, open_ms + 1)
    arm(sim, "odd_candle", variant=variant, instId=inst_id, at=open_ms + 17_000)

    shown = [page_row(sim, path, inst_id, open_ms) for path in (CANDLES, HISTORY, HISTORY)]
    around = sim.truth_candles(inst_id, open_ms - MINUTE, open_ms + 2 * MINUTE)

    assert shown == [[true[0], *prices(true), *true[5:]]] * 3
    assert [int(row[0]) - open_ms for row in around] == [-MINUTE, MINUTE]
    assert refused(sim, inst_id, open_ms - 60 * MINUTE, open_ms + 60 * MINUTE) == [open_ms]


def test_a_tenfold_price_for_good_is_possible_and_so_the_truth(sim):
    open_ms = sim.now() // MINUTE * MINUTE - 90 * MINUTE
    (before,) = sim.truth_candles(BTC, open_ms, open_ms + 1)
    arm(sim, "odd_candle", variant="tenfold", instId=BTC, at=open_ms)

    (true,) = sim.truth_candles(BTC, open_ms, open_ms + 1)

    assert page_row(sim, HISTORY, BTC, open_ms) == true
    assert [float(price) for price in true[1:5]] == pytest.approx([float(price) * 10 for price in before[1:5]])
    assert true[5:] == before[5:]
    assert refused(sim, BTC, open_ms, open_ms + 1) == []


async def test_the_open_minute_closes_with_impossible_prices_for_a_while_and_then_is_as_it_was(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", XRP))
        await until(socket, lambda frame: rows([frame], XRP))
        open_ms = sim.now() // MINUTE * MINUTE + MINUTE
        arm(sim, "odd_candle", variant="huge", instId=XRP, at=open_ms, duration=180)
        received = await until(socket, lambda frame: is_closed(frame, open_ms))
        at_once = page_row(sim, CANDLES, XRP, open_ms)
    sim.wait_until(open_ms + MINUTE + 185_000)

    (true,) = sim.truth_candles(XRP, open_ms, open_ms + 1)
    closed = received[-1]["data"][0]
    forming = [row for row in rows(received, XRP) if int(row[0]) == open_ms and row[8] == "0"]
    assert closed == at_once == [true[0], *[TOO_LARGE] * 4, *true[5:]]
    assert forming
    assert all(float(row[2]) <= float(true[2]) for row in forming), "it was right while it formed"
    assert page_row(sim, CANDLES, XRP, open_ms) == true
    assert refused(sim, XRP, open_ms, open_ms + 1) == []


def is_closed(frame, open_ms):
    return any(int(row[0]) == open_ms and row[8] == "1" for row in rows([frame]))


async def test_a_late_minute_is_neither_pushed_nor_in_a_page_for_a_while_and_then_there(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", SOL))
        open_ms = sim.now() // MINUTE * MINUTE + MINUTE
        arm(sim, "late_minute", instId=SOL, at=open_ms, duration=240)
        received = await until(socket, lambda frame: is_closed(frame, open_ms + MINUTE))
        early = sim.get(CANDLES, instId=SOL, after=open_ms + 2 * MINUTE, limit=10)["data"]
        truth = sim.truth_candles(SOL, open_ms, open_ms + 1)
    sim.wait_until(open_ms + MINUTE + 245_000)
    late = sim.get(CANDLES, instId=SOL, after=open_ms + 2 * MINUTE, limit=10)["data"]

    assert not any(is_closed(frame, open_ms) for frame in received)
    assert open_ms not in [int(row[0]) for row in early]
    assert len(early) == 10, "a page is filled up with what is older"
    assert len(truth) == 1
    assert [int(row[0]) for row in late] == [open_ms + MINUTE - number * MINUTE for number in range(10)]
    assert truth[0] in late


# Maintenance and states


@pytest.mark.parametrize(
    ("fields", "codes"),
    [({}, ("11", "1")), ({"env": "2"}, ("5", "2")), ({"serviceType": "99", "env": "1"}, ("99", "1"))],
)
async def test_maintenance_of_something_else_is_announced_and_nothing_stops(fields, codes):
    with Simulator.start(symbols=2, seed=5, start=START, speed=60, extra=["--no-limits"]) as sim:
        async with connected(sim, "public") as public, connected(sim, "business") as business:
            await send(public, "subscribe", [{"channel": "status"}])
            await events(public, 1)
            await send(business, "subscribe", args("candle1m", BTC))
            arm(sim, "maintenance", variant="elsewhere", duration=180, **fields)
            said = (await until(public, lambda frame: "data" in frame))[-1]["data"]
            begin, end = int(said[0]["begin"]), int(said[0]["end"])
            received = await until(business, lambda frame: is_closed(frame, end // MINUTE * MINUTE), seconds=20)
            (again,) = (await until(public, lambda frame: frame.get("data", said)[0]["state"] == "completed"))[-1][
                "data"
            ]
        listed = sim.get(STATUS, state="completed")["data"]
        (entry,) = [entry for entry in sim.faults() if entry["kind"] == "maintenance"]

    assert [(row["serviceType"], row["env"]) for row in (*said, again, *listed)] == [codes] * 3
    assert (entry["serviceType"], entry["env"]) == codes
    closed = {int(row[0]) for row in rows(received) if row[8] == "1"}
    assert set(range(-(-begin // MINUTE) * MINUTE, end - MINUTE, MINUTE)) <= closed


def test_maintenance_of_trading_has_the_codes_that_are_said(sim):
    with Simulator.start(symbols=1, seed=5, start=START, speed=60, extra=["--no-limits"]) as other:
        arm(other, "maintenance", duration=60, serviceType="0", delay=0)
        (row,) = other.get(STATUS)["data"]

    assert (row["serviceType"], row["env"]) == ("0", "1")


@pytest.mark.parametrize("state", ["rebase", "post_only"])
async def test_an_instrument_in_another_state_is_listed_served_and_not_traded(sim, state):
    inst_id = {"rebase": "ADA-USDT-SWAP", "post_only": "DOGE-USDT-SWAP"}[state]
    begin = sim.now() // MINUTE * MINUTE + 2 * MINUTE
    end = begin + 3 * MINUTE
    async with connected(sim, "public") as public:
        await send(public, "subscribe", [{"channel": "instruments", "instType": "SWAP"}])
        made = sim.post(
            "/sim/market",
            [
                {"kind": "suspend", "instId": inst_id, "at": begin, "state": state},
                {"kind": "resume", "instId": inst_id, "at": end},
            ],
        )
        (pushed,) = (await until(public, lambda frame: "data" in frame))[-1]["data"]
    (during,) = sim.get(INSTRUMENTS, instType="SWAP", instId=inst_id)["data"]
    rates = [row["instId"] for row in sim.get(FUNDING, instId="ANY")["data"]]
    sim.wait_until(end + 2 * MINUTE)
    (after,) = sim.get(INSTRUMENTS, instType="SWAP", instId=inst_id)["data"]
    opens = [int(row[0]) for row in sim.get(CANDLES, instId=inst_id, limit=20)["data"]]

    assert made["changes"] == 2
    assert [row["state"] for row in (pushed, during, after)] == [state, state, "live"]
    assert inst_id not in rates
    assert {begin - MINUTE, end} <= set(opens)
    assert not {begin, begin + MINUTE, begin + 2 * MINUTE} & set(opens)


def test_a_state_belongs_to_a_suspension(sim):
    later = sim.now() + MINUTE
    said = [
        sim.post("/sim/market", {"kind": kind, "instId": BTC, "at": later, "state": state})["error"]
        for kind, state in (("delist", "rebase"), ("suspend", "asleep"))
    ]

    assert "`state` belongs to suspend" in said[0]
    assert "not a change" in said[1]


# Names


NAMES = [
    "龙-USDT-SWAP",
    "币安人生-USDT-SWAP",
    "ai-USDT-SWAP",
    "AI-USDT-SWAP",
    "kPEPE-USDT-SWAP",
    "X-Y-USDT-SWAP",
    "../../../EVIL-USDT-SWAP",
    f"{'LONG' * 10}-USDT-SWAP",
    f"{'L' * 250}-USDT-SWAP",
    "NEW\nLINE-USDT-SWAP",
    "A\tB-USDT-SWAP",
    "NUL\0-USDT-SWAP",
    'QUO"TE\\-USDT-SWAP',
    "A B&C=D-USDT-SWAP",
    "😀-USDT-SWAP",
]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "names.json"
    path.write_text(json.dumps(NAMES), encoding="utf-8")
    options = ["--no-limits", "--names", str(path)]
    with Simulator.start(symbols=2, seed=5, start=START, speed=60, extra=options) as running:
        yield running


def test_instruments_of_any_name_are_in_every_list_beside_the_others(named):
    listed = {row["instId"]: row for row in named.get(INSTRUMENTS, instType="SWAP")["data"]}
    rates = [row["instId"] for row in named.get(FUNDING, instId="ANY")["data"]]
    predicted = named.truth_predicted(named.now())

    assert {*NAMES, BTC, ETH} <= listed.keys()
    assert {*NAMES, BTC, ETH} <= set(rates) & predicted.keys()
    assert listed["X-Y-USDT-SWAP"]["instFamily"] == "X-Y-USDT"
    assert (listed["X-Y-USDT-SWAP"]["ctValCcy"], listed["X-Y-USDT-SWAP"]["settleCcy"]) == ("X-Y", "USDT")
    assert listed[BTC]["instFamily"] == "BTC-USDT"


@pytest.mark.parametrize("inst_id", NAMES)
async def test_an_instrument_of_any_name_is_served_over_both_doors_as_its_truth_is(named, inst_id):
    page = named.get(CANDLES, instId=inst_id, limit=10)["data"]
    settled = named.get(SETTLED, instId=inst_id, limit=5)["data"]
    async with connected(named, "business") as business, connected(named, "public") as public:
        await send(business, "subscribe", args("candle1m", inst_id))
        await send(public, "subscribe", args("funding-rate", inst_id))
        first = rows(await until(business, lambda frame: rows([frame], inst_id)), inst_id)[0]
        funding = (await until(public, lambda frame: "data" in frame))[-1]["data"][0]
    confirmed = [row for row in page if row[8] == "1"]

    assert confirmed[::-1] == named.truth_candles(inst_id, int(confirmed[-1][0]), int(confirmed[0][0]) + 1)
    times = [int(row["fundingTime"]) for row in settled]
    assert settled[::-1] == named.truth_funding(inst_id, times[-1], times[0] + 1)
    assert len(settled) == 5
    assert funding["instId"] == inst_id
    assert int(first[0]) >= int(confirmed[0][0])


def test_names_that_differ_in_case_alone_are_two_markets(named):
    lower, upper = (named.truth_candles(name, 1_767_000_000_000, 1_767_000_600_000) for name in NAMES[2:4])

    assert len(lower) == len(upper) == 10
    assert lower != upper


def test_without_swaps_there_are_x_perps_alone_and_they_are_futures():
    with Simulator.start(symbols=3, seed=5, start=START, extra=["--only-xperps"]) as sim:
        swaps = sim.get(INSTRUMENTS, instType="SWAP")
        futures = sim.get(INSTRUMENTS, instType="FUTURES")["data"]
        rates = sim.get(FUNDING, instId="ANY")["data"]

    assert (swaps["code"], swaps["data"]) == ("0", [])
    assert [row["instId"] for row in futures] == [f"{coin}-USD_UM_XPERP-310404" for coin in ("BTC", "ETH", "SOL")]
    assert {row["ruleType"] for row in futures} == {"xperp"}
    assert [row["instId"] for row in rates] == [row["instId"] for row in futures]


@pytest.mark.parametrize(
    ("names", "more", "complaint"),
    [
        ('["BTC"]', [], "a swap is called like NEW-USDT-SWAP, not 'BTC'"),
        ('{"a": 1}', [], "a JSON array of instIds is wanted"),
        ('["A-USDT-SWAP"]', ["--only-xperps"], "leave one of them out"),
    ],
)
def test_names_that_cannot_be_used_end_with_2_and_a_sentence(tmp_path, names, more, complaint):
    path = tmp_path / "names.json"
    path.write_text(names)
    done = subprocess.run(
        [sys.executable, "-m", "services.simulator", "--symbols", "1", "--names", str(path), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
