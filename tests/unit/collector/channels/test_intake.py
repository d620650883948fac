from datetime import timedelta

import pytest

from services.collector.tracking.requests import Request
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.ledger.day import DayLedger
from shared.ledger.minutes import Gap
from tests.support.builders import MIDNIGHT, a_candle_row, a_funding_rate, a_funding_row, minute
from tests.support.desk import BTC, NOON, Desk


@pytest.fixture
def desk():
    return Desk()


@pytest.mark.invariant(1)
def test_forming_rows_never_become_events(desk):
    """Invariant 1."""
    for price in (100.0, 101.0, 102.0):
        desk.live_candle(BTC, a_candle_row(NOON, confirm="0", price=price))

    assert desk.events == []
    assert desk.asides == []
    assert desk.btc.forming == NOON
    assert NOON not in desk.btc.seen


@pytest.mark.invariant(1)
def test_a_confirmed_row_becomes_a_candle(desk):
    """Invariant 1."""
    desk.live_candle(BTC, a_candle_row(NOON, price=100.0))

    (candle,) = desk.events
    assert (candle.symbol, candle.open_time, candle.open, candle.source) == ("BTC_USDT", NOON, 100.0, "ws")
    assert NOON in desk.btc.seen


@pytest.mark.invariant(2)
def test_a_duplicate_is_published_once(desk):
    """Invariant 2."""
    for _ in range(3):
        desk.live_candle(BTC, a_candle_row(NOON))

    assert len(desk.events) == 1


@pytest.mark.invariant(12)
@pytest.mark.parametrize("bad", [[], ["x"], [None] * 9, [*a_candle_row(NOON)[:3], "99999999", *a_candle_row(NOON)[4:]]])
def test_a_bad_row_is_set_aside_and_nothing_else_stops(desk, bad):
    """Invariant 12."""
    desk.live_candle(BTC, bad)
    desk.live_candle("ETH-USDT-SWAP", a_candle_row(NOON))

    ((origin, payload, error),) = desk.asides
    assert origin == "candles"
    assert payload == {"instId": BTC, "row": bad}
    assert error
    assert [event.symbol for event in desk.events] == ["ETH_USDT"]


@pytest.mark.invariant(12)
def test_a_minute_whose_row_was_bad_is_still_missing(desk):
    """Invariants 7 and 12: a good row of the same minute is taken."""
    desk.live_candle(BTC, a_candle_row(NOON, price=-1.0))
    desk.live_candle(BTC, a_candle_row(NOON, price=5.0))

    assert [event.open for event in desk.events] == [5.0]


@pytest.mark.invariant(13)
def test_a_row_that_claims_to_be_from_the_future_does_not_move_time(desk):
    """Invariant 13."""
    desk.live_candle(BTC, a_candle_row(NOON + timedelta(days=3), confirm="0"))

    assert desk.btc.forming <= desk.clock.now()


@pytest.mark.invariant(13)
def test_what_is_the_future_at_the_exchange_is_set_aside_though_here_it_has_long_passed(desk):
    """Invariant 13: the host's clock is ahead by as long as ago this day was."""
    ahead = a_candle_row(minute(730))

    desk.live_candle(BTC, ahead)
    found = desk.history(Request("BTC_USDT", Gap(minute(720), minute(740)), fresh=True), [ahead])

    assert desk.events == found == []
    assert ["from the future" in error for _, _, error in desk.asides] == [True, True]


def test_the_last_pushes_of_one_that_left_are_ignored(desk):
    left = desk.tracker.symbols["ETH_USDT"]
    left.until = left.begin = minute(700)
    assert desk.tracker.drop_done(NOON) == ["ETH_USDT"]

    desk.live_candle("ETH-USDT-SWAP", a_candle_row(NOON))

    assert desk.events == desk.asides == []


@pytest.mark.invariant(12)
def test_an_instrument_that_was_not_asked_for_is_set_aside_once(desk):
    """Invariant 12."""
    for _ in range(3):
        desk.live_candle("NOBODY-USDT-SWAP", a_candle_row(NOON))

    assert desk.events == []
    ((origin, _, error),) = desk.asides
    assert origin == "candles"
    assert "NOBODY_USDT" in error


@pytest.mark.invariant(1)
@pytest.mark.invariant(12)
def test_history_gives_the_closed_rows_of_the_gap_that_are_missing(desk):
    """Invariants 1 and 12, over REST: same rows, same rules; a bad one does not cost the others of its page."""
    desk.live_candle(BTC, a_candle_row(minute(719)))
    rows = [
        a_candle_row(minute(720), confirm="0"),
        a_candle_row(minute(719)),  # there already
        a_candle_row(minute(718)),
        ["nonsense", "1", "1", "1", "1", "1", "1", "1", "1"],
        a_candle_row(minute(717)),
        a_candle_row(minute(700)),  # outside of what was asked for
    ]

    found = desk.history(Request("BTC_USDT", Gap(minute(717), minute(721)), fresh=True), rows)

    assert [(candle.open_time, candle.source) for candle in found] == [(minute(718), "rest"), (minute(717), "rest")]
    assert len(desk.asides) == 1
    assert minute(718) not in desk.btc.seen
    desk.candles.published(found)
    assert minute(718) in desk.btc.seen


@pytest.mark.invariant(11)
def test_a_candle_that_was_dropped_from_a_full_buffer_is_missing_again(desk):
    """Invariant 11: bounded, and nothing is lost."""
    desk.live_candle(BTC, a_candle_row(NOON))

    desk.tracker.forget("BTC_USDT", desk.events[0].open_time)

    assert NOON not in desk.btc.seen


def test_funding_becomes_predictions_and_settlements(desk):
    desk.funding.settled_by_history([a_funding_rate("BTC_USDT", minute(0))])
    desk.live_funding(BTC, a_funding_row(at=minute(1), funding_time=minute(480)))
    desk.live_funding(BTC, a_funding_row(at=minute(480), funding_time=minute(960)))

    assert [type(event) for event in desk.events] == [PredictedFundingRate, PredictedFundingRate, FundingRate]


@pytest.mark.invariant(12)
def test_an_empty_funding_rate_is_set_aside_and_is_not_zero(desk):
    """Invariant 12."""
    desk.funding.settled_by_history([a_funding_rate("BTC_USDT", minute(0))])
    desk.live_funding(BTC, a_funding_row(at=minute(1), funding_time=minute(480), fundingRate=""))
    desk.live_funding(BTC, a_funding_row(at=minute(2), funding_time=minute(480)))

    assert len(desk.asides) == 1
    assert [event.funding_rate for event in desk.events] == [0.0001]


def test_a_missed_settlement_is_noted(desk):
    desk.live_funding(BTC, a_funding_row(at=minute(1), funding_time=minute(240), hours=4))
    desk.live_funding(BTC, a_funding_row(at=minute(700), funding_time=minute(720), hours=4))

    assert desk.funding.take_missed() == [("BTC_USDT", minute(0)), ("BTC_USDT", minute(240))]
    assert desk.funding.take_missed() == []
    assert minute(240) in desk.settlements.symbols["BTC_USDT"].due


@pytest.mark.invariant(5)
def test_what_is_stored_is_not_taken_again_from_the_first_message_after_a_restart(desk):
    """Invariant 5: it would look as if it had become known at the restart, and its period would be lost."""
    desk.ledger["funding"].replace(minute(480).date(), {"BTC_USDT": DayLedger(wanted=1 << 480, received=1 << 480)})

    desk.live_funding(BTC, a_funding_row(at=minute(500), funding_time=minute(960), settFundingRate="0.003"))

    assert [type(event) for event in desk.events] == [PredictedFundingRate]
    assert desk.funding.take_missed() == []


def test_a_fresh_settlement_before_the_first_message_is_due_and_asked_for(desk):
    desk.live_funding(BTC, a_funding_row(at=minute(481), funding_time=minute(960), settFundingRate="0.003"))

    assert [type(event) for event in desk.events] == [PredictedFundingRate]
    assert desk.funding.take_missed() == [("BTC_USDT", minute(480))]
    assert minute(480) in desk.settlements.symbols["BTC_USDT"].due


def test_a_settlement_taken_after_the_roll_is_due_and_to_be_held_against_the_history(desk):
    desk.funding.settled_by_history([a_funding_rate("BTC_USDT", minute(0))])
    desk.live_funding(BTC, a_funding_row(at=minute(1), funding_time=minute(480)))
    desk.live_funding(BTC, a_funding_row(at=minute(480), funding_time=minute(960)))

    (settled,) = desk.funding.take_settled()

    assert settled.funding_time == minute(480)
    assert minute(480) in desk.settlements.symbols["BTC_USDT"].due


@pytest.mark.invariant(5)
def test_a_settlement_that_is_stored_keeps_the_instant_at_which_it_became_known(desk):
    """Invariant 5: asking the history again must not make an old rate look newly known."""
    desk.ledger["funding"].replace(minute(480).date(), {"BTC_USDT": DayLedger(wanted=1 << 480, received=1 << 480)})
    settled = [a_funding_rate("BTC_USDT", minute(480)), a_funding_rate("BTC_USDT", minute(0))]

    assert desk.funding.settled_by_history(settled) == settled[1:]


def test_a_settlement_that_the_history_has_differently_is_corrected(desk):
    desk.funding.settled_by_history([a_funding_rate("BTC_USDT", minute(0))])
    desk.live_funding(BTC, a_funding_row(at=minute(1), funding_time=minute(480)))
    desk.live_funding(BTC, a_funding_row(at=minute(480), funding_time=minute(960)))
    (taken,) = desk.funding.take_settled()
    desk.ledger["funding"].replace(minute(480).date(), {"BTC_USDT": DayLedger(wanted=1 << 480, received=1 << 480)})
    same = a_funding_rate("BTC_USDT", minute(480), rate=taken.funding_rate)
    other = a_funding_rate("BTC_USDT", minute(480), rate=taken.funding_rate + 1e-6)

    assert desk.funding.settled_by_history([same]) == []
    assert desk.funding.settled_by_history([other]) == [other]


def test_what_comes_out_are_candles_of_the_day(desk):
    desk.live_candle(BTC, a_candle_row(MIDNIGHT))

    assert isinstance(desk.events[0], Candle)


# --- rows that cannot be true

ZERO = [*a_candle_row(minute(600))[:1], "0", "0", "0", "0", *a_candle_row(minute(600))[5:]]


def a_page(*rows, begin=590, end=610):
    return Request("BTC_USDT", Gap(minute(begin), minute(end)), fresh=False), list(rows)


@pytest.mark.invariant(7)
def test_a_confirmed_row_that_is_refused_is_noted_and_its_neighbours_are_taken(desk):
    """Invariant 7: of its minute the exchange has something; it is never called absent."""
    found = desk.history(*a_page(a_candle_row(minute(599)), ZERO, a_candle_row(minute(601))))

    assert [candle.open_time for candle in found] == [minute(599), minute(601)]
    assert minute(600) in desk.btc.refusals.minutes()
    ((origin, _, error),) = desk.asides
    assert (origin, "a price" in error) == ("history", True)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_rows_of_a_minute_the_one_that_can_be_true_counts(desk, order):
    rows = [ZERO, a_candle_row(minute(600))]

    found = desk.history(*a_page(*(rows[number] for number in order)))

    assert [candle.open_time for candle in found] == [minute(600)]
    assert desk.btc.refusals.count() == 0


@pytest.mark.parametrize("confirms", ["01", "10"])
def test_of_a_forming_and_a_closed_row_of_a_minute_the_closed_one_counts(desk, confirms):
    for confirm in confirms:
        desk.live_candle(BTC, a_candle_row(NOON, confirm=confirm, price=100.0 + int(confirm)))

    assert [candle.open for candle in desk.events] == [101.0]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("page", [[5], ["row"], [None], [{}], [[]], [[None] * 9], [a_candle_row()[:3]]])
def test_a_page_with_rows_that_are_none_costs_nothing_but_them(desk, page):
    """Invariant 12."""
    found = desk.history(*a_page(*page, a_candle_row(minute(600))))

    assert [candle.open_time for candle in found] == [minute(600)]
    assert len(desk.asides) <= 1


def test_a_funding_row_of_another_instrument_changes_nothing(desk):
    row = a_funding_row("ETH_USDT", at=minute(700), funding_time=minute(960))

    desk.live_funding(BTC, row)

    assert desk.events == []
    assert [error for _, _, error in desk.asides] == ["a row of another instrument"]
    assert desk.funding._funding.last == {}


@pytest.mark.invariant(13)
def test_a_row_from_the_future_does_not_silence_what_comes_after_it(desk):
    """Invariant 13: the newest knowledge wins, and it would be the newest for years."""
    desk.live_funding(BTC, a_funding_row(at=minute(100_000), funding_time=minute(100_320)))
    desk.live_funding(BTC, a_funding_row(at=minute(700), funding_time=minute(960)))

    assert [event.known_time for event in desk.events if isinstance(event, PredictedFundingRate)] == [minute(700)]


def test_a_suspicious_rate_is_published_with_its_flag_and_shown(desk):
    row = a_funding_row(at=minute(700), funding_time=minute(960), fundingRate="0.99", settFundingRate="0.0001")

    desk.live_funding(BTC, row)

    assert [event.flag for event in desk.events if isinstance(event, PredictedFundingRate)] == ["beyond 5%"]
    assert desk.funding.flagged(minute(721)) == ["BTC_USDT"]
    assert desk.funding.flagged(minute(10_000)) == []
