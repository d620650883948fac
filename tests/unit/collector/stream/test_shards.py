"""Which connection carries which instrument."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.stream.shards import assign

SETS = st.lists(st.sets(st.integers(0, 60).map(lambda number: f"C{number}_USDT")), min_size=1, max_size=12)


def test_a_first_set_is_spread_evenly_over_as_many_connections_as_it_needs():
    assigned = assign({}, [f"C{number}" for number in range(450)], 200)

    assert Counter(assigned.values()) == {0: 150, 1: 150, 2: 150}


def test_a_new_instrument_goes_to_the_emptiest():
    current = {"A": 0, "B": 0, "C": 1}

    assert assign(current, ["A", "B", "C", "D"], 3)["D"] == 1


def test_an_emptied_shard_is_gone_and_its_number_free_again():
    current = {"A": 0, "B": 1}

    assert assign(current, ["B"], 1) == {"B": 1}
    assert assign({"B": 1}, ["B", "C"], 1) == {"B": 1, "C": 0}


@pytest.mark.invariant(10)
@given(sets=SETS, per_shard=st.integers(1, 20))
def test_whatever_the_sets_nobody_moves_and_no_connection_carries_too_much(sets, per_shard):
    current = {}
    for wanted in sets:
        assigned = assign(current, wanted, per_shard)

        assert assigned.keys() == wanted
        assert all(assigned[symbol] == current[symbol] for symbol in wanted & current.keys())
        assert max(Counter(assigned.values()).values(), default=0) <= per_shard
        current = assigned
