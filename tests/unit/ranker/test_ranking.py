from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ranker.ranking import Market, rank, ranking_of, score
from tests.support.builders import MIDNIGHT, a_prediction, a_ranking, an_instrument


def places(rates, *, instruments=None, rank_by="raw", top_n=2):
    if instruments is None:
        instruments = {rate.symbol: an_instrument(rate.symbol) for rate in rates}
    return rank(rates, instruments, ranked_time=MIDNIGHT, rank_by=rank_by, top_n=top_n)


def symbols(ranks):
    return [place.symbol for place in ranks]


def test_the_largest_absolute_rate_is_first():
    ranks = places([a_prediction("A", 0.001), a_prediction("B", -0.003), a_prediction("C", 0.002)])

    assert [(place.symbol, place.rank, place.member) for place in ranks] == [
        ("B", 1, True),
        ("C", 2, True),
        ("A", 3, False),
    ]
    assert ranks[0].funding_rate == -0.003
    assert ranks[0].score == 0.003


@given(
    st.permutations([a_prediction(symbol, rate) for symbol, rate in zip("ABCDE", (1, -1, 1, 0.5, -0.5), strict=True)])
)
def test_ties_go_by_symbol_whatever_the_order_of_arrival(rates):
    assert symbols(places(rates)) == ["A", "B", "C", "D", "E"]


def test_per_8h_compares_as_if_all_settled_every_8_hours():
    rates = [
        a_prediction("HOURLY", 0.001, interval_hours=1),
        a_prediction("EIGHT", 0.003, interval_hours=8),
        a_prediction("UNKNOWN", 0.004, interval_hours=None),
    ]

    assert symbols(places(rates, rank_by="raw")) == ["UNKNOWN", "EIGHT", "HOURLY"]
    assert symbols(places(rates, rank_by="per_8h")) == ["HOURLY", "UNKNOWN", "EIGHT"]
    assert score(rates[0], "per_8h") == pytest.approx(0.008)


@pytest.mark.parametrize(
    "change",
    [{"state": "preopen"}, {"state": "suspend"}, {"category": "3"}, {"category": "4"}, {"contract_type": ""}],
)
def test_what_is_not_a_live_crypto_swap_is_not_ranked(change):
    instruments = {"A": an_instrument("A"), "B": an_instrument("B", **change)}

    assert symbols(places([a_prediction("A", 0.001), a_prediction("B", 0.9)], instruments=instruments)) == ["A"]


def test_a_rate_without_an_instrument_is_not_ranked():
    assert symbols(places([a_prediction("A"), a_prediction("XPERP", 0.9)], instruments={"A": an_instrument("A")})) == [
        "A"
    ]


@pytest.mark.invariant(6)
def test_a_ranking_keeps_every_swap_members_or_not():
    """Invariant 6: the whole ranking, with rate, interval and place."""
    rates = [a_prediction(symbol, 0.001 * place, interval_hours=4) for place, symbol in enumerate("ABCDEFG", start=1)]

    ranking = ranking_of(places(rates, top_n=3), None, top_n=3)

    assert ranking.members == ranking.added == ("G", "F", "E")
    assert [place.rank for place in ranking.ranks] == list(range(1, 8))
    assert {place.interval_hours for place in ranking.ranks} == {4}
    assert {place.funding_time for place in ranking.ranks} == {MIDNIGHT + timedelta(hours=8)}


def test_who_joined_and_who_left_is_reported():
    ranks = places([a_prediction("A", 0.3), a_prediction("B", 0.2), a_prediction("C", 0.1)])

    ranking = ranking_of(ranks, a_ranking("C", "A"), top_n=2)

    assert (ranking.members, ranking.added, ranking.removed) == (("A", "B"), ("B",), ("C",))


def test_fewer_swaps_than_places_are_all_members():
    assert all(place.member for place in places([a_prediction("A")], top_n=50))


# --- what does not rank, and what should be there


def test_a_rate_that_is_flagged_does_not_rank_however_large_it_is():
    rates = [a_prediction("EVIL", 0.99, flag="beyond 5%"), a_prediction("B", 0.001)]

    assert symbols(places(rates)) == ["B"]


def a_market(*names, unrated=(), names_only=()):
    return Market(
        {name: an_instrument(name) for name in names},
        {name: a_prediction(name) for name in names if name not in unrated},
        frozenset({*names, *names_only}),
    )


def test_what_should_be_there_is_what_was_ranked_and_what_is_traded():
    market = a_market("A", "B", "C", unrated=["C"])

    assert market.unrated == ["C"]
    assert market.lacking(["A", "D"]) == ["C", "D"]
    assert (market | a_market("C", "D")).lacking(["A", "D"]) == []


@pytest.mark.parametrize(("names", "thin"), [("ABCD", False), ("AB", False), ("A", True), ("", True), ("XYZ", True)])
def test_lists_without_most_of_those_ranked_last_are_thin(names, thin):
    assert (a_market(*names).thin("ABCD") is not None) == thin


def test_at_the_first_ranking_lists_that_agree_are_not_thin():
    assert a_market("A").thin([]) is None
    assert a_market("A", "B", unrated=["B"]).thin([]) is None


def test_at_the_first_ranking_either_list_shows_that_the_other_one_is_thin():
    cut_rates = a_market("A", "B", "C", unrated=["B", "C"])
    cut_list = Market(a_market("A").instruments, a_market("A", "B", "C").rates, frozenset({"A"}))

    assert cut_rates.thin([]) == "less than half of the 3 eligible swaps have a rate"
    assert cut_list.thin([]) == "less than half of the 3 swaps with a rate are in the list of swaps"
    assert cut_list.lacking([]) == ["B", "C"]
