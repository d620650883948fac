"""What a dead letter says today, and why it says nothing still."""

from datetime import timedelta

import msgspec
import pytest

from services.writer.dead_letters import Choice, Now, StillBadError, events_of
from shared.bus.dead_letters import DeadLetter
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.registry import encode
from tests.support.builders import MIDNIGHT, a_candle, a_candle_row, a_funding_row, a_ranking, minute

BTC = "BTC-USDT-SWAP"
NOW = Now(MIDNIGHT + timedelta(days=3), retention_days=90)
SET_ASIDE = minute(2)


def letter(origin, payload, **changes):
    text = payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
    fields = {"id": "1-0", "at": SET_ASIDE.isoformat(), "origin": origin, "error": "bad", "payload": text}
    return DeadLetter(**fields | changes)


def of_row(row, origin="collector:candles", inst_id=BTC):
    return letter(origin, {"instId": inst_id, "row": row})


@pytest.mark.invariant(12)
@pytest.mark.parametrize("event", [a_candle(), a_ranking("BTC_USDT", "ETH_USDT")])
def test_entry_that_decodes_now_is_its_event(event):
    assert events_of(letter(f"writer:{event.stream}:1-0", encode(event)), NOW) == [event]


@pytest.mark.parametrize(("origin", "source"), [("collector:candles", "ws"), ("collector:history", "rest")])
def test_row_with_its_instrument_is_normalised_as_of_when_it_came(origin, source):
    (candle,) = events_of(of_row(a_candle_row(MIDNIGHT), origin), NOW)

    assert isinstance(candle, Candle)
    assert (candle.symbol, candle.open_time, candle.source) == ("BTC_USDT", MIDNIGHT, source)
    assert candle.receive_time == SET_ASIDE


def test_row_that_seemed_to_be_from_the_future_is_none_later():
    row = of_row(a_candle_row(MIDNIGHT))

    with pytest.raises(StillBadError, match="from the future"):
        events_of(row, Now(MIDNIGHT - timedelta(hours=1), 90))
    assert len(events_of(row, NOW)) == 1


def test_frame_is_read_row_by_row_without_the_forming_ones():
    rows = [a_candle_row(minute(0)), a_candle_row(minute(1)), a_candle_row(minute(2), confirm="0")]
    frame = msgspec.json.encode({"arg": {"channel": "candle1m", "instId": BTC}, "data": rows}).decode()

    assert [event.open_time for event in events_of(letter("collector:candles", frame), NOW)] == [minute(0), minute(1)]


def test_funding_row_gives_the_prediction_and_the_settlement_before_it():
    row = a_funding_row(at=minute(1), funding_time=minute(480))

    found = events_of(of_row(row, "collector:funding"), NOW)

    assert [type(event) for event in found] == [PredictedFundingRate, FundingRate]
    assert {event.symbol for event in found} == {"BTC_USDT"}


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (letter("writer:candles:1-0", encode(a_candle()) | {"open": "a lot"}), "open"),
        (letter("writer:candles:1-0", ["x"]), "no entry of a stream"),
        (letter("writer:candles:1-0", {"event": 1}), "no entry of a stream"),
        (letter("collector:candles", a_candle_row()), "does not say of which instrument"),
        (letter("collector:candles", '{"arg": {"instId": "BTC-USDT-SWAP"}, "data": [["17'), "was cut"),
        (of_row(["x"] * 8 + ["1"]), "no time"),
        (of_row(a_candle_row(confirm="0")), "no closed candle"),
        (of_row(None), "no row of columns"),
        (of_row(5), "no row of columns"),
        (of_row(a_funding_row(at=minute(1), funding_time=minute(480), fundingRate=""), "collector:funding"), "no rate"),
        (of_row(["1"], "collector:funding"), "is no row of names"),
        (of_row(a_candle_row(), "pigeon:post"), "not known how to read what pigeon:post"),
        (letter("", "{}"), "not known"),
        (letter("collector:candles", {"instId": BTC, "row": a_candle_row()}, at=""), "when it was set aside"),
        (letter("collector:candles", {"instId": BTC, "row": a_candle_row()}, at="2025-04-05T00:00:00"), "time zone"),
    ],
)
def test_what_makes_no_sense_still_says_why(bad, reason):
    with pytest.raises(StillBadError, match=reason):
        events_of(bad, NOW)


def test_row_that_the_writer_would_set_aside_again_stays():
    late = Now(MIDNIGHT + timedelta(days=91), 90)

    with pytest.raises(StillBadError, match="older than RETENTION_DAYS=90"):
        events_of(letter("writer:candles:1-0", encode(a_candle())), late)


def test_choice_is_by_the_beginning_of_the_origin_and_by_id():
    one = letter("writer:candles:7-0", {})

    assert one in Choice()
    assert one in Choice("writer:candles")
    assert one in Choice("writer", {"1-0"})
    assert one not in Choice("collector")
    assert one not in Choice("writer", {"2-0"})
