"""Invariant 6: who was a member when, as Qlib reads it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.universe import all_lines, market_lines, spans
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
