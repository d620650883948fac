"""Minutes as bit masks, judged by plain sets of minutes."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.grid import DAY, MINUTE
from shared.ledger.minutes import (
    FULL_DAY,
    Coverage,
    Gap,
    Lacking,
    mask_from_minutes,
    mask_from_text,
    mask_to_text,
    runs,
    split_gap,
)
from tests.support.builders import DAY_0, MIDNIGHT, minute

MINUTES = st.sets(st.integers(0, 1439))
THREE_DAYS = st.integers(-1440, 2880)
SPANS = st.tuples(THREE_DAYS, THREE_DAYS).map(sorted)


def naive(gaps):
    return {
        gap.begin + number * MINUTE for gap in gaps for number in range((gap.end - gap.begin) // timedelta(minutes=1))
    }


@given(MINUTES)
def test_the_text_of_a_mask_reads_back(minutes):
    mask = mask_from_minutes(minutes)

    assert mask_from_text(mask_to_text(mask)) == mask


@given(MINUTES)
def test_runs_are_the_minutes_in_order_and_never_touch(minutes):
    found = list(runs(mask_from_minutes(minutes)))

    assert [number for first, last in found for number in range(first, last + 1)] == sorted(minutes)
    assert all(following[0] > before[1] + 1 for before, following in pairwise(found))


def test_a_mask_is_spelled_as_inclusive_runs():
    assert mask_to_text(FULL_DAY & ~(1 << 100)) == "0-99,101-1439"


@given(st.lists(THREE_DAYS, max_size=60), SPANS)
@pytest.mark.invariant(7)
def test_gaps_and_seen_are_the_expected_span_and_disjoint(seen, span):
    """Invariant 7: every minute of the span is either seen or in a gap, never both."""
    begin, end = minute(span[0]), minute(span[1])
    coverage = Coverage()
    for number in seen:
        coverage.add(minute(number))

    missing = naive(coverage.gaps(begin, end))

    expected = {minute(number) for number in range(*span)}
    assert missing == expected - {minute(number) for number in seen}
    assert all(instant not in coverage for instant in missing)


@given(st.lists(THREE_DAYS, max_size=60), SPANS)
def test_gaps_are_sorted_and_joined_across_midnight(seen, span):
    coverage = Coverage()
    for number in seen:
        coverage.add(minute(number))

    gaps = coverage.gaps(minute(span[0]), minute(span[1]))

    assert all(before.end < following.begin for before, following in pairwise(gaps))
    assert sum(gap.minutes for gap in gaps) == len(naive(gaps))


@st.composite
def operations(draw):
    kind = draw(st.sampled_from(["add", "add_span", "discard", "add_mask"]))
    if kind == "add_span":
        return kind, draw(SPANS)
    return kind, draw(MINUTES) if kind == "add_mask" else draw(THREE_DAYS)


@given(st.lists(operations(), max_size=12))
def test_a_coverage_behaves_like_a_set_of_minutes(steps):
    coverage, model = Coverage(), set()
    for kind, value in steps:
        if kind == "add":
            assert coverage.add(minute(value)) == (value not in model)
            model.add(value)
        elif kind == "discard":
            coverage.discard(minute(value))
            model.discard(value)
        elif kind == "add_span":
            coverage.add_span(minute(value[0]), minute(value[1]))
            model |= set(range(*value))
        else:
            coverage.add_mask(DAY_0, mask_from_minutes(value))
            model |= value

    assert coverage.count() == len(model)
    assert all((minute(number) in coverage) == (number in model) for number in range(-1440, 2880, 7))
    assert naive(coverage.gaps(minute(-1440), minute(2880))) == {
        minute(number) for number in range(-1440, 2880) if number not in model
    }


@st.composite
def changes(draw):
    """Return a method of a coverage with its arguments."""
    kind = draw(st.sampled_from(["add", "discard", "add_span", "discard_mask", "forget_before"]))
    number = draw(THREE_DAYS)
    day = DAY_0 + (number // 1440) * DAY
    arguments = {
        "add": (minute(number),),
        "discard": (minute(number),),
        "add_span": tuple(map(minute, draw(SPANS))),
        "discard_mask": (day, mask_from_minutes(draw(MINUTES))),
        "forget_before": (day,),
    }
    return kind, arguments[kind]


@given(st.lists(st.one_of(changes(), SPANS), max_size=20))
@pytest.mark.invariant(7)
def test_what_lacks_is_the_same_whether_all_days_are_looked_at_or_those_that_changed(steps):
    """Invariant 7: whatever is added, forgotten or asked for, and wherever the window goes."""
    coverage = Coverage({DAY_0: FULL_DAY, DAY_0 + DAY: FULL_DAY})
    lacking = Lacking(lambda day: coverage.days.get(day, 0))
    coverage.note_changes(lacking.changed)
    for step in [*steps, (-1440, 2880)]:
        if isinstance(step[0], str):
            getattr(coverage, step[0])(*step[1])
        else:
            begin, end = map(minute, step)
            assert lacking.gaps(begin, end) == coverage.gaps(begin, end)
            assert lacking.gaps(begin, end) == coverage.gaps(begin, end)


@pytest.mark.invariant(9)
def test_a_day_that_did_not_change_is_not_looked_at_again():
    """Invariant 9: what it costs follows what is new, not how long the history is."""
    coverage, looked_at = Coverage(), []
    coverage.add_span(MIDNIGHT - 90 * DAY, MIDNIGHT + 5 * MINUTE)
    lacking = Lacking(lambda day: looked_at.append(day) or coverage.days.get(day, 0))
    coverage.note_changes(lacking.changed)
    lacking.gaps(MIDNIGHT - 90 * DAY, minute(5))
    assert len(looked_at) == 91
    looked_at.clear()

    for number in range(5, 9):
        assert lacking.gaps(MIDNIGHT - 90 * DAY, minute(number + 1)) == [Gap(minute(5), minute(number + 1))]
    assert looked_at == []
    coverage.add(minute(5))
    coverage.discard(minute(-2000))
    assert len(lacking.gaps(MIDNIGHT - 90 * DAY, minute(9))) == 2
    assert sorted(looked_at) == [DAY_0 - 2 * DAY, DAY_0]


@pytest.mark.invariant(11)
def test_forgotten_days_cost_no_memory_and_the_others_stay():
    """Invariant 11."""
    coverage = Coverage()
    coverage.add_span(MIDNIGHT - 2 * DAY, MIDNIGHT + DAY)

    coverage.forget_before(DAY_0)

    assert coverage.days == {DAY_0: FULL_DAY}


def test_a_span_may_begin_between_minutes():
    coverage = Coverage()

    coverage.add_span(minute(3) + timedelta(seconds=1), minute(5) + timedelta(seconds=1))

    assert list(runs(coverage.days[DAY_0])) == [(4, 5)]


@given(SPANS, st.integers(1, 400))
def test_a_gap_is_split_exactly_newest_first(span, size):
    gap = Gap(minute(span[0]), minute(span[1]))

    pieces = split_gap(gap, size)

    assert all(0 < piece.minutes <= size for piece in pieces)
    assert pieces == sorted(pieces, reverse=True)
    assert naive(pieces) == naive([gap])
    assert sum(piece.minutes for piece in pieces) == gap.minutes
