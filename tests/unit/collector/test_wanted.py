"""Which minutes are wanted and missing: time is an argument here."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.wanted import GRACE, SURE, Request, Universe, Wanted, history_begin, pages, settle
from shared.coverage import Gap, mask_to_text, span_mask
from shared.grid import DAY, MINUTE
from shared.okx.rest import PAGE_CANDLES
from tests.support.builders import DAY_0, MIDNIGHT, a_ranking, minute

NOON = minute(720)


def a_universe(*members, now=NOON, backfill_days=0):
    universe = Universe(backfill_days)
    universe.apply(a_ranking(*members, ranked_time=now), now, {}, {})
    return universe


def see(wanted, *numbers):
    for number in numbers:
        wanted.seen.add(minute(number))


# --- who is wanted


def test_history_begins_so_many_whole_days_before_today():
    assert history_begin(NOON, 30) == MIDNIGHT - 30 * DAY
    assert history_begin(NOON + timedelta(seconds=30), 0) == NOON


def test_a_new_member_is_wanted_from_its_history_on():
    universe = a_universe("BTC_USDT", backfill_days=2)

    assert universe.members() == ["BTC_USDT"]
    assert universe.symbols["BTC_USDT"].gaps(NOON + GRACE) == [Gap(MIDNIGHT - 2 * DAY, NOON)]


def test_nothing_is_wanted_from_before_the_listing():
    universe = Universe(30)

    universe.apply(a_ranking("NEW_USDT"), NOON, {"NEW_USDT": minute(700) + timedelta(seconds=9)}, {})

    assert universe.symbols["NEW_USDT"].begin == minute(700)


def test_what_is_on_disk_is_not_wanted_again():
    universe = Universe(1)

    universe.apply(a_ranking("BTC_USDT"), NOON, {}, {DAY_0: {"BTC_USDT": mask_to_text(span_mask(10, 700))}})

    assert universe.symbols["BTC_USDT"].gaps(NOON + GRACE) == [
        Gap(MIDNIGHT - DAY, minute(10)),
        Gap(minute(701), NOON),
    ]


def test_those_that_stay_are_not_touched():
    universe = a_universe("BTC_USDT", "ETH_USDT")
    stays = universe.symbols["BTC_USDT"]
    see(stays, 720, 721)

    joined = universe.apply(a_ranking("BTC_USDT", "SOL_USDT", ranked_time=minute(722)), minute(722), {}, {})

    assert joined == ["SOL_USDT"]
    assert universe.symbols["BTC_USDT"] is stays
    assert stays.until is None
    assert stays.seen.count() == 2


def test_a_leaver_is_wanted_until_the_minute_that_was_open_when_it_left():
    universe = a_universe("BTC_USDT", "OLD_USDT")
    left = minute(722) + timedelta(seconds=30)
    universe.apply(a_ranking("BTC_USDT", ranked_time=left, removed=["OLD_USDT"]), left, {}, {})
    leaver = universe.symbols["OLD_USDT"]

    assert "OLD_USDT" in universe.members()
    see(leaver, 720, 721)
    assert universe.drop_done(minute(725)) == []
    assert leaver.gaps(minute(900)) == [Gap(minute(722), minute(723))]

    see(leaver, 722)
    assert universe.drop_done(minute(723)) == []  # it has just ended
    assert universe.drop_done(minute(723) + GRACE) == ["OLD_USDT"]
    assert universe.members() == ["BTC_USDT"]


def test_one_that_comes_back_before_it_is_gone_stays_with_what_it_has():
    universe = a_universe("BTC_USDT", "OLD_USDT")
    see(universe.symbols["OLD_USDT"], 720)
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(722)), minute(722), {}, {})

    joined = universe.apply(a_ranking("BTC_USDT", "OLD_USDT", ranked_time=minute(723)), minute(723), {}, {})

    assert joined == []
    assert universe.symbols["OLD_USDT"].until is None
    assert universe.symbols["OLD_USDT"].gaps(minute(725) + GRACE) == [Gap(minute(721), minute(725))]


def test_an_older_ranking_read_after_a_restart_only_tells_whose_last_minutes_may_be_missing():
    universe = a_universe("BTC_USDT", now=minute(800))
    older = a_ranking("BTC_USDT", "THIRD_USDT", ranked_time=minute(720), removed=["OLD_USDT"])

    joined = universe.apply(older, minute(801), {}, {})

    assert joined == []
    assert universe.ranked_time == minute(800)
    assert "THIRD_USDT" not in universe.symbols
    assert universe.symbols["BTC_USDT"].until is None
    assert universe.symbols["OLD_USDT"].until == minute(720)


def test_the_same_ranking_again_changes_nothing():
    universe = a_universe("BTC_USDT", "ETH_USDT")
    before = dict(universe.symbols)

    universe.apply(a_ranking("BTC_USDT", "ETH_USDT", ranked_time=NOON), NOON, {}, {})

    assert universe.symbols == before


# --- what is missing


@pytest.mark.invariant(7)
def test_a_minute_is_missing_once_it_should_have_arrived():
    """Invariant 7."""
    wanted = Wanted("BTC_USDT", NOON)

    assert wanted.gaps(minute(721) + GRACE - timedelta(milliseconds=1)) == []
    assert wanted.gaps(minute(721) + GRACE) == [Gap(minute(720), minute(721))]


@pytest.mark.invariant(13)
def test_a_row_of_a_later_minute_proves_that_earlier_ones_are_over():
    """Invariant 13: the exchange's own rows count, whatever the clock says."""
    wanted = Wanted("BTC_USDT", NOON, forming=minute(723))

    assert wanted.gaps(minute(721)) == [Gap(minute(720), minute(722))]


@pytest.mark.invariant(7)
@given(st.sets(st.integers(720, 800)), st.sets(st.integers(720, 800)))
def test_every_minute_is_seen_absent_or_missing(seen, absent):
    """Invariant 7: gaps, seen and absent are all, and what is settled is not missing."""
    wanted = Wanted("BTC_USDT", NOON)
    see(wanted, *seen)
    for number in absent:
        wanted.absent.add(minute(number))

    gaps = wanted.gaps(minute(801) + GRACE)

    missing = {number for number in range(720, 801) for gap in gaps if gap.begin <= minute(number) < gap.end}
    assert missing == set(range(720, 801)) - seen - absent


# --- pages


@given(st.integers(0, 5000), st.integers(1, 2000))
def test_pages_cover_a_gap_newest_first_in_pieces_that_fit(first, length):
    wanted, gap = Wanted("BTC_USDT", MIDNIGHT), Gap(minute(first), minute(first + length))

    found = list(pages(wanted, [gap], minute(first + length)))

    assert all(request.gap.minutes <= PAGE_CANDLES for request in found)
    assert sum(request.gap.minutes for request in found) == length
    assert found[0].gap.end == gap.end
    assert found[-1].gap.begin == gap.begin


def test_the_last_day_is_asked_of_the_recent_endpoint_and_the_rest_of_history():
    now = minute(5 * 1440)
    wanted = Wanted("BTC_USDT", MIDNIGHT)
    gaps = [Gap(now - 2 * DAY, now - 2 * DAY + MINUTE), Gap(now - MINUTE, now)]

    assert [request.recent for request in pages(wanted, gaps, now)] == [True, False]


def test_what_the_recent_endpoint_did_not_give_is_asked_of_history():
    wanted, gap = Wanted("BTC_USDT", NOON), Gap(minute(720), minute(722))
    now = minute(740)

    settle(wanted, Request("BTC_USDT", gap, recent=True), now)

    assert wanted.absent.count() == 0
    assert [request.recent for request in pages(wanted, wanted.gaps(now)[:1], now)] == [False]


@pytest.mark.invariant(7)
def test_only_history_asked_well_after_the_minute_is_believed_when_it_has_no_row():
    """Invariant 7: confirmed absent by the exchange, not by an endpoint that holds one day only."""
    wanted, gap = Wanted("BTC_USDT", NOON), Gap(minute(720), minute(730))
    see(wanted, 721)
    now = minute(725) + SURE

    settle(wanted, Request("BTC_USDT", gap, recent=False), now)

    assert wanted.absent.gaps(minute(720), minute(730)) == [
        Gap(minute(721), minute(722)),
        Gap(minute(725), minute(730)),
    ]


# --- what was lost on the way


@pytest.mark.invariant(3)
def test_what_was_handed_on_and_never_became_durable_is_missing_again():
    """A Redis that came back empty loses entries that nobody else would ask for."""
    universe = a_universe("BTC_USDT")
    see(universe.symbols["BTC_USDT"], 720, 721, 722)
    assert universe.take_back_lost({DAY_0: {}}) == 0  # the writer gets until the next look
    see(universe.symbols["BTC_USDT"], 723)

    lost = universe.take_back_lost({DAY_0: {"BTC_USDT": "720-721"}})

    assert lost == 1
    assert universe.symbols["BTC_USDT"].gaps(minute(724) + GRACE) == [Gap(minute(722), minute(723))]
