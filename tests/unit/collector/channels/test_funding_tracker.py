from datetime import timedelta

import pytest

from services.collector.channels.funding_tracker import FundingTracker
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.exchanges.okx.funding import funding_of
from tests.support.builders import a_funding_rate, a_funding_row, minute

EIGHT, SIXTEEN = minute(480), minute(960)


@pytest.fixture
def observe():
    tracker = FundingTracker()
    tracker.learn([a_funding_rate("BTC_USDT", EIGHT), a_funding_rate("ETH_USDT", EIGHT)])  # what the history gave
    return lambda row: observed(tracker, row)


def observed(tracker, row):
    """Let the tracker observe a row as OKX spells it."""
    page = funding_of(row["instId"], row, source="ws", receive_time=minute(0), exchange_now=minute(2000))
    return tracker.observe(page.events[0], page.events[1] if len(page.events) > 1 else None)


def settled(events):
    return [(event.funding_time, event.funding_rate, event.interval_hours) for event in events if _is_settled(event)]


def _is_settled(event):
    return isinstance(event, FundingRate)


def test_every_new_prediction_is_an_event(observe):
    first, _ = observe(a_funding_row(at=minute(1), funding_time=EIGHT, fundingRate="0.1"))
    second, _ = observe(a_funding_row(at=minute(2), funding_time=EIGHT, fundingRate="0.2"))

    assert [(type(event), event.funding_rate) for event in (*first, *second)] == [
        (PredictedFundingRate, 0.1),
        (PredictedFundingRate, 0.2),
    ]


@pytest.mark.invariant(2)
def test_a_copy_and_one_that_was_overtaken_are_ignored(observe):
    """Invariant 2."""
    observe(a_funding_row(at=minute(5), funding_time=EIGHT))

    assert observe(a_funding_row(at=minute(5), funding_time=EIGHT)) == ([], None)
    assert observe(a_funding_row(at=minute(4), funding_time=EIGHT)) == ([], None)


def test_the_roll_settles_the_period_that_ended_with_its_own_interval(observe):
    """An 8 h contract that becomes a 4 h one at the roll: the settled period had 8."""
    observe(a_funding_row(at=minute(479), funding_time=EIGHT))
    roll = a_funding_row(
        at=minute(480),
        funding_time=minute(720),
        hours=4,
        settState="processing",
        settFundingRate="0.003",
    )

    events, missed = observe(roll)

    assert settled(events) == [(EIGHT, 0.003, 8)]
    assert not missed


@pytest.mark.invariant(5)
def test_the_settlement_before_the_first_message_is_left_to_the_history():
    """Invariant 5: the message says neither what period it ended nor whether it was known before."""
    tracker = FundingTracker()
    tracker.learn([a_funding_rate("BTC_USDT", minute(0))])

    events, missed = observed(tracker, a_funding_row(at=minute(481), funding_time=SIXTEEN, settFundingRate="0.003"))

    assert settled(events) == []
    assert missed == EIGHT


def test_a_settlement_is_published_once_through_processing_and_settled(observe):
    observe(a_funding_row(at=minute(479), funding_time=EIGHT))
    rows = [
        a_funding_row(at=minute(480), funding_time=SIXTEEN, settState="processing", settFundingRate="0.003"),
        a_funding_row(at=minute(481), funding_time=SIXTEEN, settState="settled", settFundingRate="0.003"),
        a_funding_row(at=minute(482), funding_time=SIXTEEN, settState="settled", settFundingRate="0.003"),
    ]

    answers = [observe(row) for row in rows]

    assert [settled(events) for events, _ in answers] == [[(EIGHT, 0.003, 8)], [], []]
    assert not any(missed for _, missed in answers)


def test_a_rate_that_is_corrected_after_the_roll_is_published_again_with_the_same_interval(observe):
    observe(a_funding_row(at=minute(479), funding_time=EIGHT))
    observe(a_funding_row(at=minute(480), funding_time=SIXTEEN, settFundingRate="0.003"))

    events, _ = observe(a_funding_row(at=minute(481), funding_time=SIXTEEN, settFundingRate="0.004"))

    assert settled(events) == [(EIGHT, 0.004, 8)]
    assert events[-1].known_time == minute(481)


def test_a_settlement_that_was_missed_asks_the_history(observe):
    observe(a_funding_row(at=minute(479), funding_time=EIGHT))

    events, missed = observe(a_funding_row(at=minute(961), funding_time=minute(1440)))

    assert missed
    assert settled(events) == []


def test_a_roll_that_does_not_give_the_settled_rate_asks_the_history(observe):
    observe(a_funding_row(at=minute(479), funding_time=EIGHT))

    _, missed = observe(a_funding_row(at=minute(480), funding_time=SIXTEEN, settFundingRate=""))

    assert missed


def test_the_first_message_settles_nothing(observe):
    """What period it ended is not known: the history has it."""
    events, missed = observe(a_funding_row(at=minute(480) + timedelta(seconds=1), funding_time=SIXTEEN))

    assert settled(events) == []
    assert not missed


def test_symbols_do_not_mix(observe):
    observe(a_funding_row("BTC_USDT", at=minute(479), funding_time=EIGHT))

    events, _ = observe(a_funding_row("ETH_USDT", at=minute(480), funding_time=SIXTEEN))

    assert settled(events) == []
