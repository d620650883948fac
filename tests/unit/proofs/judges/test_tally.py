"""One tally for all judges: what proves something, what is only shown, and what must be 0."""

from dataclasses import dataclass

import pytest

from proofs.judges.tally import Evidence, Fault, Role, Size, Tally


@dataclass
class FruitTally(Tally):
    baskets: Size = 0
    apples: Evidence = 0
    bruised: Fault = 0
    stolen: Fault = 0


def test_a_tally_is_clean_when_something_was_compared_and_nothing_is_at_fault():
    assert FruitTally(apples=1, baskets=3).clean
    assert not FruitTally(baskets=3).clean
    assert not FruitTally(apples=1, stolen=1).clean


def test_tallies_add_up_and_the_first_difference_stays():
    total = FruitTally(apples=1, bruised=2)
    total.add(FruitTally(apples=10, stolen=4, first="a green one"))
    total.add(FruitTally(baskets=1, first="a red one"))

    assert total.counts() == {"baskets": 1, "apples": 11, "bruised": 2, "stolen": 4}
    assert total.faults == 6
    assert total.first == "a green one"


def test_counts_are_in_the_order_of_their_declaration_and_can_be_chosen_by_role():
    assert [*FruitTally().counts()] == ["baskets", "apples", "bruised", "stolen"]
    assert [*FruitTally().counts(Role.FAULT)] == ["bruised", "stolen"]
    assert [*FruitTally().counts(Role.SIZE, Role.EVIDENCE)] == ["baskets", "apples"]


def test_an_undeclared_count_is_refused():
    with pytest.raises(TypeError):
        FruitTally(pears=1)
