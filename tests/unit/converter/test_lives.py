"""Which instrument a name stood for: lives follow from what the exchange said, and end what was known."""

import itertools

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.judges.recompute import births_of
from services.converter.lives import LONG_AGO, Definition, Life, contract_values, lives_of

MINUTE = 60_000


def said(known, state="live", listed=0, ended=None, value=None):
    """Return what was said at a minute, of a listing and an end at minutes."""
    in_ms = [None if number is None else number * MINUTE for number in (listed, ended)]
    return Definition(known * MINUTE, state, *in_ms, value)


def spans(*definitions):
    """Return the lives as (begin, end), in minutes."""
    return [
        (life.begin if life.begin == LONG_AGO else life.begin // MINUTE, life.end and life.end // MINUTE)
        for life in lives_of(definitions)
    ]


def test_an_instrument_that_goes_on_has_one_life_whatever_else_changes():
    assert spans(said(10), said(20, "suspend"), said(30), said(40, value=0.1)) == [(0, None)]


def test_nothing_is_known_where_nothing_was_said():
    assert spans() == []


def test_a_listing_of_which_no_time_was_given_began_long_ago():
    assert spans(said(10, listed=None)) == [(LONG_AGO, None)]


def test_an_end_is_the_one_that_was_given():
    assert spans(said(10), said(50, "expired", ended=45)) == [(0, 45)]


def test_an_end_of_which_no_time_was_given_was_when_it_was_seen():
    assert spans(said(10), said(50, "expired")) == [(0, 50)]


def test_an_end_that_is_merely_announced_is_none():
    assert spans(said(10), said(20, ended=100)) == [(0, None)]


def test_a_name_that_is_listed_again_has_another_life():
    assert spans(said(10), said(50, "expired", ended=45), said(200, listed=190)) == [(0, 45), (190, None)]


def test_a_name_is_another_instruments_though_nobody_saw_the_end_of_the_first():
    assert spans(said(10), said(200, listed=190)) == [(0, 190), (190, None)]


def test_an_end_that_turns_out_to_be_none_is_taken_back():
    assert spans(said(10), said(50, "expired", ended=45), said(60)) == [(0, None)]


DAY = 1_440


@pytest.mark.parametrize("listed", [0, None, 40])
def test_what_is_traded_long_after_its_end_is_another_life_from_when_it_was_known_to_be_back(listed):
    ended = [said(10), said(50, "expired", ended=45)]

    assert spans(*ended, said(100 * DAY, listed=listed)) == [(0, 45), (100 * DAY, None)]
    assert spans(*ended, said(100 * DAY, listed=listed), said(101 * DAY, listed=listed)) == [(0, 45), (100 * DAY, None)]


def test_what_is_back_and_listed_after_its_end_began_with_its_listing():
    assert spans(said(10), said(50, "expired", ended=45), said(200, "preopen", None), said(300, listed=250)) == [
        (0, 45),
        (250, None),
    ]


def test_a_redenomination_after_an_end_does_not_prolong_the_life_that_ended():
    assert spans(said(10), said(50, "expired", ended=45), said(100 * DAY, "rebase")) == [(0, 45), (100 * DAY, None)]


def test_an_end_that_is_said_twice_was_known_the_first_time():
    assert spans(said(10), said(50, "expired"), said(64, "expired", ended=50), said(66)) == [(0, 50), (66, None)]


def test_a_listing_that_is_moved_before_trading_is_the_same_life():
    assert spans(said(10, "preopen", 100), said(20, "preopen", 150), said(151, listed=150)) == [(150, None)]


def test_a_second_listing_that_is_moved_before_trading_is_one_life():
    last = [said(60, "preopen", 100), said(70, "preopen", 150), said(151, listed=150)]
    assert spans(said(10), said(50, "expired", ended=45), *last) == [(0, 45), (150, None)]


def test_a_redenomination_ends_a_life_and_begins_one():
    assert spans(said(10), said(50, "rebase"), said(60), said(70)) == [(0, 50), (50, None)]


def test_a_redenomination_that_was_under_way_at_the_first_look_ends_a_life():
    assert spans(said(50, "rebase"), said(60)) == [(0, 50), (50, None)]


def test_two_redenominations_make_three_lives():
    assert spans(said(10), said(50, "rebase"), said(60), said(80, "rebase"), said(90)) == [
        (0, 50),
        (50, 80),
        (80, None),
    ]


def test_what_a_contract_is_worth_after_a_redenomination_is_not_what_is_said_during_it():
    definitions = [Definition(at, state, 0, None, worth) for at, state, worth in ((1, "live", 5.0), (2, "rebase", 5.0))]
    assert contract_values(definitions) == [(1, 5.0)]
    assert contract_values([*definitions, Definition(3, "live", 0, None, 0.5)]) == [(1, 5.0), (3, 0.5)]


def test_a_life_begins_on_a_minute():
    assert lives_of([Definition(90_000, "live", 61_234, None, None)])[0] == Life(60_000, None, 90_000)


SAID = st.builds(
    said,
    st.integers(0, 300),
    st.sampled_from(["live", "suspend", "rebase", "preopen", "expired", "", "post_only"]),
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 300),
    st.none() | st.floats(0.1, 10),
)


@given(st.lists(SAID, max_size=8, unique_by=lambda one: one.known), st.randoms())
def test_lives_do_not_overlap_and_do_not_depend_on_the_order_in_which_they_are_read(definitions, chance):
    shuffled = list(definitions)
    chance.shuffle(shuffled)

    lives = lives_of(definitions)

    assert lives == lives_of(shuffled)
    assert bool(lives) == bool(definitions)
    for one, other in itertools.pairwise(lives):
        assert one.begin <= other.begin
        assert one.end is not None
        assert one.end <= other.begin


@settings(max_examples=2_000, deadline=None)
@given(st.lists(SAID, max_size=8, unique_by=lambda one: one.known))
def test_the_judge_finds_the_same_lives(definitions):
    """Two implementations, written apart."""
    rows = [
        {"known_time": one.known, "state": one.state, "list_time": one.listed, "end_time": one.ended}
        for one in sorted(definitions)
    ]

    births = births_of(pd.DataFrame(rows) if rows else None)

    assert [max(birth, -1) for birth in births.tolist()] == [max(life.begin, -1) for life in lives_of(definitions)]


@pytest.mark.invariant(5)
@given(st.lists(SAID, max_size=8, unique_by=lambda one: one.known), st.integers(0, 300))
def test_what_is_said_later_does_not_change_the_value_of_a_contract_before(definitions, cut):
    early = [one for one in definitions if one.known < cut * MINUTE]

    assert contract_values(early) == [row for row in contract_values(definitions) if row[0] < cut * MINUTE]
