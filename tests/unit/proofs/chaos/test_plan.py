"""What goes wrong in a chaos run is decided before it begins."""

from collections import Counter
from itertools import pairwise

import pytest

from proofs.chaos.plan import HOST, WIRE, chosen_kinds, schedule, shares, wire_arguments


def test_schedule_is_a_function_of_the_seed():
    assert schedule(7, 300, 0.5, HOST) == schedule(7, 300, 0.5, HOST)
    assert schedule(7, 300, 0.5, HOST) != schedule(8, 300, 0.5, HOST)


def test_strikes_come_in_order_and_leave_time_to_end():
    strikes = schedule(3, 600, 1.0, HOST)

    assert all(one.at <= other.at for one, other in pairwise(strikes))
    assert strikes[-1].at < 0.97 * 600
    assert all(strike.seconds > 0 and 0 <= strike.pick < 1 for strike in strikes)


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_comes_equally_often(seed: int):
    counts = Counter(strike.kind for strike in schedule(seed, 1000, 1.0, HOST))

    assert set(counts) == set(HOST)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_without_kinds_nothing_happens():
    assert schedule(1, 60, 1.0, ()) == []


def test_kinds_are_chosen_by_words_in_their_names():
    assert chosen_kinds("kill", "api,ranker") == ("kill writer", "kill collector", "kill converter", "redis killed")
    assert chosen_kinds("", "") == (*HOST, *WIRE)
    assert "drop" in chosen_kinds("", "redis, disk")
    assert not set(chosen_kinds("", "redis, disk")) & {"redis killed", "redis stopped", "redis emptied", "disk full"}


def test_the_simulator_gets_the_kinds_to_leave_out():
    arguments = wire_arguments(5, 0.5, ("kill writer", *WIRE[1:]))

    assert arguments[:5] == ["--chaos", "5", "--chaos-wall", "--rate", "30"]
    assert arguments[5:] == ["--chaos-without", WIRE[0]]
    assert wire_arguments(5, 0.5, HOST) == []


def test_rate_is_shared_by_the_number_of_kinds():
    host, wire = shares(1.0, ("kill writer", *WIRE[:3]))

    assert (host, wire) == (0.25, 0.75)
