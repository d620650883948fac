"""Liveness is per instrument: what is found, when it is renewed, and how little it costs at worst (invariant 10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.stream.liveness import Budget, Liveness, Patience, Reason, State

pytestmark = pytest.mark.invariant(10)

PATIENCE = Patience(silence_seconds=95.0, connection_seconds=30.0)
BTC, ETH, DOGE = "BTC_USDT", "ETH_USDT", "DOGE_USDT"
MIDDLE = 0.5
"""A roll of the dice that leaves waits as they are."""
HOUR = 3600


def a_connection(*symbols, spells=None, patience=PATIENCE, now=0.0):
    liveness = Liveness(patience, {} if spells is None else spells)
    liveness.ask(symbols, now)
    return liveness


def none_expected(_symbol):
    return False


def scan(liveness, now):
    liveness.scan(now, roll=MIDDLE)
    return liveness.due(now, none_expected, 100)


def test_a_subscription_is_asked_then_live_then_silent():
    liveness = a_connection(BTC)
    assert liveness.state(BTC, 1) is State.ASKED

    liveness.acknowledge(BTC, 1)
    assert liveness.state(BTC, 2) is State.LIVE

    liveness.row(BTC, 50)
    assert liveness.state(BTC, 50 + 95) is State.LIVE
    assert liveness.state(BTC, 50 + 96) is State.SILENT
    assert liveness.state(ETH, 0) is None


def test_a_missing_ack_is_found_after_its_time_and_the_others_are_left_alone():
    liveness = a_connection(BTC, ETH)
    liveness.acknowledge(ETH, 1)

    assert scan(liveness, 10) == {}
    assert scan(liveness, 10.1) == {BTC: Reason.UNACKNOWLEDGED}


def test_a_row_is_proof_enough_where_the_ack_was_lost():
    liveness = a_connection(BTC)
    liveness.row(BTC, 3)

    assert scan(liveness, 60) == {}
    assert liveness.answered() == 1


def test_the_rows_of_others_do_not_hide_that_one_is_silent():
    liveness = a_connection(BTC, ETH)
    for now in range(1, 200):
        if now <= 100:
            liveness.row(ETH, now)
        liveness.row(BTC, now)

    assert scan(liveness, 195) == {}
    assert scan(liveness, 196) == {ETH: Reason.SILENT}
    assert liveness.dead(196, 0, none_expected) is None


def test_an_ack_alone_does_not_end_silence():
    liveness = a_connection(BTC)
    liveness.acknowledge(BTC, 0)
    scan(liveness, 96)
    liveness.renewed([BTC], 96, roll=MIDDLE)

    liveness.acknowledge(BTC, 97)
    assert liveness.state(BTC, 98) is State.SILENT
    assert scan(liveness, 96 + 20) == {BTC: Reason.SILENT}

    liveness.row(BTC, 117)
    assert liveness.state(BTC, 117) is State.LIVE


def test_a_rejection_concerns_those_it_is_of_as_far_as_they_were_asked_for():
    liveness = a_connection(BTC, ETH)

    assert liveness.reject([BTC, DOGE], "60018", 1, roll=MIDDLE) == [BTC]
    assert liveness.state(BTC, 1) is State.REJECTED
    assert liveness.state(ETH, 1) is State.ASKED
    assert liveness.state(DOGE, 1) is None


def test_a_rejection_does_not_touch_what_the_exchange_has_acknowledged():
    liveness = a_connection(BTC)
    liveness.acknowledge(BTC, 1)

    assert liveness.reject([BTC], "60018", 2) == []
    assert liveness.state(BTC, 2) is State.LIVE


def test_a_rejected_one_is_asked_for_again_with_growing_waits_until_it_is_taken():
    liveness = a_connection(BTC)
    waits, now = [], 0.0
    for _ in range(6):
        liveness.reject([BTC], "60018", now, roll=MIDDLE)
        asked = now
        while not scan(liveness, now):
            now += 1
        waits.append(now - asked)
        liveness.renewed([BTC], now, roll=MIDDLE)

    assert waits == [20, 20, 40, 60, 60, 60]
    assert liveness.to_move(now, none_expected) == []

    liveness.acknowledge(BTC, now + 1)
    assert liveness.state(BTC, now + 1) is State.LIVE
    assert scan(liveness, now + 90) == {}


@given(count=st.integers(1, 60), most=st.integers(1, 60), data=st.data())
def test_of_requests_that_are_rejected_as_a_whole_the_ones_at_fault_are_isolated(count, most, data):
    """An exchange that answers per request, all or nothing, and names none: all others are live in the end."""
    names = [f"C{number:02}_USDT" for number in range(count)]
    at_fault = data.draw(st.sets(st.sampled_from(names), max_size=3))
    liveness = Liveness(PATIENCE, {})

    def answer(request, now):
        if at_fault.isdisjoint(request):
            for symbol in request:
                liveness.acknowledge(symbol, now)
        else:
            liveness.reject(request, "2", now, together=True, roll=MIDDLE)

    def isolated(now):
        live = {symbol for symbol in names if liveness.state(symbol, now) is State.LIVE}
        next_ones = liveness.requests(names, most)
        alone = all(len(request) == 1 or at_fault.isdisjoint(request) for request in next_ones)
        return alone and live == set(names) - at_fault

    for request in list(liveness.requests(names, most)):
        liveness.ask(request, 0)
        answer(request, 0)
    rounds, now = 0, 0.0
    while not isolated(now):
        now += PATIENCE.batch_seconds
        if due := list(liveness.due(now, none_expected, most)):
            assert len(due) <= most
            liveness.renewed(due, now, roll=MIDDLE)
            answer(due, now)
            rounds += 1
        for symbol in names:
            if liveness.state(symbol, now) is State.LIVE:
                liveness.row(symbol, now)
        assert rounds <= 2 * len(at_fault) * min(count, most).bit_length(), "by halves, not one by one"


def test_three_renewals_that_did_not_help_ask_for_a_new_connection_once():
    liveness = a_connection(BTC)
    liveness.acknowledge(BTC, 0)
    renewed, now = [], 96.0
    while not liveness.to_move(now, none_expected):
        if scan(liveness, now):
            renewed.append(now - 96)
            liveness.renewed([BTC], now, roll=MIDDLE)
            liveness.acknowledge(BTC, now)
        now += 1
    assert renewed == [0, 20, 60]
    assert now == 96 + 60 + 80

    liveness.moved(now, roll=MIDDLE)
    next_one = a_connection(BTC, spells=liveness.spells, now=now)
    next_one.acknowledge(BTC, now)
    renewed = []
    for later in range(int(now), int(now) + 24 * HOUR):
        if scan(next_one, later):
            renewed.append(later)
            next_one.renewed([BTC], later, roll=MIDDLE)
            next_one.acknowledge(BTC, later)
        assert next_one.to_move(later, none_expected) == []
    assert len(renewed) < 24 * HOUR / PATIENCE.renew_cap_seconds + 5


def test_an_instrument_that_answers_a_renewal_and_falls_silent_again_is_still_in_the_same_spell():
    liveness = a_connection(BTC)
    liveness.acknowledge(BTC, 0)
    renewals = moves = 0
    for now in range(24 * HOUR):
        if liveness.to_move(now, none_expected):
            moves += 1
            liveness.moved(now, roll=MIDDLE)
        if scan(liveness, now):
            renewals += 1
            liveness.renewed([BTC], now, roll=MIDDLE)
            liveness.row(BTC, now)  # its last row, sent to every new subscription

    assert moves <= 1
    assert renewals < 24 * HOUR / PATIENCE.renew_cap_seconds + 10


def test_a_spell_is_over_when_rows_have_come_for_longer_than_the_silence_limit():
    liveness = a_connection(BTC)
    liveness.acknowledge(BTC, 0)
    scan(liveness, 96)
    liveness.renewed([BTC], 96, roll=MIDDLE)
    liveness.row(BTC, 97)
    assert not liveness.spells[BTC].open()

    liveness.row(BTC, 150)
    liveness.row(BTC, 193)

    assert liveness.spells == {}


def test_where_silence_proves_nothing_an_ack_is_missed_and_an_instrument_without_trades_is_left_alone():
    liveness = a_connection(BTC, ETH, patience=Patience(silence_seconds=float("inf"), connection_seconds=30.0))
    liveness.acknowledge(BTC, 1)

    assert scan(liveness, 11) == {ETH: Reason.UNACKNOWLEDGED}
    liveness.renewed([ETH], 11, roll=MIDDLE)
    liveness.acknowledge(ETH, 12)
    for now in range(13, 24 * HOUR, 1000):
        assert scan(liveness, now) == {}
        assert liveness.to_move(now, none_expected) == []
        assert liveness.dead(now, 0, none_expected) is None
    liveness.row(ETH, 24 * HOUR)
    assert liveness.spells == {}


def test_of_a_suspended_instrument_nothing_is_asked_but_it_is_seen():
    liveness = a_connection(BTC, ETH)
    liveness.acknowledge(BTC, 0)
    liveness.acknowledge(ETH, 0)
    liveness.scan(96)

    assert liveness.due(96, lambda symbol: symbol == BTC, 100) == {ETH: Reason.SILENT}
    assert liveness.state(BTC, 96) is State.SILENT
    assert liveness.due(97, none_expected, 100).keys() == {BTC, ETH}, "at once when it is traded again"


def test_a_round_of_renewals_takes_those_that_wait_longest():
    names = [f"C{number:03}_USDT" for number in range(5)]
    liveness = a_connection(*names)
    for second, name in enumerate(reversed(names)):
        liveness.acknowledge(name, second)
    for second in range(len(names)):
        liveness.scan(96 + second)

    assert list(liveness.due(101, none_expected, 2)) == names[:-3:-1]


def test_who_leaves_takes_his_spell_with_him():
    liveness = a_connection(BTC)
    scan(liveness, 11)

    liveness.forget([BTC])

    assert liveness.spells == {}
    assert scan(liveness, 500) == {}
    liveness.row(BTC, 501)
    assert liveness.last_row is None


def test_a_refused_request_is_forgotten_as_far_as_it_was_not_answered():
    liveness = a_connection(BTC, ETH, DOGE)
    liveness.acknowledge(BTC, 1)
    liveness.reject([ETH], "60018", 1)

    assert liveness.forget_unanswered() == [DOGE]
    assert liveness.asked_for == {BTC, ETH}


def test_a_connection_is_settled_once_everything_has_an_answer_or_had_its_time():
    liveness = a_connection(BTC, ETH, DOGE)
    liveness.acknowledge(BTC, 1)
    liveness.reject([ETH], "60018", 1)

    assert not liveness.settled(9)
    liveness.row(DOGE, 9)
    assert liveness.settled(9)
    assert a_connection(BTC).settled(11)


def test_a_connection_that_answers_nothing_at_all_is_dead():
    liveness = a_connection(BTC, ETH)

    assert liveness.dead(15, 0, none_expected) is None
    assert liveness.dead(16, 0, none_expected) == "nothing answered for 16 s"


def test_a_connection_without_rows_is_dead_the_later_the_more_of_them_there_were():
    names = [f"C{number}_USDT" for number in range(10)]
    liveness = a_connection(*names)
    for name in names:
        liveness.acknowledge(name, 0)

    assert [liveness.dead(limit, fruitless, none_expected) for fruitless, limit in ((0, 30), (1, 60), (9, 480))] == [
        None,
        None,
        None,
    ]
    assert liveness.dead(31, 0, none_expected) == "no data for 31 s"
    assert liveness.dead(61, 1, none_expected) is not None
    assert liveness.dead(481, 9, none_expected) is not None


def test_few_instruments_may_have_a_minute_without_a_trade():
    liveness = a_connection(BTC, ETH)
    liveness.acknowledge(BTC, 0)
    liveness.row(BTC, 1)

    assert liveness.dead(1 + 66, 0, none_expected) is None
    assert liveness.dead(1 + 96, 0, none_expected) is not None


def test_a_connection_of_which_nothing_is_expected_is_never_dead():
    liveness = a_connection(BTC, ETH)
    liveness.acknowledge(BTC, 0)
    liveness.acknowledge(ETH, 0)

    assert liveness.dead(24 * HOUR, 0, lambda _: True) is None


@given(gaps=st.lists(st.floats(0.1, 94.9), min_size=1, max_size=200))
def test_who_gives_rows_within_the_limit_is_never_renewed_whatever_the_others_do(gaps):
    liveness = a_connection(BTC, ETH)
    now = 0.0
    liveness.acknowledge(BTC, now)
    for gap in gaps:
        now += gap
        assert BTC not in scan(liveness, now)
        liveness.row(BTC, now)


@given(
    times=st.lists(st.floats(0, 10_000), max_size=300).map(sorted),
    limit=st.integers(1, 20),
)
def test_no_window_of_an_hour_holds_more_operations_than_the_exchange_takes(times, limit):
    budget = Budget(limit, 3600.0)

    taken = [now for now in times if budget.take(now)]

    for begin in taken:
        assert sum(begin <= now < begin + 3600 for now in taken) <= limit
    if len(times) <= limit:
        assert taken == times
