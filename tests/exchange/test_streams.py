import json
from collections import Counter
from itertools import pairwise

import pytest

from services.simulator.engine.market import HOUR_MS, MINUTE_MS
from services.simulator.engine.replay import load_recording
from services.simulator.okx.streams import CANDLES, FUNDING, Key, Streams

BEGIN = 1_748_736_000_000
PEPE, GONE, ADA = (f"{base}-USDT-SWAP" for base in ("1000PEPE", "GONE", "ADA"))


@pytest.fixture(scope="module")
def market(recording):
    return load_recording(recording.folder)


def play(market, key, begin_ms, minutes, *, step_ms, speed=1.0):
    """Subscribe and let time pass in steps; returns (now, kind, data row)."""
    streams = Streams(market, speed)
    streams.activate(key, begin_ms)
    pushes = []
    for now_ms in range(begin_ms, begin_ms + minutes * MINUTE_MS + 1, step_ms):
        while found := streams.due(now_ms):
            pushes.append((now_ms, found[0].kind, json.loads(found[0].payload)["data"][0]))
    return pushes


@pytest.mark.parametrize(("step_ms", "speed"), [(100, 1.0), (7_000, 60.0), (400_000, 600.0)])
def test_every_existing_minute_is_confirmed_once_and_equals_the_recording(market, recording, step_ms, speed):
    begin = BEGIN + 35 * HOUR_MS

    pushes = play(market, Key(CANDLES, PEPE), begin + 100, 31, step_ms=step_ms, speed=speed)

    confirmed = [row for _, kind, row in pushes if kind == "confirm"]
    upto = begin + 29 * MINUTE_MS - step_ms
    times = [int(row[0]) for row in confirmed]
    # Subscribed 100 ms into the minute, the close of the one before may still be on its way.
    assert times == sorted(set(times))
    assert set(times) >= {time for time in recording.candles[PEPE] if begin <= time <= upto}
    assert all(recording.candles[PEPE][int(row[0])] == tuple(map(float, (*row[1:5], row[6]))) for row in confirmed)


def test_a_missing_minute_is_not_pushed_in_any_form(market, recording):
    begin = BEGIN + 35 * HOUR_MS

    pushes = play(market, Key(CANDLES, PEPE), begin, 31, step_ms=100)

    missing = set(range(begin, begin + 30 * MINUTE_MS, MINUTE_MS)) - set(recording.candles[PEPE])
    assert len(missing) == 4
    assert not missing & {int(row[0]) for _, _, row in pushes}


def test_every_minute_begins_with_a_forming_row_and_forming_rows_are_a_second_apart(market, recording):
    begin = BEGIN + 35 * HOUR_MS

    pushes = play(market, Key(CANDLES, ADA), begin + 1, 10, step_ms=100)

    forming = [(now, int(row[0])) for now, kind, row in pushes if kind == "forming"]
    for minute in range(begin + MINUTE_MS, begin + 9 * MINUTE_MS, MINUTE_MS):
        instants = [now for now, time in forming if time == minute]
        assert instants[0] - minute <= 500
        assert all(later - sooner >= 1_000 for sooner, later in pairwise(instants))
        is_quiet = recording.candles[ADA][minute][4] == 0
        assert len(instants) == 1 if is_quiet else 50 <= len(instants) <= 60


def test_fast_time_pushes_only_the_first_forming_row_of_a_minute(market):
    pushes = play(market, Key(CANDLES, ADA), BEGIN + 35 * HOUR_MS + 1, 30, step_ms=1_000, speed=600)

    assert Counter(kind for _, kind, _ in pushes)["forming"] == 29


def test_a_confirm_comes_shortly_after_the_minute_in_no_fixed_order(market):
    pushes = play(market, Key(CANDLES, ADA), BEGIN + 35 * HOUR_MS, 30, step_ms=10)

    first_is_confirm = Counter()
    for now, kind, row in pushes:
        if kind == "confirm":
            assert 20 <= now - int(row[0]) - MINUTE_MS <= 330
            following = str(int(row[0]) + MINUTE_MS)
            first_is_confirm[not any(at < now and other[0] == following for at, _, other in pushes)] += 1
    assert set(first_is_confirm) == {True, False}


def test_a_delisted_instrument_falls_silent_after_its_last_minute(market, recording):
    last = max(recording.candles[GONE])

    pushes = play(market, Key(CANDLES, GONE), last - 5 * MINUTE_MS, 20, step_ms=1_000)

    assert pushes[-1][1:] == ("confirm", pushes[-1][2])
    assert int(pushes[-1][2][0]) == last
    assert not [
        push for push in play(market, Key(FUNDING, GONE), last, 20, step_ms=1_000) if push[0] > last + 2 * MINUTE_MS
    ]


@pytest.mark.parametrize(("step_ms", "speed"), [(100, 1.0), (3_000, 600.0), (400_000, 600.0)])
def test_every_settlement_is_pushed_while_processed_and_when_settled(market, recording, step_ms, speed):
    pushes = play(market, Key(FUNDING, PEPE), BEGIN + 15 * HOUR_MS, 10 * 60, step_ms=step_ms, speed=speed)

    for settlement in (BEGIN + hour * HOUR_MS for hour in (16, 20, 24)):
        rows = [row for _, _, row in pushes if row["prevFundingTime"] == str(settlement)]
        assert rows[0]["settState"] == "processing"
        assert "settled" in {row["settState"] for row in rows}
        assert 0 <= int(rows[0]["ts"]) - settlement < 100
        assert {float(row["settFundingRate"]) for row in rows} == {recording.funding[PEPE][settlement]}


def test_funding_is_pushed_every_30_to_90_seconds(market):
    pushes = play(market, Key(FUNDING, ADA), BEGIN + 17 * HOUR_MS, 60, step_ms=500)

    instants = [int(row["ts"]) for _, _, row in pushes]
    gaps = [later - sooner for sooner, later in pairwise(instants)]
    assert all(30_000 <= gap < 90_000 for gap in gaps)


def test_after_unsubscribing_nothing_is_pushed_and_resubscribing_doubles_nothing(market):
    streams, key, now = Streams(market, 1.0), Key(CANDLES, ADA), BEGIN + 35 * HOUR_MS + 30_000
    streams.activate(key, now)
    streams.deactivate(key)
    assert streams.due(now + 5 * MINUTE_MS) is None

    for _ in range(3):
        streams.activate(key, now)
        streams.deactivate(key)
    streams.activate(key, now)
    kinds = Counter()
    while found := streams.due(now + 31_000):
        kinds[found[0].kind] += 1
    assert kinds["confirm"] == 1


def test_a_fresh_subscriber_is_sent_the_current_state(market):
    streams, now = Streams(market, 1.0), BEGIN + 35 * HOUR_MS + 30_000
    streams.activate(Key(CANDLES, ADA), now)

    candle = json.loads(streams.snapshot(Key(CANDLES, ADA), now).payload)
    funding = json.loads(streams.snapshot(Key(FUNDING, ADA), now).payload)

    assert candle["arg"] == {"channel": "candle1m", "instId": ADA}
    assert (candle["data"][0][0], candle["data"][0][8]) == (str(BEGIN + 35 * HOUR_MS), "0")
    assert funding["data"][0]["ts"] == str(now)
