"""Numbered rows: which minutes they prove whole, and what a hole in the numbers leaves missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.channels.sequence import Numbered, runs_of
from services.writer.disk.stored import whole_minutes
from shared.ledger.minutes import FULL_DAY, mask_from_minutes
from tests.support.builders import MIDNIGHT, minute

GAPS_OF_TIME = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def rows(pauses):
    """Return one row after the other, so many minutes apart, with numbers from 100 on."""
    at, found = 0, []
    for number, pause in enumerate(pauses):
        at += pause
        found.append((100 + number, at))
    return found


@pytest.mark.invariant(7)
@given(GAPS_OF_TIME, st.sets(st.integers(100, 159)))
def test_a_minute_is_whole_where_all_its_rows_are_there_and_the_ones_before_and_behind(pauses, lost):
    """Invariant 7: for the collector and for the writer, who come to it by different ways."""
    every = rows(pauses)
    kept = [row for row in every if row[0] not in lost]
    if not kept:
        return
    first, last = kept[0], kept[-1]
    truth = set()
    for number in range(first[1] + 1, last[1]):
        needed = {row for row in every if row[1] == number}
        needed.add(max(row for row in every if row[1] < number))
        needed.add(min(row for row in every if row[1] > number))
        if needed <= set(kept):
            truth.add(number)

    numbers, minutes = (np.array(column, np.int64) for column in zip(*kept, strict=True))
    assert whole_minutes(numbers, minutes) == mask_from_minutes(truth)
    gaps = [run.whole() for run in runs_of(Numbered(number, minute(at)) for number, at in kept)]
    assert {(gap.begin - MIDNIGHT).seconds // 60 + n for gap in gaps for n in range(gap.minutes)} == truth


def test_a_run_goes_on_from_the_day_before_into_the_day_behind():
    numbers = np.array([7, 8, 9, 10], np.int64)

    assert whole_minutes(numbers, np.array([-3, 5, 1439, 1441], np.int64)) == FULL_DAY
    assert whole_minutes(numbers, np.array([2, 5, 1439, 1441], np.int64)) == FULL_DAY & ~0b111
