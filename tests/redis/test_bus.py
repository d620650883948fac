"""The bus on a real Redis."""

from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
import redis.asyncio as redis

from shared.bus import streams
from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.bus.heartbeat import Cadence, Heartbeat
from shared.bus.streams import CAPS, GROUPS
from shared.datasets.ledger import CANDLES
from shared.datasets.registry import UndecodableError
from shared.grid import DAY
from shared.ledger.day import DayLedger
from shared.ledger.minutes import FULL_DAY
from shared.ledger.replica import LedgerCopy
from tests.support.builders import (
    DAY_0,
    MIDNIGHT,
    a_candle,
    a_definition,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
)

NOW = datetime.now(UTC)


@pytest.fixture
async def raw(redis_url):
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def deliveries(bus, batches=1, *, streams=("candles",), group="writer", consumer="one", count=100):
    """Return what a consumer gets in its first batches, quiet ones included."""
    reading = bus.consume(streams, group, consumer=consumer, count=count, block_ms=20)
    found = [await anext(reading) for _ in range(batches)]
    await reading.aclose()
    return found


def symbols(entries):
    return [entry.event().symbol for entry in entries]


async def test_every_kind_of_event_travels_on_its_stream(bus):
    events = [a_candle(), a_funding_rate(), a_prediction(), a_ranking("BTC_USDT", others=["ETH_USDT"])]

    await bus.publish(events)

    streams = tuple(stream for stream, groups in GROUPS.items() if "writer" in groups)
    (entries,) = await deliveries(bus, streams=streams)
    assert sorted(map(repr, (entry.event() for entry in entries))) == sorted(map(repr, events))


@pytest.mark.invariant(2)
async def test_a_consumer_that_starts_last_misses_nothing(bus):
    """Groups are created at 0, not at $."""
    await bus.publish([a_candle("EARLY_USDT")])

    (entries,) = await deliveries(bus)

    assert symbols(entries) == ["EARLY_USDT"]


@pytest.mark.invariant(3)
async def test_what_was_not_acknowledged_comes_again_before_anything_newer(bus):
    """Invariant 3: a consumer that died finds its own pending entries first."""
    await bus.publish([a_candle("A_USDT"), a_candle("B_USDT")])
    await deliveries(bus)
    await bus.publish([a_candle("C_USDT")])

    again, newer = await deliveries(bus, batches=2)

    assert symbols(again) == ["A_USDT", "B_USDT"]
    assert symbols(newer) == ["C_USDT"]


async def test_own_pending_entries_come_page_by_page_in_order(bus):
    await bus.publish([a_candle(f"S{number}_USDT") for number in range(25)])
    await deliveries(bus, count=1000)

    pages = await deliveries(bus, batches=3, count=10)

    assert [name for page in pages for name in symbols(page)] == [f"S{number}_USDT" for number in range(25)]


async def test_what_a_dead_consumer_held_is_claimed_by_another(bus, monkeypatch):
    monkeypatch.setattr(streams, "CLAIM_IDLE_MS", 1)
    await bus.publish([a_candle(f"S{number}_USDT") for number in range(25)])
    await deliveries(bus, consumer="dead", count=1000)

    pages = await deliveries(bus, batches=3, consumer="alive", count=10)

    assert [name for page in pages for name in symbols(page)] == [f"S{number}_USDT" for number in range(25)]


async def test_acknowledged_entries_never_come_again(bus, monkeypatch):
    monkeypatch.setattr(streams, "CLAIM_IDLE_MS", 0)
    await bus.publish([a_candle(f"S{number}_USDT") for number in range(2500)])
    (entries,) = await deliveries(bus, count=5000)

    await bus.acknowledge("writer", entries)

    assert await deliveries(bus) == [[]]
    assert await deliveries(bus, consumer="two") == [[]]


@pytest.mark.invariant(11)
async def test_a_stream_is_trimmed_behind_its_slowest_group_and_never_before(bus, raw, monkeypatch):
    """Invariant 11."""
    monkeypatch.setitem(CAPS, "universe", 2000)
    await bus.create_groups()
    for number in range(500):
        await bus.publish([a_ranking("BTC_USDT", ranked_time=minute(number))])
    (fast,) = await deliveries(bus, streams=("universe",), group="writer", count=1000)
    await bus.acknowledge("writer", fast)

    await bus.trim("universe")
    assert await bus.stream_length("universe") == 500

    (slow,) = await deliveries(bus, streams=("universe",), group="collector", count=300)
    await bus.acknowledge("collector", slow[:250])
    await bus.trim("universe")

    kept = [entry_id for entry_id, _ in await raw.xrange("universe")]
    assert {entry.id for entry in slow[250:]} | {entry.id for entry in fast[300:]} <= set(kept)
    assert len(kept) < 500


@pytest.mark.invariant(11)
async def test_nobody_reading_does_not_fill_redis_for_ever(bus, monkeypatch):
    """Invariant 11: a hard cap per stream."""
    monkeypatch.setitem(CAPS, "candles", 1000)

    for _ in range(30):
        await bus.publish([a_candle()] * 100)

    assert await bus.stream_length("candles") < 1300


async def test_a_pending_entry_that_the_cap_removed_comes_back_empty(bus, raw):
    await bus.publish([a_candle()])
    (entries,) = await deliveries(bus)
    await raw.xtrim("candles", maxlen=0)

    (again,) = await deliveries(bus)

    assert [(entry.id, entry.fields) for entry in again] == [(entries[0].id, {})]


@pytest.mark.invariant(12)
async def test_bad_input_has_an_address(bus):
    """Invariant 12."""
    await bus.dead_letter("collector:candles", ["1", object, b"raw"], "no number")
    await bus.dead_letter("writer:candles:1-0", {"event": "gossip"}, "event: none of candle")

    count, letters = await bus.dead_letters()

    assert count == 2
    assert [letter["origin"] for letter in letters] == ["writer:candles:1-0", "collector:candles"]
    assert letters[1]["error"] == "no number"
    assert {"payload", "at", "id"} <= set(letters[0])


async def test_lag_shows_what_is_waiting_what_is_held_and_how_old_it_is(bus):
    await bus.publish([a_candle(f"S{number}_USDT") for number in range(5)])
    (entries,) = await deliveries(bus, count=2)

    lags = {(lag.stream, lag.group): lag for lag in await bus.lags()}

    lag = lags["candles", "writer"]
    assert (lag.length, lag.lag, lag.pending, lag.consumers) == (5, 3, 2, 1)
    assert 0 <= lag.oldest_age_seconds < 20
    assert lag.oldest_ms == int(entries[0].id.split("-")[0])
    assert lags["funding", "writer"].oldest_ms is None


async def test_a_ranking_becomes_the_universe_and_an_entry_at_once(bus):
    ranking = a_ranking("BTC_USDT", "ETH_USDT", others=["SOL_USDT"])

    await bus.set_universe(ranking)

    current = await bus.universe()
    assert current.members == ("BTC_USDT", "ETH_USDT")
    assert current.ranked_time == MIDNIGHT
    assert current.ranks == ()
    assert await bus.last_ranking() == ranking
    (entries,) = await deliveries(bus, streams=("universe",), group="collector")
    assert entries[0].event() == ranking


async def test_before_the_first_ranking_there_is_no_universe(bus):
    assert await bus.universe() is None
    assert await bus.last_ranking() is None


@pytest.mark.invariant(7)
async def test_a_copy_of_the_ledger_reads_only_the_days_that_changed(bus):
    """Invariant 7."""
    copy = LedgerCopy(exchange="okx")
    await bus.set_ledger(DAY_0, {"BTC_USDT": "wanted=0-99", "ETH_USDT": "received=5-5 healed=7-7"})
    await bus.set_ledger(DAY_0 + DAY, {"BTC_USDT": "wanted=0-0"})

    assert await copy.refresh(bus) == {DAY_0, DAY_0 + DAY}
    assert await copy.refresh(bus) == set()
    assert copy[CANDLES].of("ETH_USDT", DAY_0) == DayLedger(received=1 << 5, healed=1 << 7)
    assert copy[CANDLES].of("BTC_USDT", DAY_0).missing(FULL_DAY).bit_count() == 100
    assert copy[CANDLES].of("NEVER_USDT", DAY_0) == DayLedger()

    await bus.set_ledger(DAY_0, {"BTC_USDT": "wanted=0-99 received=0-99"})
    assert await copy.refresh(bus) == {DAY_0}
    assert copy[CANDLES].of("BTC_USDT", DAY_0).missing(FULL_DAY) == 0
    assert copy[CANDLES].of("ETH_USDT", DAY_0).stored.bit_count() == 2

    await bus.forget_ledger([DAY_0])
    assert await copy.refresh(bus) == {DAY_0}
    assert copy[CANDLES].of("BTC_USDT", DAY_0) == DayLedger()


async def test_flags_and_marks_are_kept(bus):
    await bus.set_ledger_ready(ready=True)
    await bus.set_watermarks({"written_until": minute(5)})
    await bus.set_converted({"kline_1m/2025-04-05": "abc"})

    assert await bus.ledger_ready()
    assert await bus.watermarks() == {"written_until": minute(5)}
    assert await bus.converted() == {"kline_1m/2025-04-05": "abc"}
    await bus.set_ledger_ready(ready=False)
    assert not await bus.ledger_ready()


@pytest.mark.invariant(11)
async def test_what_is_not_in_qlib_any_more_is_not_said_to_be(bus):
    """Invariant 11: after a rollback the retention must not delete what only the other version holds."""
    await bus.set_converted({"kline_1m/2025-04-05": "abc", "kline_1m/2025-04-06": "def"})

    await bus.set_converted({"kline_1m/2025-04-05": "abc"})

    assert await bus.converted() == {"kline_1m/2025-04-05": "abc"}


async def test_a_heartbeat_expires_by_itself(bus, raw):
    beat = Heartbeat(service="writer", state="ok", reason="works", host="box", pid=1, started=NOW, beaten=NOW)

    await bus.beat(beat, ttl_seconds=20)

    assert await bus.heartbeat("writer") == beat
    assert 0 < await raw.ttl("heartbeat:writer") <= 20
    await raw.pexpire("heartbeat:writer", 0)
    assert await bus.heartbeat("writer") is None


async def test_a_heartbeat_of_an_older_version_has_no_cadence(bus, raw):
    beat = Heartbeat(service="ranker", state="ok", reason="works", host="box", pid=1, started=NOW, beaten=NOW)
    older = msgspec.to_builtins(beat)
    del older["cadence"]
    await raw.set("heartbeat:ranker", msgspec.json.encode(older))

    assert await bus.heartbeat("ranker") == beat

    beat.cadence = Cadence(every_seconds=86_400, delay_seconds=1_800)
    await bus.beat(beat, ttl_seconds=20)
    assert await bus.heartbeat("ranker") == beat


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("key", "fields", "read"),
    [
        ("watermarks", {"newest:XX_USDT": "not a time"}, Bus.watermarks),
        ("watermarks", {"newest:XX_USDT": "2026-01-01T00:00:00"}, Bus.watermarks),
        ("watermarks", {"newest:XX_USDT": "9999-12-31T23:59:00+00:00"}, Bus.watermarks),
        ("ledger:versions", {"2026-02-30": "5"}, Bus.ledger_versions),
        ("ledger:versions", {"9999-12-31": "5"}, Bus.ledger_versions),
        ("ledger:versions", {"2026-02-27": "x"}, Bus.ledger_versions),
        ("instruments:stored", {"ETH_USD": "{}"}, Bus.definitions),
        ("instruments:stored", {"ETH_USD": b"\xff"}, Bus.definitions),
        ("universe:left", {"ETH_USD": "yesterday"}, partial(Bus.left, exchange="okx")),
    ],
)
async def test_a_field_that_makes_no_sense_is_removed_and_the_others_are_read(bus, raw, key, fields, read):
    """Invariant 12: whoever owns it makes it again, as after a loss of Redis."""
    await bus.set_watermarks({"written_until": MIDNIGHT})
    await bus.set_ledger(DAY_0, {"BTC_USDT": "received=0-1"})
    await bus.set_definitions([a_definition()], all_of_them=True)
    await bus.set_left("okx", {"BTC_USDT": MIDNIGHT})
    before = await read(bus)

    await raw.hset(key, mapping=fields)

    assert await read(bus) == before
    assert not await raw.hexists(key, next(iter(fields)))


@pytest.mark.invariant(7)
async def test_a_ledger_whose_versions_made_no_sense_is_to_be_said_again(bus, raw):
    """Invariant 7: what was removed may have been the version of a day."""
    await bus.set_ledger_ready(ready=True)
    await raw.hset("ledger:versions", "2026-02-27", "x")

    await bus.ledger_versions()

    assert not await bus.ledger_ready()


@pytest.mark.invariant(12)
@pytest.mark.parametrize("text", ["{not json", "{}", b"\xff\xfe"])
async def test_a_universe_that_makes_no_sense_is_none(bus, raw, text):
    """Invariant 12: the ranker publishes the last one again where there is none."""
    await raw.set("universe:current", text)

    assert await bus.universe() is None
    assert not await raw.exists("universe:current")


@pytest.mark.invariant(12)
async def test_a_stored_ranking_that_makes_no_sense_is_removed(bus, raw):
    """Invariant 12."""
    await bus.mark_stored("okx", [MIDNIGHT])
    await raw.zadd("universe:stored", {"not a time": 1})

    assert await bus.stored_rankings("okx") == {MIDNIGHT}
    assert await raw.zcard("universe:stored") == 1


async def test_a_key_of_another_type_is_named(bus, raw):
    await raw.rpush("universe:current", "x")

    with pytest.raises(BusError, match=r"universe:current: WRONGTYPE"):
        await bus.universe()


@pytest.mark.invariant(12)
async def test_bytes_that_are_no_text_are_an_entry_like_any_and_can_be_set_aside(bus, raw):
    """Invariant 12."""
    await raw.xadd("candles", {b"event": b"candle", b"symbol": b"\xff\xfe"})

    ((entry,),) = await deliveries(bus)
    with pytest.raises(UndecodableError):
        entry.event()
    await bus.dead_letter("here", entry.fields, "no text")

    count, (letter,) = await bus.dead_letters()
    assert count == 1
    assert r"\\xff\\xfe" in letter["payload"]


@pytest.mark.invariant(12)
async def test_a_dead_letter_of_others_is_read_whatever_its_bytes_are(bus, raw):
    """Invariant 12."""
    await raw.xadd("dead-letter", {b"origin": b"\xff", b"payload": b"\xff"})

    assert (await bus.dead_letters())[0] == 1
    assert await bus.recent_dead_letters(60) == {r"\xff": 1}


async def test_a_redis_that_is_not_there_is_an_error_of_the_bus():
    bus = Bus("redis://127.0.0.1:9/0", timeout_seconds=1)

    with pytest.raises(BusError):
        await bus.ping()

    await bus.close()
