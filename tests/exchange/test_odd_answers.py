"""Odd rows, thin lists, a clock that lies and answers that are too much, as a client of the real process meets them."""

import asyncio
import json
import urllib.error
import urllib.request
import zlib

import pytest

from tests.exchange.wire import args, connected, send, until
from tests.support.simulator import Simulator

MINUTE = 60_000
BTC, ETH, SOL = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP"
CANDLES, HISTORY = "/api/v5/market/candles", "/api/v5/market/history-candles"
FUNDING, SETTLED = "/api/v5/public/funding-rate", "/api/v5/public/funding-rate-history"
INSTRUMENTS, TIME, STATUS = "/api/v5/public/instruments", "/api/v5/public/time", "/api/v5/system/status"


@pytest.fixture(scope="module")
def sim():
    """Ten swaps; a simulated minute takes a second."""
    with Simulator.start(symbols=10, seed=5, start="2026-01-10T07:50:00", speed=60, extra=["--no-limits"]) as running:
        yield running


def arm(sim, kind, **fields):
    armed = sim.fault(kind, **fields)
    assert armed.get("armed") == 1, armed


def named(rows, inst_id):
    return [row for row in rows if isinstance(row, dict) and row.get("instId") == inst_id]


async def pushed(sim, path, channel, inst_id, is_wanted):
    """Subscribe, and return the rows of the first push that is wanted and of the one after it."""
    async with connected(sim, path) as socket:
        await send(socket, "subscribe", args(channel, inst_id))
        first = (await until(socket, is_wanted))[-1]
        return first["data"]


# Odd rows


LISTS = {
    "public/instruments": (INSTRUMENTS, {"instType": "SWAP"}),
    "public/funding-rate": (FUNDING, {"instId": "ANY"}),
    "public/funding-rate-history": (SETTLED, {"instId": BTC}),
    "market/candles": (CANDLES, {"instId": BTC, "limit": 20}),
    "market/history-candles": (HISTORY, {"instId": BTC, "limit": 20}),
    "public/time": (TIME, {}),
}


@pytest.mark.parametrize("endpoint", LISTS)
@pytest.mark.parametrize("row", [[5], "row", 5, None, {}, True])
def test_a_row_of_any_list_is_no_row_once(sim, endpoint, row):
    path, params = LISTS[endpoint]
    arm(sim, "odd_value", where="rest", endpoint=endpoint, value=row)

    odd, right = sim.get(path, **params), sim.get(path, **params)

    assert odd["code"] == right["code"] == "0"
    assert odd["data"][0] == row
    assert type(right["data"][0]) is (list if "candles" in endpoint else dict)
    assert len(odd["data"]) == len(right["data"])


@pytest.mark.parametrize(
    ("endpoint", "field", "value"),
    [
        ("public/instruments", "listTime", "99999999999999999"),
        ("public/instruments", "listTime", "2026-10-01T00:00:00Z"),
        ("public/instruments", "listTime", "TBD"),
        ("public/instruments", "instId", None),
        ("public/instruments", "instId", 5),
        ("public/funding-rate", "fundingTime", "17898336000000000"),
        ("public/funding-rate", "prevFundingTime", "0"),
        ("public/funding-rate", "fundingRate", "0.99"),
        ("public/funding-rate-history", "realizedRate", "n/a"),
        ("public/funding-rate-history", "fundingTime", "0"),
        ("public/time", "ts", 1.5),
    ],
)
def test_a_field_of_any_list_has_any_value_as_often_as_ordered(sim, endpoint, field, value):
    path, params = LISTS[endpoint]
    arm(sim, "odd_value", where="rest", endpoint=endpoint, field=field, value=value, count=2)

    *odd, right = (sim.get(path, **params)["data"] for _ in range(3))

    assert [rows[0][field] for rows in odd] == [value, value]
    assert right[0][field] != value
    assert odd[0][0].keys() == right[0].keys()


def test_a_field_is_missing_from_the_row_of_one_instrument_and_all_others_stay(sim):
    before = sim.get(INSTRUMENTS, instType="SWAP")["data"]
    arm(sim, "odd_value", where="rest", endpoint="public/instruments", row=ETH, field="instId")

    odd = sim.get(INSTRUMENTS, instType="SWAP")["data"]

    place = before.index(named(before, ETH)[0])
    assert odd[place] == {name: value for name, value in before[place].items() if name != "instId"}
    assert [row for row in odd if row is not odd[place]] == [row for row in before if row is not before[place]]


def test_rows_are_named_by_place_by_open_time_and_all_at_once(sim):
    after = sim.now() // MINUTE * MINUTE
    (right,) = (sim.get(CANDLES, instId=BTC, after=after, limit=5)["data"],)
    arm(sim, "odd_value", where="rest", endpoint="market/candles", row=-1, value=None)
    by_place = sim.get(CANDLES, instId=BTC, after=after, limit=5)["data"]
    arm(sim, "odd_value", where="rest", endpoint="market/candles", row=right[2][0], field=1, value="1e39")
    by_time = sim.get(CANDLES, instId=BTC, after=after, limit=5)["data"]
    arm(sim, "odd_value", where="rest", endpoint="market/candles", row="*", field=8)
    whole = sim.get(CANDLES, instId=BTC, after=after, limit=5)["data"]

    assert by_place == [*right[:-1], None]
    assert by_time == [*right[:2], [right[2][0], "1e39", *right[2][2:]], *right[3:]]
    assert whole == [row[:8] for row in right]


def test_an_odd_row_is_inserted_in_front_of_the_right_one_and_into_a_list_without_rows(sim):
    right = sim.get(FUNDING, instId="ANY")["data"]
    arm(
        sim,
        "odd_value",
        where="rest",
        endpoint="public/funding-rate",
        variant="inserted",
        row=ETH,
        field="fundingRate",
        value="0.99",
    )
    odd = named(sim.get(FUNDING, instId="ANY")["data"], ETH)
    status = {"state": "scheduled", "begin": "99999999999999999", "serviceType": "5", "env": "1"}
    arm(sim, "odd_value", where="rest", endpoint="system/status", variant="inserted", value=status)
    listed = sim.get(STATUS)["data"]

    assert len(named(right, ETH)) == 1
    assert [row["fundingRate"] == "0.99" for row in odd] == [True, False]
    assert odd[1].keys() == named(right, ETH)[0].keys()
    assert listed == [status]


@pytest.mark.parametrize(
    ("field", "value"), [("nextFundingRate", None), ("prevFundingTime", "0"), ("fundingTime", 17), ("instId", [])]
)
async def test_a_funding_push_has_an_odd_value_in_place_of_the_right_one(sim, field, value):
    arm(sim, "odd_value", push="funding", instId=BTC, field=field, value=value)

    odd, right = [await pushed(sim, "public", "funding-rate", BTC, lambda frame: "data" in frame) for _ in range(2)]

    assert odd[0][field] == value
    assert right[0][field] not in (value, None)
    assert odd[0].keys() == right[0].keys()


async def test_a_funding_push_lacks_a_field(sim):
    arm(sim, "odd_value", push="funding", instId=BTC, field="nextFundingTime")

    odd, right = [await pushed(sim, "public", "funding-rate", BTC, lambda frame: "data" in frame) for _ in range(2)]

    assert right[0].keys() - odd[0].keys() == {"nextFundingTime"}


@pytest.mark.parametrize("row", [[5], "row", None, 7])
async def test_only_the_push_that_closes_a_minute_is_odd(sim, row):
    async with connected(sim, "business") as socket:
        arm(sim, "odd_value", push="confirm", instId=SOL, value=row)
        await send(socket, "subscribe", args("candle1m", SOL))
        received = await until(socket, lambda frame: frame.get("data") == [row])
        received += await until(socket, lambda frame: "data" in frame and frame["data"][0][8] == "1")

    rows = [frame["data"][0] for frame in received if "data" in frame]
    assert rows.count(row) == 1
    closed = rows[-1]
    assert [closed] == sim.truth_candles(SOL, int(closed[0]), int(closed[0]) + 1)


@pytest.mark.parametrize(("variant", "confirms"), [("closed_last", ["0", "1"]), ("closed_first", ["1", "0"])])
async def test_a_frame_holds_a_forming_and_the_closed_row_of_a_minute(sim, variant, confirms):
    arm(sim, "two_rows", variant=variant, instId=BTC)

    rows = await pushed(sim, "business", "candle1m", BTC, lambda frame: len(frame.get("data", [])) > 1)

    closed, forming = sorted(rows, key=lambda row: row[8], reverse=True)
    assert [row[8] for row in rows] == confirms
    assert forming[0] == closed[0]
    assert forming[1:8] != closed[1:8]
    assert [closed] == sim.truth_candles(BTC, int(closed[0]), int(closed[0]) + 1)


# Thin lists


@pytest.mark.parametrize(
    ("endpoint", "params"), [(INSTRUMENTS, {"instType": "SWAP"}), (FUNDING, {"instId": "ANY"})], ids=["list", "rates"]
)
def test_a_list_is_empty_truncated_lacks_rows_or_has_them_twice(sim, endpoint, params):
    def inst_ids():
        return [row["instId"] for row in sim.get(endpoint, **params)["data"]]

    right = inst_ids()
    last = endpoint.removeprefix("/api/v5/")
    seen = {}
    for variant, fields in {
        "empty": {},
        "truncated": {"share": 0.4},
        "lacks": {"row": [ETH, SOL], "count": 2},
        "doubled": {"row": BTC},
    }.items():
        arm(sim, "thin_list", endpoint=last, variant=variant, **fields)
        seen[variant] = inst_ids()
    again = inst_ids()

    assert seen["empty"] == []
    assert seen["truncated"] == right[: int(len(right) * 0.4)]
    assert seen["lacks"] == [inst_id for inst_id in right if inst_id not in (ETH, SOL)]
    # The second of the two answers that lack rows is the one that has another twice.
    assert sorted(seen["doubled"]) == sorted([*seen["lacks"], BTC])
    assert again == right


def test_a_list_is_thin_as_long_as_ordered_and_an_answer_for_one_instrument_never(sim):
    arm(sim, "thin_list", endpoint="public/funding-rate", variant="lacks", row=BTC, duration=120)

    during = sim.get(FUNDING, instId="ANY")["data"]
    alone = sim.get(FUNDING, instId=BTC)["data"]
    sim.wait_until(sim.now() + 2 * MINUTE)

    assert named(during, BTC) == []
    assert len(alone) == 1
    assert len(named(sim.get(FUNDING, instId="ANY")["data"], BTC)) == 1


# The clock


@pytest.mark.parametrize(("variant", "rows"), [("empty", []), ("blank", [{"ts": ""}]), ("renamed", [{"time": "1"}])])
def test_the_time_has_no_row_or_none_that_is_a_time(sim, variant, rows):
    arm(sim, "odd_time", variant=variant)

    assert sim.get(TIME) == {"code": "0", "data": rows, "msg": ""}
    assert int(sim.get(TIME)["data"][0]["ts"]) > sim.start_ms


@pytest.mark.parametrize("seconds", [6 * 3600, 200 * 86_400, -6 * 3600])
def test_the_time_jumps_for_a_while_and_every_row_stays_true(sim, seconds):
    arm(sim, "odd_time", variant="jump", seconds=seconds, duration=60)

    said, now = int(sim.get(TIME)["data"][0]["ts"]), sim.now()
    funding = int(sim.get(FUNDING, instId=BTC)["data"][0]["ts"])
    newest = int(sim.get(CANDLES, instId=BTC, limit=1)["data"][0][0])
    sim.wait_until(now + 70_000)
    again = int(sim.get(TIME)["data"][0]["ts"])

    assert abs(said - now - seconds * 1000) < 30_000
    assert abs(funding - now) < 30_000
    assert abs(newest - now) < 2 * MINUTE
    assert abs(again - sim.now()) < 30_000


# Too much


def raw(sim, path):
    """Ask without following and without unpacking; returns status, headers, body."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=sim.ssl_context))
    try:
        with opener.open(sim.rest_url + path, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_an_answer_is_huge_as_it_is_or_packed_into_few_bytes(sim):
    size = 3_000_000
    arm(sim, "huge_answer", endpoint="public/time", size=size)
    _, _, plain = raw(sim, TIME)
    arm(sim, "huge_answer", endpoint="public/time", size=size, variant="packed")
    _, headers, packed = raw(sim, TIME)

    unpacked = zlib.decompress(packed, 16 + zlib.MAX_WBITS)
    assert headers["Content-Encoding"] == "gzip"
    assert len(packed) < size / 100
    assert len(plain) == len(unpacked) == size
    assert all(json.loads(body)["code"] == "0" and json.loads(body)["data"][0]["ts"] for body in (plain, unpacked))
    assert sim.get(TIME).keys() == {"code", "data", "msg"}


async def test_a_frame_larger_than_what_a_client_may_leave_unread_arrives_whole_and_the_connection_stays(sim):
    size = 40_000_000
    async with connected(sim, "business", max_size=2 * size) as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await asyncio.to_thread(arm, sim, "huge_frame", instId=BTC, size=size)
        async with asyncio.timeout(30):
            while len(text := await socket.recv()) < size:
                pass
            following = json.loads(await socket.recv())
    huge = json.loads(text)

    assert len(text) == size
    assert huge["data"] == following["data"]
    assert huge.keys() - following.keys() == {"padding"}


def test_an_answer_leads_to_another_host(sim):
    arm(sim, "redirect", endpoint="public/time", target="https://127.0.0.1:1", status=307)
    status, headers, _ = raw(sim, TIME)
    arm(sim, "redirect", endpoint="public/time")
    other = raw(sim, TIME)

    assert (status, headers["Location"]) == (307, f"https://127.0.0.1:1{TIME}")
    assert (other[0], other[1]["Location"]) == (302, f"https://elsewhere.invalid{TIME}")
    assert sim.get(TIME)["code"] == "0"


@pytest.mark.parametrize("path", [CANDLES, HISTORY, SETTLED])
def test_a_history_ignores_its_cursor_as_often_as_ordered(sim, path):
    newest = sim.get(path, instId=BTC, limit=3)["data"]
    time_of = (lambda row: int(row["fundingTime"])) if path == SETTLED else lambda row: int(row[0])
    oldest = time_of(newest[-1])
    arm(sim, "stuck_cursor", endpoint=path.removeprefix("/api/v5/"), instId=BTC, count=2)

    *stuck, right = (sim.get(path, instId=BTC, limit=3, after=oldest)["data"] for _ in range(3))

    assert [time_of(page[-1]) >= oldest for page in stuck] == [True, True]
    assert [time_of(row) < oldest for row in right] == [True] * 3


def test_bad_rows_with_large_values_come_in_an_answer_in_front_of_the_right_ones(sim):
    right = sim.get(FUNDING, instId="ANY")["data"]
    arm(sim, "flood", where="rest", endpoint="public/funding-rate", size=20_000)

    rows = sim.get(FUNDING, instId="ANY")["data"]

    assert [len(row["fundingRate"]) for row in rows[:50]] == [20_000] * 50
    assert len({row["fundingRate"] for row in rows[:50]}) == 50
    assert [row["instId"] for row in rows[50:]] == [row["instId"] for row in right]


async def test_bad_rows_with_large_values_are_pushed_in_front_of_the_right_one(sim):
    async with connected(sim, "business") as socket:
        await send(socket, "subscribe", args("candle1m", BTC))
        await asyncio.to_thread(arm, sim, "flood", push="confirm", instId=BTC, size=5_000)
        received = await until(socket, lambda frame: "data" in frame and frame["data"][0][8] == "1" and is_short(frame))

    bad = [frame["data"][0] for frame in received if "data" in frame and not is_short(frame)]
    closed = received[-1]["data"][0]
    assert [(row[0], len(row[4])) for row in bad] == [(closed[0], 5_000)] * 50
    assert len({row[4] for row in bad}) == 50
    assert [closed] == sim.truth_candles(BTC, int(closed[0]), int(closed[0]) + 1)


def is_short(frame):
    return max(map(len, frame["data"][0])) < 100


def test_what_was_odd_is_in_the_record(sim):
    arm(sim, "odd_value", where="rest", endpoint="public/time", field="ts", value=None)
    sim.get(TIME)

    entry = sim.faults()[-1]

    assert (entry["kind"], entry["endpoint"], entry["field"], entry["value"]) == ("odd_value", TIME, "ts", "null")


def test_faults_add_up_whatever_is_made_odd(sim):
    """A row that one fault has made odd meets all the others: the simulator goes on."""
    for kind, fields in (
        ("odd_value", {"value": None, "row": "*"}),
        ("impossible", {}),
        ("empty_fields", {}),
        ("unknown_fields", {}),
        ("flood", {"size": 10}),
    ):
        arm(sim, kind, where="rest", duration=30, **fields)
    for kind, fields in (
        ("empty", {"variant": "holes"}),
        ("thin_list", {"variant": "doubled", "row": BTC}),
        ("huge_answer", {"variant": "packed", "size": 10_000}),
        ("huge_answer", {"size": 20_000}),
    ):
        arm(sim, kind, duration=30, **fields)

    answers = [raw(sim, f"{path}?instId=ANY&instType=SWAP") for path in (INSTRUMENTS, FUNDING, TIME)]
    answers += [raw(sim, f"{path}?instId={BTC}") for path in (CANDLES, HISTORY, SETTLED)]
    sim.wait_until(sim.now() + 35_000)

    assert {status for status, _, _ in answers} == {200}
    assert {zlib.decompress(body, 16 + zlib.MAX_WBITS)[:1] for _, _, body in answers} == {b"{"}


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"kind": "odd_value", "where": "rest"}, "odd_value needs `field` or `value`"),
        ({"kind": "odd_value", "where": "rest", "value": 1, "push": "funding"}, "does not take `push`"),
        ({"kind": "odd_value", "value": 1, "endpoint": "public/time"}, "does not take `endpoint`"),
        ({"kind": "odd_time", "variant": "jump"}, "odd_time needs `seconds`"),
        ({"kind": "odd_time", "variant": "jump", "seconds": 1e9}, "`seconds` must be"),
        ({"kind": "thin_list", "share": 1.5}, "`share` must be"),
        ({"kind": "huge_answer", "size": 0}, "`size` must be"),
        ({"kind": "redirect", "status": 503}, "`status` must be a redirection"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(sim, fault, complaint):
    assert complaint in sim.fault(**fault)["error"]
