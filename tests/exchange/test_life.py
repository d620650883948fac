"""The life of instruments: as the market has it, and as the real process shows it."""

import json
from decimal import Decimal

import pytest

from services.simulator.engine.life import BadChangeError, LivingMarket, read_changes
from services.simulator.engine.market import DAY_MS, DETAILS_MS, HOUR_MS, MINUTE_MS
from services.simulator.engine.replay import load_recording
from services.simulator.engine.synthetic import SyntheticMarket
from services.simulator.okx.spelling import candle_row, instrument_row
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


DELISTED, AGAIN = NOON + 30 * MINUTE_MS, NOON + 60 * MINUTE_MS
TWO_LIVES = (
    {"kind": "delist", "instId": BTC, "at": DELISTED},
    {"kind": "list", "instId": BTC, "at": AGAIN, "ctVal": "1000"},
)


TINY = {"kind": "list", "instId": NEW, "at": NOON, "ctVal": "0.000000000001"}
REBASE = {"kind": "rebase", "instId": BTC, "at": NOON, "ctVal": "0.1"}


def spelled(market, inst_id, begin, end):
    """Return the rows of [begin, end) as the exchange gives them."""
    instrument = market.instruments[inst_id]
    return [candle_row(row, instrument, confirmed=True) for row in market.candles(inst_id, begin, end)]


def test_a_name_that_is_listed_again_is_another_instrument_and_the_first_one_stays_what_it_was():
    once, twice = living(TWO_LIVES[0]), living(*TWO_LIVES)
    days = NOON - DAY_MS, NOON + 2 * DAY_MS

    first, both = spelled(once, BTC, *days), spelled(twice, BTC, *days)
    second = both[len(first) :]

    assert both[: len(first)] == first
    assert [int(row[0]) for row in second] == list(range(AGAIN, days[1], MINUTE_MS))
    assert float(first[-1][4]) > 1_000 * float(second[0][1])
    assert all(Decimal(row[6]) == 1000 * Decimal(row[5]) for row in second)
    settled = twice.settlements(BTC, days[0], DELISTED)
    assert settled == once.settlements(BTC, *days)
    assert min(row.funding_ms for row in twice.settlements(BTC, DELISTED, days[1])) > AGAIN
    assert twice.funding_period(BTC, DELISTED - 1).upcoming_rate == 0
    assert twice.funding_period(BTC, AGAIN + 1).settled is None


def test_pages_reach_over_the_time_between_two_lives():
    market = living(*TWO_LIVES)

    page = [row.open_ms for row in market.newest_candles(BTC, 0, AGAIN + 5 * MINUTE_MS, 10)]

    assert page == [DELISTED - after * MINUTE_MS for after in range(5, 0, -1)] + [
        AGAIN + after * MINUTE_MS for after in range(5)
    ]


def test_a_row_of_instruments_is_of_the_life_of_its_time():
    instrument = living(*TWO_LIVES).instruments[BTC]
    shown = [
        (row["state"], row["ctVal"], row["listTime"] == str(AGAIN), row["expTime"])
        for at in (DELISTED - 1, DELISTED, AGAIN - DETAILS_MS - 1, AGAIN - 1, AGAIN)
        for row in [instrument_row(instrument, at)]
    ]

    assert shown == [
        ("live", "0.01", False, str(DELISTED)),
        ("preopen", "", True, ""),
        ("preopen", "", True, ""),
        ("preopen", "1000", True, ""),
        ("live", "1000", True, ""),
    ]
    assert {DELISTED, AGAIN - DETAILS_MS, AGAIN} <= {*instrument.turning_points()}
    assert not instrument.is_served(DELISTED)


def test_what_happens_to_a_second_life_leaves_the_first_one_alone():
    stopped = AGAIN + 10 * MINUTE_MS
    before = living(*TWO_LIVES)
    market = living(
        *TWO_LIVES,
        {"kind": "suspend", "instId": BTC, "at": stopped},
        {"kind": "resume", "instId": BTC, "at": stopped + 10 * MINUTE_MS},
        {"kind": "interval", "instId": BTC, "at": AGAIN, "hours": 1},
        {"kind": "delist", "instId": BTC, "at": AGAIN + 4 * HOUR_MS},
        {"kind": "list", "instId": BTC, "at": AGAIN + 5 * HOUR_MS},
    )

    assert market.candles(BTC, NOON - DAY_MS, DELISTED) == before.candles(BTC, NOON - DAY_MS, DELISTED)
    assert market.settlements(BTC, NOON - DAY_MS, AGAIN) == before.settlements(BTC, NOON - DAY_MS, AGAIN)
    assert len(minutes(market, BTC, AGAIN, AGAIN + 6 * HOUR_MS)) == 230 + 60
    third = market.candles(BTC, AGAIN + 5 * HOUR_MS, AGAIN + 6 * HOUR_MS)
    assert market.newest_candles(BTC, 0, AGAIN + 6 * HOUR_MS, 60) == third
    assert [row.close for row in third] != [row.close for row in before.candles(BTC, AGAIN, AGAIN + HOUR_MS)]


@pytest.mark.parametrize(("value", "factor"), [("0.00001", 1000), ("10", "0.001")])
def test_a_rebase_multiplies_prices_divides_coins_and_leaves_contracts_and_turnover(value, factor):
    until = NOON + 20 * MINUTE_MS
    plain = living()
    market = living({"kind": "rebase", "instId": BTC, "at": NOON, "until": until, "ctVal": value})
    instrument = market.instruments[BTC]

    assert market.candles(BTC, NOON - DAY_MS, NOON) == plain.candles(BTC, NOON - DAY_MS, NOON)
    assert minutes(market, BTC, NOON, until) == []
    assert market.settlements(BTC, NOON, NOON + DAY_MS) == plain.settlements(BTC, NOON, NOON + DAY_MS)
    old, new = (spelled(one, BTC, until, until + DAY_MS) for one in (plain, market))
    exact = Decimal(factor)
    for before, after in zip(old, new, strict=True):
        assert [Decimal(price) for price in after[1:5]] == [Decimal(price) * exact for price in before[1:5]]
        assert Decimal(after[6]) * exact == Decimal(before[6])
        assert (after[0], after[5], after[7]) == (before[0], before[5], before[7])
    shown = [instrument_row(instrument, at) for at in (NOON - 1, NOON, until - 1, until)]
    assert [row["state"] for row in shown] == ["live", "rebase", "rebase", "live"]
    assert [row["ctVal"] for row in shown] == ["0.01", "0.01", "0.01", value]
    assert len({row["listTime"] for row in shown}) == 1


def test_a_rebase_without_an_end_lasts_until_trading_is_resumed():
    rebase = {"kind": "rebase", "instId": BTC, "at": NOON, "ctVal": "0.1"}
    waiting = living(rebase)
    market = living(rebase, {"kind": "resume", "instId": BTC, "at": NOON + 90_000})

    assert waiting.instruments[BTC].state(NOON + DAY_MS) == "rebase"
    assert minutes(waiting, BTC, NOON - MINUTE_MS, NOON + DAY_MS) == [NOON - MINUTE_MS]
    assert minutes(market, BTC, NOON, NOON + 4 * MINUTE_MS) == [NOON + 2 * MINUTE_MS, NOON + 3 * MINUTE_MS]
    assert market.instruments[BTC].state(NOON + 2 * MINUTE_MS - 1) == "rebase"


def test_a_tick_size_that_was_announced_before_a_rebase_is_one_of_the_new_unit():
    market = living(
        {"kind": "tick", "instId": BTC, "at": NOON + HOUR_MS, "tickSz": "1"},
        {"kind": "rebase", "instId": BTC, "at": NOON, "until": NOON + MINUTE_MS, "ctVal": "1"},
    )
    rows = market.candles(BTC, NOON + MINUTE_MS, NOON + 2 * HOUR_MS)
    shown = [instrument_row(market.instruments[BTC], at)["tickSz"] for at in (NOON, NOON + MINUTE_MS, NOON + HOUR_MS)]

    assert shown == ["0.1", "0.001", "0.01"]
    assert any(round(row.close, 3) != round(row.close, 2) for row in rows[:59])
    assert all(price == round(price, 2) for row in rows[59:] for price in row[1:5])


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
        ([{"kind": "list", "instId": NEW, "at": NOON, "ctVal": "0.03"}], "`ctVal` must be a power of ten"),
        ([{"kind": "tick", "instId": BTC, "at": NOON, "tickSz": "1", "ctVal": "1"}], "belongs to list and rebase"),
        ([{"kind": "suspend", "instId": BTC, "at": NOON, "until": NOON + 1}], "belongs to rebase"),
        ([TWO_LIVES[0], {"kind": "list", "instId": BTC, "at": DELISTED + MINUTE_MS}], "5 minutes later at least"),
        ([TWO_LIVES[0], TWO_LIVES[1] | {"announce": DELISTED - 1}], "still listed then"),
        ([*TWO_LIVES, TWO_LIVES[1] | {"at": AGAIN + HOUR_MS}], "listed already"),
        ([*TWO_LIVES, {"kind": "suspend", "instId": BTC, "at": NOON}], "another contract from"),
        ([{"kind": "rebase", "instId": BTC, "at": NOON}], "rebase needs `ctVal`"),
        ([REBASE | {"until": NOON}], "`until` does not come after"),
        ([REBASE | {"announce": NOON}], "not announced"),
        ([REBASE | {"ctVal": "0.01"}], "is 0.01 already"),
        ([REBASE | {"ctVal": "0.00000000001", "instId": "BTC-USD-SWAP"}], "is inverse"),
        ([TINY, REBASE | {"instId": NEW, "at": NOON + HOUR_MS, "ctVal": "1000000000000"}], "more than 16 decimals"),
        ([REBASE] * 2, "resume it first"),
        ([TWO_LIVES[0], REBASE | {"at": DELISTED}], "delisted by then"),
        ([REBASE | {"until": NOON + HOUR_MS}, {"kind": "delist", "instId": BTC, "at": NOON}], "another contract from"),
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
    for kind, more in (("list", {}), ("interval", {"hours": 4}), ("rebase", {"ctVal": "1"})):
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


@pytest.mark.proof
async def test_a_delisted_name_is_announced_and_traded_again_with_figures_of_its_own(sim):
    now = sim.now() // MINUTE_MS * MINUTE_MS
    delisted, at = now + 2 * MINUTE_MS, now + 9 * MINUTE_MS
    async with connected(sim, "public") as socket, connected(sim, "business") as business:
        await send(socket, "subscribe", SWAPS)
        await events(socket, 1)
        change(sim, kind="list", instId="TWICE-USDT-SWAP", at=now + MINUTE_MS, ctVal="10")
        change(sim, kind="delist", instId="TWICE-USDT-SWAP", at=delisted)
        change(sim, kind="list", instId="TWICE-USDT-SWAP", at=at, announce=delisted + MINUTE_MS, ctVal="0.1")
        await until(socket, of_instrument("TWICE-USDT-SWAP", state="expired", ctVal="10"))
        codes = {sim.get(path, instId="TWICE-USDT-SWAP")["code"] for path in (CANDLES, "/api/v5/public/funding-rate")}
        await until(socket, of_instrument("TWICE-USDT-SWAP", state="preopen", ctVal="", listTime=str(at)))
        await until(socket, of_instrument("TWICE-USDT-SWAP", state="preopen", ctVal="0.1"))
        await send(business, "subscribe", args("candle1m", "TWICE-USDT-SWAP"))
        await until(socket, of_instrument("TWICE-USDT-SWAP", state="live", ctVal="0.1"))
        first = (await until(business, lambda frame: "data" in frame))[-1]["data"][0]
        sim.wait_until(at + 2 * MINUTE_MS)

    assert codes == {"51001"}
    assert int(first[0]) == at
    truth = sim.truth_candles("TWICE-USDT-SWAP", end=at + MINUTE_MS)
    assert [int(row[0]) for row in truth] == [delisted - MINUTE_MS, at]
    assert [round(float(row[6]) / float(row[5]), 9) for row in truth] == [10, 0.1]
    assert sim.get("/api/v5/market/history-candles", instId="TWICE-USDT-SWAP")["data"][::-1][:2] == truth


def closed_in(frame):
    """Return the closed candles of a frame: open in Unix ms → row. One may close after the next was pushed open."""
    return {int(row[0]): row for row in frame.get("data", ()) if row[-1] == "1"}


async def test_a_rebase_is_pushed_and_closes_in_its_new_unit(sim):
    begin = sim.now() // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS
    end = begin + 3 * MINUTE_MS
    async with connected(sim, "public") as socket, connected(sim, "business") as business:
        await send(socket, "subscribe", SWAPS)
        await send(business, "subscribe", args("candle1m", ETH))
        (before,) = sim.get(INSTRUMENTS, instType="SWAP", instId=ETH)["data"]
        change(sim, kind="rebase", instId=ETH, at=begin, until=end, ctVal="0.001")
        await until(socket, of_instrument(ETH, state="rebase", ctVal="0.1"))
        await until(socket, of_instrument(ETH, state="live", ctVal="0.001"))
        pushed = await until(business, lambda frame: end in closed_in(frame))

    closed = {opened: row for frame in pushed for opened, row in closed_in(frame).items()}
    truth = {int(row[0]): row for row in sim.truth_candles(ETH, begin - MINUTE_MS, end + MINUTE_MS)}
    assert list(truth) == [begin - MINUTE_MS, end]
    assert closed[end] == truth[end]
    assert sim.get(CANDLES, instId=ETH, after=end + 1)["data"][:2] == [truth[end], truth[begin - MINUTE_MS]]
    assert 90 < float(truth[end][1]) / float(truth[begin - MINUTE_MS][4]) < 110
    assert before["ctVal"] == "0.1"


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
