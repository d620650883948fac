"""Invariant 6: who was a member when, as Qlib reads it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.lives import LONG_AGO, Life
from services.converter.qlib.instruments import all_lines, delisted_lines, market_lines, spans
from shared.grid import to_ms
from tests.support.builders import at, minute

pytestmark = pytest.mark.invariant(6)

SECONDS = st.integers(0, 40 * 60 * 1000).map(lambda tick: tick / 1000)
RANKINGS = st.dictionaries(SECONDS, st.frozensets(st.sampled_from("ABC")), max_size=6).map(
    lambda found: [(minute(0) + timedelta(seconds=second), found[second]) for second in sorted(found)]
)


def read(text):
    """Read an instruments file as Qlib does: both ends inclusive."""
    rows = [line.split("\t") for line in text.splitlines()]
    return [(symbol, at(first), at(last)) for symbol, first, last in rows]


@given(RANKINGS)
def test_a_bar_is_a_members_only_if_it_opened_during_membership(rankings):
    """Invariant 6, minute by minute."""
    rows = read(market_lines(spans(rankings)))

    for number in range(60):
        opened = minute(number)
        in_force = [members for ranked, members in rankings if ranked <= opened]
        expected = in_force[-1] if in_force else frozenset()
        listed = [symbol for symbol, first, last in rows if first <= opened <= last]
        assert sorted(listed) == sorted(expected)


@given(RANKINGS)
def test_spans_of_a_symbol_are_in_order_and_never_touch(rankings):
    for parts in spans(rankings).values():
        ends = [end for _, end in parts[:-1]]
        begins = [begin for begin, _ in parts[1:]]
        assert all(end is not None and end < begin for end, begin in zip(ends, begins, strict=True))


def test_a_member_that_left_and_came_back_has_two_rows():
    rankings = [
        (at("2025-04-05 00:00:03.250"), frozenset("A")),
        (at("2025-04-05 08:00:02.500"), frozenset("B")),
        (at("2025-04-05 16:00:00"), frozenset("AB")),
    ]

    assert market_lines(spans(rankings)).splitlines() == [
        "A\t2025-04-05 00:00:04\t2025-04-05 08:00:02",
        "A\t2025-04-05 16:00:00\t2099-12-31 23:59:59",
        "B\t2025-04-05 08:00:03\t2099-12-31 23:59:59",
    ]


def test_a_bar_that_opens_at_the_ranking_itself_belongs_to_the_new_members():
    rankings = [(at("2025-04-05 00:00"), frozenset("A")), (at("2025-04-05 08:00"), frozenset("B"))]

    assert market_lines(spans(rankings)).splitlines() == [
        "A\t2025-04-05 00:00:00\t2025-04-05 07:59:59",
        "B\t2025-04-05 08:00:00\t2099-12-31 23:59:59",
    ]


def test_a_delisted_symbol_keeps_its_span():
    rankings = [(at("2025-04-05 00:00"), frozenset("AB")), (at("2025-04-06 00:00"), frozenset("B"))]

    assert "A\t2025-04-05 00:00:00\t2025-04-05 23:59:59\n" in market_lines(spans(rankings))


def test_all_lists_one_row_a_symbol_over_whole_days():
    text = all_lines({"B": (minute(700), minute(1500)), "A": (minute(0), minute(0))})

    assert text == "A\t2025-04-05 00:00:00\t2025-04-05 23:59:59\nB\t2025-04-05 00:00:00\t2025-04-06 23:59:59\n"


def lives(*spans):
    return [Life(to_ms(minute(begin)), None if end is None else to_ms(minute(end))) for begin, end in spans]


def test_each_instrument_that_a_name_stood_for_has_its_row_and_they_meet_where_the_next_one_begins():
    text = all_lines({"A": (minute(100), minute(3000))}, {"A": lives((-5000, 600), (1500, 2000), (2000, None))})

    assert text.splitlines() == [
        "A\t2025-04-05 00:00:00\t2025-04-06 00:59:59",
        "A\t2025-04-06 01:00:00\t2025-04-06 09:19:59",
        "A\t2025-04-06 09:20:00\t2025-04-07 23:59:59",
    ]


@pytest.mark.parametrize("begin", [50, 100, 3001, 9000], ids=["before", "with", "just after", "after the bars"])
def test_a_life_that_begins_outside_of_the_bars_parts_nothing(begin):
    assert len(all_lines({"A": (minute(100), minute(3000))}, {"A": lives((begin, None))}).splitlines()) == 1


BARS = {"A": (minute(100), minute(3000))}


def delisted(*spans, until=9000):
    return delisted_lines(BARS, {"A": lives(*spans)}, minute(until))


def test_an_instrument_that_was_followed_to_its_end_is_delisted():
    assert delisted((-5000, 3001)) == "A\t2025-04-05 01:40:00\t2025-04-07 02:00:00\n"


def test_one_that_stood_still_before_its_end_is_delisted_at_its_end():
    assert delisted((-5000, 3500)) == "A\t2025-04-05 01:40:00\t2025-04-07 10:19:00\n"


def test_one_that_was_let_go_long_before_its_end_is_not_delisted_for_the_dataset():
    assert not delisted((-5000, 3001 + 1441))


def test_one_that_is_still_there_is_not_delisted():
    assert not delisted((-5000, None))


@pytest.mark.invariant(5)
def test_an_end_that_the_calendar_has_not_reached_is_not_known():
    """Invariant 5: a delisting that lies ahead of the newest bar would be a look into the future."""
    assert not delisted((-5000, 3001), until=3000)
    assert delisted((-5000, 3001), until=3001)


def test_an_earlier_life_is_delisted_and_the_later_one_is_not():
    assert delisted((-5000, 600), (1500, None)) == "A\t2025-04-05 01:40:00\t2025-04-05 09:59:00\n"


def test_a_life_before_the_first_bar_is_not_in_the_dataset():
    assert not delisted((-5000, 60), (90, None))


def test_the_begin_of_a_life_that_nobody_knows_is_the_first_bar():
    life = Life(LONG_AGO, to_ms(minute(3001)))

    assert delisted_lines(BARS, {"A": [life]}, minute(9000)) == "A\t2025-04-05 01:40:00\t2025-04-07 02:00:00\n"
