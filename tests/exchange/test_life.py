"""The life of instruments: as the market has it, and as the real process tells it."""

import json

import pytest

from services.simulator.life import BadChangeError, LivingMarket, read_changes
from services.simulator.market import DAY_MS, HOUR_MS, MINUTE_MS
from services.simulator.replay import load_recording
from services.simulator.synthetic import SyntheticMarket
from tests.exchange.wire import args, connected, events, send, until
from tests.support.simulator import Simulator

NOW = 1_795_000_020_000
NOON = NOW // DAY_MS * DAY_MS + 12 * HOUR_MS
BTC, ETH, NEW = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "NEW-USDT-SWAP"
INSTRUMENTS = "/api/v5/public/instruments"
CANDLES = "/api/v5/market/candles"


def living(*changes):
    market = LivingMarket(SyntheticMarket(3, 1, NOW))
    for change in read_changes(json.dumps(changes).encode()):
        market.change(change)
    return market


def minutes(market, inst_id, begin, end):
    return [row.open_ms for row in market.candles(inst_id, begin, end)]


def test_without_changes_it_is_the_market_itself():
    plain = SyntheticMarket(3, 1, NOW)

    assert living().candles(BTC, NOON, NOON + HOUR_MS) == plain.candles(BTC, NOON, NOON + HOUR_MS)
    assert living().funding_period(BTC, NOW) == plain.funding_period(BTC, NOW)


def test_minutes_of_a_suspension_do_not_exist_and_pages_reach_over_it():
    begin, end = NOON + 10 * MINUTE_MS, NOON + 400 * MINUTE_MS
    market = living({"kind": "suspend", "instId": BTC, "at": begin}, {"kind": "resume", "instId": BTC, "at": end})

    assert minutes(market, BTC, begin - 2 * MINUTE_MS, end + 2 * MINUTE_MS) == [
        begin - 2 * MINUTE_MS,
        begin - MINUTE_MS,
        end,
        end + MINUTE_MS,
    ]
    page = [row.open_ms for row in market.newest_candles(BTC, 0, end + 5 * MINUTE_MS, 10)]
    assert page == [begin - after * MINUTE_MS for after in range(5, 0, -1)] + [
        end + after * MINUTE_MS for after in range(5)
    ]
    assert [market.instruments[BTC].state(at) for at in (begin - 1, begin, end - 1, end)] == [
        "live",
        "suspend",
        "suspend",
        "live",
    ]


def test_a_delisted_instrument_has_no_minute_and_its_last_settlement_is_nothing():
    market = living({"kind": "delist", "instId": BTC, "at": NOON + 4 * HOUR_MS})

    assert minutes(market, BTC, NOON + 238 * MINUTE_MS, NOON + 5 * HOUR_MS)[-1] == NOON + 239 * MINUTE_MS
    assert market.funding_period(BTC, NOON + HOUR_MS).upcoming_rate == 0
    assert market.settlements(BTC, NOON, NOON + DAY_MS) == []


def test_prices_lie_on_the_step_of_their_time_and_candles_stay_possible():
    market = living({"kind": "tick", "instId": BTC, "at": NOON, "tickSz": "1"})
    rows = market.candles(BTC, NOON - HOUR_MS, NOON + HOUR_MS)

    assert any(price % 1 for row in rows[:60] for price in row[1:5])
    assert all(price % 1 == 0 for row in rows[60:] for price in row[1:5])
    assert all(row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high for row in rows)


@pytest.mark.parametrize(
    ("at", "hours", "expected"),
    [
        (NOON - HOUR_MS, 4, [8, 16, 20, 24, 28]),
        (NOON + 4 * HOUR_MS, 4, [8, 16, 20, 24, 28]),
        (NOON + 5 * HOUR_MS, 1, [8, 16, 24, 25, 26, 27, 28]),
    ],
)
def test_an_interval_changes_at_a_settlement_and_settlements_stay_on_utc_multiples(at, hours, expected):
    market = living({"kind": "interval", "instId": BTC, "at": at, "hours": hours})
    day = NOON - 12 * HOUR_MS

    times = [row.funding_ms for row in market.settlements(BTC, day + 8 * HOUR_MS, day + 29 * HOUR_MS)]

    assert [(time - day) // HOUR_MS for time in times] == expected
    for began, funding, following in zip(times, times[1:], times[2:], strict=False):
        period = market.funding_period(BTC, began + 1)
        assert period[:3] == (began, funding, following)
        assert period.settled.funding_ms == began


def test_from_short_to_long_the_first_period_ends_on_the_grid_of_the_new_interval():
    at = {"kind": "interval", "instId": BTC, "at": NOON, "hours": 1}
    market = living(at, {"kind": "interval", "instId": BTC, "at": NOON + 6 * HOUR_MS, "hours": 8})

    times = [row.funding_ms for row in market.settlements(BTC, NOON + 4 * HOUR_MS, NOON + 21 * HOUR_MS)]

    assert [(time - NOON) // HOUR_MS for time in times] == [4, 5, 6, 12, 20]


def test_a_correction_changes_one_minute_of_the_truth():
    market = living()
    before = market.candles(BTC, NOON, NOON + 3 * MINUTE_MS)

    assert market.correct(BTC, NOON + MINUTE_MS)
    after = market.candles(BTC, NOON, NOON + 3 * MINUTE_MS)

    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert market.newest_candles(BTC, 0, NOON + 2 * MINUTE_MS, 1) == after[1:2]
    assert not market.correct("HALTED-USDT-SWAP", NOON)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([{"kind": "explode", "instId": BTC, "at": NOON}], "not a change"),
        ([{"kind": "list", "instId": "new", "at": NOON}], "called like NEW-USDT-SWAP"),
        ([{"kind": "list", "instId": BTC, "at": NOON}], "listed already"),
        ([{"kind": "delist", "instId": NEW, "at": NOON}], "no instrument is called"),
        ([{"kind": "resume", "instId": BTC, "at": NOON}], "is not suspended"),
        ([{"kind": "suspend", "instId": BTC, "at": NOON}] * 2, "resume it first"),
        ([{"kind": "tick", "instId": BTC, "at": NOON, "tickSz": "0.03"}], "power of ten"),
        ([{"kind": "tick", "instId": "DOGE-USDT-SWAP", "at": NOON}], "tick needs it"),
        ([{"kind": "tick", "instId": "SOL-USDT-SWAP", "at": NOON, "tickSz": "1"}], "needs at least"),
        ([{"kind": "interval", "instId": BTC, "at": NOON, "hours": 3}], "1, 2, 4 or 8"),
        ([{"kind": "interval", "instId": BTC, "at": NOON + HOUR_MS, "hours": 4}] * 2, "in order"),
        ([{"kind": "suspend", "instId": BTC, "at": NOON, "announce": NOON}], "not announced"),
        ([{"kind": "delist", "instId": BTC, "at": NOON, "announce": NOON + 1}], "comes after"),
        ([{"kind": "delist", "instId": BTC, "at": "soon"}], "ISO"),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_a_sentence(changes, complaint):
    with pytest.raises(BadChangeError, match=complaint):
        living(*changes)


def test_a_recording_can_suspend_and_delist_but_makes_nothing_up(recording):
    market = LivingMarket(load_recording(recording.folder))
    at = "2025-06-02T11:00:00Z"
    for change in read_changes(json.dumps([{"kind": "suspend", "instId": "ADA-USDT-SWAP", "at": at}]).encode()):
        market.change(change)

    assert len(market.candles("ADA-USDT-SWAP", 0, 10**15)) == 35 * 60
    for kind, more in (("list", {}), ("interval", {"hours": 4})):
        inst_id = NEW if kind == "list" else "ADA-USDT-SWAP"
        (change,) = read_changes(json.dumps({"kind": kind, "instId": inst_id, "at": at, **more}).encode())
        with pytest.raises(BadChangeError, match="only a generated market"):
            market.change(change)


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """Three swaps at a simulated minute a second; one change is known from the start."""
    path = tmp_path_factory.mktemp("events") / "events.json"
    path.write_text(json.dumps([{"kind": "interval", "instId": BTC, "at": "2026-01-10T07:55:00", "hours": 4}]))
    options = {"symbols": 3, "seed": 5, "start": "2026-01-10T07:50:00", "speed": 60}
    with Simulator.start(**options, extra=["--no-limits", "--events", str(path)]) as running:
        yield running


def change(sim, **fields):
    made = sim.post("/sim/market", fields)
    assert made.get("changes") == 1, made


def of_instrument(inst_id, **fields):
    """Return a condition: a push of `instruments` that says so."""

    def is_it(frame):
        found = [row for row in frame.get("data", ()) if row["instId"] == inst_id]
        return any(fields.items() <= row.items() for row in found)

    return is_it


SWAPS = [{"channel": "instruments", "instType": "SWAP"}]


async def test_a_listing_is_announced_empty_then_full_then_live(sim):
    at = sim.now() // MINUTE_MS * MINUTE_MS + 8 * MINUTE_MS
    async with connected(sim, "public") as socket, connected(sim, "business") as business:
        await send(socket, "subscribe", SWAPS)
        await events(socket, 1)
        change(sim, kind="list", instId=NEW, at=at)
        (announced,) = (await until(socket, of_instrument(NEW, state="preopen", ctVal="")))[-1]["data"]
        listed = {row["instId"]: row for row in sim.get(INSTRUMENTS, instType="SWAP")["data"]}[NEW]
        await send(business, "subscribe", args("candle1m", NEW))
        (early,) = await events(business, 1)
        answer = sim.get(CANDLES, instId=NEW)["code"]
        (full,) = (await until(socket, of_instrument(NEW, state="preopen")))[-1]["data"]
        await send(business, "subscribe", args("candle1m", NEW))
        (ack,) = await events(business, 1)
        await until(socket, of_instrument(NEW, state="live"))
        first = (await until(business, lambda frame: "data" in frame))[-1]["data"][0]

    assert announced == listed
    assert {name for name, value in announced.items() if value} == {"instId", "instType", "listTime", "state"}
    assert (early["code"], answer) == ("60018", "51001")
    assert float(full["ctVal"]) > 0
    assert ack["event"] == "subscribe"
    assert int(first[0]) == at
    assert int(sim.truth_candles(NEW)[0][0]) == at


async def test_a_suspension_is_pushed_and_nothing_else_until_it_is_over(sim):
    begin = sim.now() // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS
    end = begin + 3 * MINUTE_MS
    async with connected(sim, "public") as socket, connected(sim, "business") as business:
        await send(socket, "subscribe", SWAPS)
        await send(business, "subscribe", args("candle1m", ETH))
        change(sim, kind="suspend", instId=ETH, at=begin)
        change(sim, kind="resume", instId=ETH, at=end)
        await until(socket, of_instrument(ETH, state="suspend"))
        state = sim.get(INSTRUMENTS, instType="SWAP", instId=ETH)["data"][0]["state"]
        await until(socket, of_instrument(ETH, state="live"))
        pushed = await until(business, lambda frame: "data" in frame and int(frame["data"][0][0]) > end)

    assert state == "suspend"
    times = {int(frame["data"][0][0]) for frame in pushed if "data" in frame}
    assert [time for time in times if begin <= time < end] == []
    truth = [int(row[0]) for row in sim.truth_candles(ETH, begin - MINUTE_MS, end + MINUTE_MS)]
    assert truth == [begin - MINUTE_MS, end]
    assert {int(row[0]) for row in sim.get(CANDLES, instId=ETH)["data"]}.isdisjoint(range(begin, end, MINUTE_MS))


async def test_a_tick_size_is_announced_and_then_changed(sim):
    at = sim.now() // MINUTE_MS * MINUTE_MS + 3 * MINUTE_MS
    async with connected(sim, "public") as socket:
        await send(socket, "subscribe", SWAPS)
        change(sim, kind="tick", instId=BTC, at=at, tickSz="1")
        upcoming = [{"param": "tickSz", "newValue": "1", "effTime": str(at)}]
        (announced,) = (await until(socket, of_instrument(BTC, upcChg=upcoming)))[-1]["data"]
        (changed,) = (await until(socket, of_instrument(BTC, tickSz="1")))[-1]["data"]

    assert announced["tickSz"] == "0.1"
    assert changed["upcChg"] == []


async def test_a_delisting_is_announced_and_ends_everything(sim):
    inst_id = "SOL-USDT-SWAP"
    at = sim.now() // MINUTE_MS * MINUTE_MS + 3 * MINUTE_MS
    async with connected(sim, "public") as socket, connected(sim, "business") as business:
        await send(socket, "subscribe", SWAPS)
        await send(business, "subscribe", args("candle1m", inst_id))
        change(sim, kind="delist", instId=inst_id, at=at)
        await until(socket, of_instrument(inst_id, state="live", expTime=str(at)))
        await until(socket, of_instrument(inst_id, state="expired"))
        codes = {sim.get(path, instId=inst_id)["code"] for path in (CANDLES, "/api/v5/public/funding-rate")}
        await send(business, "subscribe", args("candle1m", inst_id))
        received = await until(business, lambda frame: frame.get("code") == "60018")

    assert codes == {"51001"}
    assert inst_id not in {row["instId"] for row in sim.get(INSTRUMENTS, instType="SWAP")["data"]}
    assert max(int(frame["data"][0][0]) for frame in received if "data" in frame) < at
    assert int(sim.truth_candles(inst_id, at - HOUR_MS)[-1][0]) == at - MINUTE_MS


def test_an_interval_that_changes_at_eight_is_four_hours_after_it(sim):
    eight = sim.start_ms + 10 * MINUTE_MS
    sim.wait_until(eight + MINUTE_MS)

    row = sim.get("/api/v5/public/funding-rate", instId=BTC)["data"][0]

    assert [int(row[name]) - eight for name in ("prevFundingTime", "fundingTime", "nextFundingTime")] == [
        0,
        4 * HOUR_MS,
        8 * HOUR_MS,
    ]


def test_the_past_cannot_be_changed(sim):
    refused = sim.post("/sim/market", {"kind": "suspend", "instId": BTC, "at": sim.now() - MINUTE_MS})

    assert "lies in the past" in refused["error"]


async def test_channels_of_the_exchange_are_public_and_have_types(sim):
    async with connected(sim, "business") as business, connected(sim, "public") as public:
        await send(business, "subscribe", [*SWAPS, {"channel": "status"}])
        refused = await events(business, 2)
        await send(public, "subscribe", [{"channel": "instruments", "instType": "PERP"}, *SWAPS, {"channel": "status"}])
        answers = await events(public, 3)

    assert [answer["code"] for answer in refused] == ["60018", "60018"]
    assert [answer["event"] for answer in answers] == ["error", "subscribe", "subscribe"]
