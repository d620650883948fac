"""What the exchange's answers say of its clock."""

import pytest

from shared.exchanges.base import RowError
from shared.exchanges.okx.times import exchange_time_of, newest_time_of
from shared.grid import from_ms


@pytest.mark.invariant(13)
@pytest.mark.parametrize("rows", [[], [{"ts": ""}], [{"time": "1"}], [{"ts": "1"}], [5], [[]], [{"ts": None}]])
def test_an_answer_without_a_time_is_a_spelling_error(rows):
    """Invariant 13."""
    with pytest.raises(RowError):
        exchange_time_of(rows)


@pytest.mark.invariant(13)
def test_the_newest_rows_are_as_old_as_the_middle_of_them():
    """Invariant 13: no single row decides what time it is."""
    rows = [{"ts": str(1789824243000 + number)} for number in range(5)]

    assert newest_time_of([*rows, {"ts": "4000000000000"}, {"ts": "x"}, 5]) == from_ms(1789824243003)
    assert newest_time_of([5, {}]) is None
