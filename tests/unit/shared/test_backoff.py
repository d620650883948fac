import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import backoff_seconds


@pytest.mark.invariant(11)
@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_waiting_stays_within_its_bounds_for_ever(attempt, roll):
    """Invariant 11: capped and jittered, whatever the number of the attempt."""
    wait = backoff_seconds(attempt, first=0.5, cap=15.0, roll=roll)

    assert 0.35 <= wait <= 15.0 * 1.3


def test_waiting_doubles_until_the_cap():
    waits = [backoff_seconds(attempt, first=1.0, cap=10.0, roll=0.5) for attempt in range(6)]

    assert waits == pytest.approx([1, 2, 4, 8, 10, 10])


def test_a_crowd_does_not_come_back_in_step():
    assert len({backoff_seconds(3) for _ in range(50)}) > 40
