"""What the exchange says of its instruments reaches the store once, whatever restarts in between."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from services.collector.tracking.definitions import AGAIN_SECONDS, Definitions
from tests.support.builders import a_definition, minute


def look(definitions, *listed, gone=None, at):
    """Look at the list twice, at a minute and just after it."""
    for seconds in (0, 5):
        again = [replace(one, known_time=one.known_time + timedelta(seconds=seconds)) for one in listed]
        definitions.note(again, gone or {}, minute(at) + timedelta(seconds=seconds))


def knowing(*stored):
    """Return what a collector knows that has read what is stored."""
    definitions = Definitions()
    definitions.note_stored({one.symbol: one for one in stored})
    return definitions


def test_before_it_is_known_what_is_stored_nothing_is_published():
    definitions = Definitions()
    look(definitions, a_definition(), at=0)

    assert definitions.due(0.0) == []


def test_what_is_stored_already_is_not_published_again_by_a_collector_that_starts():
    definitions = knowing(a_definition(known_time=minute(0)))

    look(definitions, a_definition(known_time=minute(500)), at=500)

    assert definitions.due(0.0) == []


def test_what_was_seen_before_it_was_known_what_is_stored_keeps_its_time():
    definitions = Definitions()
    look(definitions, a_definition(known_time=minute(1)), at=1)
    look(definitions, a_definition(known_time=minute(2)), at=2)

    definitions.note_stored({})

    assert definitions.due(0.0) == [a_definition(known_time=minute(1))]


def test_every_change_is_published_until_it_is_stored():
    definitions = knowing(a_definition(known_time=minute(0)))
    first = a_definition(known_time=minute(10), tick_size=0.1)
    second = a_definition(known_time=minute(11), tick_size=0.01)
    look(definitions, first, at=10)
    look(definitions, second, at=11)

    assert definitions.due(0.0) == [first, second]
    assert definitions.due(AGAIN_SECONDS - 1) == []
    assert definitions.due(AGAIN_SECONDS) == [first, second]

    definitions.note_stored({first.symbol: first})
    assert definitions.due(2 * AGAIN_SECONDS) == [second]
    definitions.note_stored({first.symbol: second})
    assert definitions.due(3 * AGAIN_SECONDS) == []


def test_a_store_that_forgets_gets_what_is_true_now():
    definitions = knowing(a_definition(known_time=minute(0)))
    definitions.note_stored({})

    look(definitions, a_definition(known_time=minute(30)), at=30)

    assert definitions.due(0.0) == [a_definition(known_time=minute(30))]


def test_the_end_of_an_instrument_is_a_definition_published_once():
    before = a_definition(known_time=minute(0))
    definitions = knowing(before)

    look(definitions, gone={"BTC_USDT": minute(90)}, at=100)
    look(definitions, gone={"BTC_USDT": minute(90)}, at=101)

    ended = a_definition(known_time=minute(100), state="expired", end_time=minute(90), receive_time=before.receive_time)
    assert definitions.due(0.0) == [ended]
    assert definitions.listed() == {"BTC_USDT": None}

    definitions.note_stored({"BTC_USDT": ended})
    assert definitions.listed() == {}


def test_an_instrument_that_was_never_listed_here_has_no_end():
    definitions = knowing()

    look(definitions, gone={"BTC_USDT": minute(90)}, at=100)

    assert definitions.due(0.0) == []


def test_a_clock_that_stood_ahead_does_not_put_an_older_word_before_a_newer_one():
    definitions = knowing(a_definition(known_time=minute(500)))

    look(definitions, a_definition(known_time=minute(400), tick_size=0.1), at=400)

    assert definitions.due(0.0) == []


@pytest.mark.invariant(12)
@pytest.mark.parametrize(
    "odd", [{"state": "rebase"}, {"state": "expired"}, {"list_time": minute(5)}, {"contract_value": 7.0}]
)
def test_one_odd_answer_is_no_change_of_an_instrument(odd):
    """Invariant 12: a life that ends is ended for good."""
    definitions = knowing(a_definition(known_time=minute(0)))

    definitions.note([a_definition(known_time=minute(1), **odd)], {}, minute(1))
    assert definitions.doubtful
    definitions.note([a_definition(known_time=minute(2))], {}, minute(2))
    assert not definitions.doubtful
    definitions.note([a_definition(known_time=minute(3), **odd)], {}, minute(3))

    assert definitions.due(0.0) == []


def test_what_two_looks_say_is_known_since_the_first():
    definitions = knowing(a_definition(known_time=minute(0)))

    look(definitions, a_definition(known_time=minute(1), state="rebase"), at=1)

    assert definitions.due(0.0) == [a_definition(known_time=minute(1), state="rebase", receive_time=minute(1))]
