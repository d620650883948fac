"""When history that came late is taken in: soon, though not at every row of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.history import History


@pytest.mark.parametrize(
    ("complete", "unchanged_seconds", "due"),
    [(True, 59, False), (True, 61, True), (False, 61, False), (False, 899, False), (False, 901, True)],
)
def test_history_is_taken_in_once_it_has_stopped_coming(complete, unchanged_seconds, due):
    history = History()
    history.note(5, now=100.0)

    assert history.is_due(complete, 100.0 + unchanged_seconds) is due


@given(st.booleans(), st.floats(1, 60), st.floats(0, 3000))
def test_history_that_never_stops_coming_is_taken_in_all_the_same_and_takes_a_small_share_of_the_time(
    complete, every_seconds, took_seconds
):
    history, taken_in, now = History(), [], 0.0
    for number in range(6000):
        now += every_seconds
        history.note(number + 1, now)
        if history.is_due(complete, now):
            history.tried = now
            now += took_seconds
            history.took_seconds = took_seconds
            taken_in.append(now)

    assert len(taken_in) * took_seconds <= took_seconds + now / 20
    if 6000 * every_seconds > 3700:
        assert taken_in


def test_history_that_is_in_qlib_is_forgotten():
    history = History()
    history.note(5, now=0.0)
    history.note(0, now=5000.0)
    history.note(1, now=9000.0)

    assert not history.is_due(True, 9001.0)
