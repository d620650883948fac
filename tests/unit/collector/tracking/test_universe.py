"""Who is wanted, from when until when, and what of it is published and accounted for: time is an argument here."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.tracking.instrument import GRACE
from services.collector.tracking.universe import Reach, Tracker, history_begin
from shared.datasets.ledger import CANDLES
from shared.grid import DAY, MINUTE
from shared.ledger.day import DayLedger
from shared.ledger.minutes import FULL_DAY, Gap, span_mask
from shared.ledger.replica import LedgerCopy
from tests.support.builders import DAY_0, MIDNIGHT, a_ledger_copy, a_ranking, minute
from tests.support.tracked import NOON, see


def a_ledger(about=CANDLES, **symbols):
    """Return a copy of the ledger of DAY_0."""
    return a_ledger_copy({DAY_0: symbols}, about)


def a_universe(*members, now=NOON, ledger=None, about=CANDLES, **reach):
    usual = {"backfill_days": 0, "leaver_grace": timedelta(0)}
    universe = Tracker(Reach(**usual | reach), ledger or LedgerCopy(exchange="okx"), about)
    universe.apply(a_ranking(*members, ranked_time=now), now, {})
    know_funding(universe)
    return universe


def know_funding(universe):
    for wanted in universe.symbols.values():
        wanted.asked = True


# --- who is wanted


def test_history_begins_so_many_whole_days_before_today():
    assert history_begin(NOON, 30) == MIDNIGHT - 30 * DAY
    assert history_begin(NOON + timedelta(seconds=30), 0) == NOON


def test_a_new_member_is_wanted_from_its_history_on():
    universe = a_universe("BTC_USDT", backfill_days=2)

    assert universe.followed(NOON) == ["BTC_USDT"]
    assert universe.symbols["BTC_USDT"].gaps(NOON + GRACE) == [Gap(MIDNIGHT - 2 * DAY, NOON)]


def test_nothing_is_wanted_from_before_the_listing():
    universe = Tracker(Reach(30), LedgerCopy(exchange="okx"))

    universe.apply(a_ranking("NEW_USDT"), NOON, {"NEW_USDT": minute(700) + timedelta(seconds=9)})

    assert universe.symbols["NEW_USDT"].begin == minute(700)


def test_what_is_on_disk_is_not_wanted_again():
    known = DayLedger(received=span_mask(10, 300), healed=span_mask(301, 699), absent=1 << 700)

    universe = a_universe("BTC_USDT", backfill_days=1, ledger=a_ledger(BTC_USDT=known))

    assert universe.symbols["BTC_USDT"].gaps(NOON + GRACE) == [
        Gap(MIDNIGHT - DAY, minute(10)),
        Gap(minute(701), NOON),
    ]


def test_those_that_stay_are_not_touched():
    universe = a_universe("BTC_USDT", "ETH_USDT")
    stays = universe.symbols["BTC_USDT"]
    see(stays, 720, 721)

    joined = universe.apply(a_ranking("BTC_USDT", "SOL_USDT", ranked_time=minute(722)), minute(722), {})

    assert joined == ["SOL_USDT"]
    assert universe.symbols["BTC_USDT"] is stays
    assert stays.until is None
    assert stays.seen.count() == 2


@pytest.mark.invariant(7)
def test_without_a_grace_time_a_leaver_is_wanted_until_the_minute_that_was_open_when_it_left():
    ledger = LedgerCopy(exchange="okx")
    universe = a_universe("BTC_USDT", "OLD_USDT", ledger=ledger)
    left = minute(722) + timedelta(seconds=30)
    universe.apply(a_ranking("BTC_USDT", ranked_time=left, removed=["OLD_USDT"]), left, {})
    leaver = universe.symbols["OLD_USDT"]

    assert "OLD_USDT" in universe.followed(minute(723))
    assert "OLD_USDT" not in universe.followed(minute(723) + GRACE)  # what it lacks comes over REST
    see(leaver, 720, 721)
    assert universe.drop_done(minute(725)) == []
    assert leaver.gaps(minute(900)) == [Gap(minute(722), minute(723))]

    see(leaver, 722)
    ledger[CANDLES].replace(DAY_0, {"OLD_USDT": DayLedger(wanted=span_mask(720, 722))})
    assert universe.drop_done(minute(723)) == []  # it has just ended
    assert universe.drop_done(minute(723) + GRACE) == ["OLD_USDT"]
    assert universe.followed(minute(724)) == ["BTC_USDT"]


def test_a_leaver_is_followed_for_its_grace_time():
    universe = a_universe("BTC_USDT", "OLD_USDT", leaver_grace=timedelta(hours=9))
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(730)), minute(730), {})

    assert universe.leavers == ["OLD_USDT"]
    assert universe.symbols["OLD_USDT"].until == minute(730 + 540)
    assert universe.symbols["OLD_USDT"].gaps(minute(2000)) == [Gap(NOON, minute(1270))]


def test_one_that_returns_within_the_grace_time_has_no_hole_and_one_that_leaves_again_has_a_new_grace_time():
    universe = a_universe("BTC_USDT", "OLD_USDT", leaver_grace=timedelta(hours=9))
    known = universe.symbols["OLD_USDT"]
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(730)), minute(730), {})
    universe.apply(a_ranking("BTC_USDT", "OLD_USDT", ranked_time=minute(1200)), minute(1200), {})

    assert universe.symbols["OLD_USDT"] is known
    assert known.until is None
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(1680)), minute(1680), {})
    assert known.until == minute(1680 + 540)


@pytest.mark.invariant(7)
@pytest.mark.parametrize(
    ("wanted", "since"),
    [(span_mask(7, 99), 100), (span_mask(7, 49), 50), (0, 7)],
    ids=["all of it", "died before it said the rest", "died before it said any"],
)
@pytest.mark.parametrize("backfill_days", [0, 1])
def test_what_was_missed_while_the_collector_was_down_is_wanted(backfill_days, wanted, since):
    """Invariant 7: the ledger knows up to when the symbol was collected, and what of that was wanted."""
    ledger = a_ledger_copy({DAY_0 - 3 * DAY: {"BTC_USDT": DayLedger(wanted=wanted, received=span_mask(7, 99))}})

    universe = a_universe("BTC_USDT", ledger=ledger, backfill_days=backfill_days)

    assert universe.symbols["BTC_USDT"].begin == MIDNIGHT - 3 * DAY + since * MINUTE


def returned(**reach):
    ledger = a_ledger_copy(
        {DAY_0 - 3 * DAY: {"OLD_USDT": DayLedger(wanted=span_mask(0, 99), received=span_mask(0, 99))}}
    )
    universe = Tracker(Reach(**{"backfill_days": 5} | reach), ledger)
    ranking = a_ranking("OLD_USDT", ranked_time=NOON, added=["OLD_USDT"])
    universe.apply(ranking, NOON, {})
    return universe.symbols["OLD_USDT"].gaps(NOON + GRACE)


def test_the_absence_of_one_that_returns_is_filled():
    left = MIDNIGHT - 3 * DAY + 100 * MINUTE
    assert returned() == [Gap(MIDNIGHT - 5 * DAY, MIDNIGHT - 3 * DAY), Gap(left, NOON)]
    assert returned(backfill_days=0) == [Gap(left, NOON)]


def test_the_absence_of_one_that_returns_is_left_open_where_that_is_wished():
    assert returned(fill_absence=False) == [Gap(MIDNIGHT - 5 * DAY, MIDNIGHT - 3 * DAY)]


def test_an_absence_is_filled_as_far_as_raw_data_is_kept():
    assert returned(backfill_days=1, retention_days=2) == [Gap(MIDNIGHT - 2 * DAY, NOON)]


def a_ledger_with_an_old_hole():
    """OLD_USDT was collected for a while on DAY_0, and lacks some of it."""
    copy = a_ledger(OLD_USDT=DayLedger(wanted=span_mask(100, 199), received=span_mask(100, 149), absent=1 << 150))
    copy[CANDLES].lacking[DAY_0] = frozenset({"OLD_USDT"})
    return copy


@pytest.mark.invariant(7)
def test_what_the_ledger_lacks_of_one_that_nobody_follows_is_fetched_and_then_let_go():
    """Invariant 7: it left while the collector was away, or a file of it was damaged."""
    universe = a_universe("BTC_USDT", ledger=a_ledger_with_an_old_hole())

    assert universe.adopt(NOON) == ["OLD_USDT"]
    assert universe.adopt(NOON) == []

    old = universe.symbols["OLD_USDT"]
    assert old.gaps(NOON) == [Gap(minute(151), minute(200))]
    assert universe.followed(NOON) == ["BTC_USDT"]
    see(old, *range(151, 200))
    assert universe.drop_done(NOON) == ["OLD_USDT"]


@pytest.mark.invariant(7)
def test_one_that_left_is_not_let_go_before_the_ledger_knows_what_the_exchange_does_not_have():
    """Invariant 7: else its last minutes would be missing for ever, and asked for again and again."""
    ledger = a_ledger(OLD_USDT=DayLedger(wanted=span_mask(700, 702), received=span_mask(700, 701)))
    universe = a_universe("BTC_USDT", ledger=ledger)
    ledger[CANDLES].lacking = {DAY_0: frozenset({"OLD_USDT"})}
    universe.adopt(NOON)
    know_funding(universe)
    universe.symbols["OLD_USDT"].absent.add(minute(702))

    assert universe.drop_done(NOON) == []
    known = DayLedger(wanted=span_mask(700, 702), received=span_mask(700, 701), absent=1 << 702)
    ledger[CANDLES].replace(DAY_0, {"OLD_USDT": known})
    assert universe.drop_done(NOON) == ["OLD_USDT"]


@pytest.mark.invariant(7)
def test_what_the_ledger_learns_late_to_be_wanted_of_one_that_is_followed_is_fetched():
    """Invariant 7: published by a collector that died, and taken in only after the next one had begun."""
    ledger = a_ledger(BTC_USDT=DayLedger(wanted=1 << 500, received=1 << 500))
    universe = a_universe("BTC_USDT", ledger=ledger)
    old = universe.symbols["BTC_USDT"]
    assert old.gaps(NOON + GRACE) == [Gap(minute(501), NOON)]
    before = {"BTC_USDT": DayLedger(wanted=span_mask(100, 199), healed=span_mask(110, 199), absent=1 << 100)}
    ledger[CANDLES].replace(DAY_0 - DAY, before)
    ledger[CANDLES].lacking = {DAY_0 - DAY: frozenset({"BTC_USDT", "OTHER_USDT"})}

    assert universe.reach_back(NOON) == ["BTC_USDT"]
    assert universe.reach_back(NOON) == []

    assert old.gaps(NOON + GRACE) == [
        Gap(minute(101 - 1440), minute(110 - 1440)),
        Gap(minute(501), NOON),
    ]
    later = DayLedger(wanted=span_mask(100, 300), healed=span_mask(110, 199), absent=1 << 100)
    ledger[CANDLES].replace(DAY_0 - DAY, {"BTC_USDT": later})
    universe.reach_back(NOON)
    assert Gap(minute(200 - 1440), minute(301 - 1440)) in old.gaps(NOON + GRACE)


def test_the_first_wanted_and_the_last_collected_minute_are_those_of_all_days():
    ledger = a_ledger(BTC_USDT=DayLedger(wanted=span_mask(3, 9)))
    ledger[CANDLES].replace(DAY_0 - DAY, {"BTC_USDT": DayLedger(wanted=span_mask(100, 199))})

    assert ledger[CANDLES].first_wanted("BTC_USDT") == minute(100 - 1440)
    assert ledger[CANDLES].last_collected("BTC_USDT") == minute(9)
    assert ledger[CANDLES].first_wanted("ETH_USDT") is None


@pytest.mark.invariant(7)
def test_the_funding_history_is_to_be_asked_for_of_everybody_that_is_new_also_of_one_that_left():
    """Invariant 7: a short membership while the collector was away has settlements, too."""
    ledger = a_ledger("funding", OLD_USDT=DayLedger(wanted=0b11, received=1))
    ledger["funding"].lacking[DAY_0] = frozenset({"OLD_USDT"})
    universe = a_universe("BTC_USDT", ledger=ledger, about="funding")
    universe.apply(
        a_ranking("BTC_USDT", "NEW_USDT", ranked_time=NOON + MINUTE, removed=["LEFT_USDT"]), NOON + MINUTE, {}
    )
    universe.adopt(NOON + MINUTE)

    unknown = {symbol for symbol, wanted in universe.symbols.items() if not wanted.asked}
    assert unknown == {"NEW_USDT", "LEFT_USDT", "OLD_USDT"}


def test_one_that_is_only_being_healed_and_returns_begins_again():
    universe = a_universe("BTC_USDT", ledger=a_ledger_with_an_old_hole())
    universe.adopt(NOON)
    again = a_ranking("BTC_USDT", "OLD_USDT", ranked_time=NOON + MINUTE, added=["OLD_USDT"])

    assert universe.apply(again, NOON + MINUTE, {}) == ["OLD_USDT"]

    assert universe.symbols["OLD_USDT"].until is None
    assert universe.symbols["OLD_USDT"].gaps(NOON + MINUTE + GRACE) == [Gap(minute(151), NOON + MINUTE)]


def test_nothing_is_wanted_of_an_instrument_beyond_its_end():
    universe = a_universe("BTC_USDT", "GONE_USDT")

    universe.end("GONE_USDT", minute(725), minute(740))
    universe.end("GONE_USDT", minute(900), minute(910))

    assert universe.symbols["GONE_USDT"].gaps(minute(2000)) == [Gap(NOON, minute(725))]


def whole_days(until):
    whole = DayLedger(wanted=FULL_DAY, received=FULL_DAY)
    return {DAY_0 + number * DAY: {"BTC_USDT": whole} for number in range(-2, until)}


@pytest.mark.invariant(11)
def test_the_window_slides_and_what_it_leaves_costs_no_memory():
    """Invariant 11."""
    whole = {
        DAY_0 + number * DAY: {"BTC_USDT": DayLedger(wanted=FULL_DAY, received=FULL_DAY)} for number in range(-2, 6)
    }
    universe = a_universe("BTC_USDT", backfill_days=2, ledger=a_ledger_copy(whole))
    wanted = universe.symbols["BTC_USDT"]

    universe.slide(NOON + 5 * DAY)

    assert wanted.begin == MIDNIGHT + 3 * DAY
    assert min(wanted.seen.days) == DAY_0 + 3 * DAY


@pytest.mark.invariant(7)
def test_the_window_does_not_slide_over_a_minute_without_a_verdict():
    """Invariant 7: missing is retried until it is something else, as long as raw data is kept."""
    days = {
        DAY_0 + number * DAY: {"BTC_USDT": DayLedger(wanted=FULL_DAY, received=FULL_DAY)} for number in range(-2, 200)
    }
    days[DAY_0] = {"BTC_USDT": DayLedger(wanted=FULL_DAY, received=FULL_DAY & ~(1 << 77))}
    universe = a_universe("BTC_USDT", backfill_days=2, ledger=a_ledger_copy(days))
    wanted = universe.symbols["BTC_USDT"]

    universe.slide(NOON + 5 * DAY)
    assert wanted.begin == minute(77)

    universe.slide(NOON + 150 * DAY)
    assert wanted.begin == MIDNIGHT + 60 * DAY


@pytest.mark.invariant(7)
def test_an_old_hole_is_wanted_again_after_a_restart_and_nothing_beside_it():
    """Invariant 7."""
    old = DAY_0 - 20 * DAY
    ledger = a_ledger_copy({old: {"BTC_USDT": DayLedger(wanted=span_mask(10, 19), received=span_mask(10, 14))}})
    ledger[CANDLES].replace(DAY_0, {"BTC_USDT": DayLedger(wanted=span_mask(0, 719), received=span_mask(0, 719))})

    universe = a_universe("BTC_USDT", backfill_days=1, ledger=ledger)

    first = MIDNIGHT - 20 * DAY
    assert universe.symbols["BTC_USDT"].gaps(NOON + GRACE) == [
        Gap(first + 15 * MINUTE, first + 20 * MINUTE),
        Gap(MIDNIGHT - DAY, MIDNIGHT),
    ]


def test_one_that_comes_back_before_it_is_gone_stays_with_what_it_has():
    universe = a_universe("BTC_USDT", "OLD_USDT")
    see(universe.symbols["OLD_USDT"], 720)
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(722)), minute(722), {})

    joined = universe.apply(a_ranking("BTC_USDT", "OLD_USDT", ranked_time=minute(723)), minute(723), {})

    assert joined == []
    assert universe.symbols["OLD_USDT"].until is None
    assert universe.symbols["OLD_USDT"].gaps(minute(725) + GRACE) == [Gap(minute(721), minute(725))]


def test_an_older_ranking_read_after_a_restart_only_says_whose_last_minutes_may_be_missing():
    universe = a_universe("BTC_USDT", now=minute(800))
    older = a_ranking("BTC_USDT", "THIRD_USDT", ranked_time=minute(720), removed=["OLD_USDT"])

    joined = universe.apply(older, minute(801), {})

    assert joined == []
    assert universe.ranked_time == minute(800)
    assert "THIRD_USDT" not in universe.symbols
    assert universe.symbols["BTC_USDT"].until is None
    assert universe.symbols["OLD_USDT"].until == minute(720)


def test_the_same_ranking_again_changes_nothing():
    universe = a_universe("BTC_USDT", "ETH_USDT")
    before = dict(universe.symbols)

    universe.apply(a_ranking("BTC_USDT", "ETH_USDT", ranked_time=NOON), NOON, {})

    assert universe.symbols == before


# --- what was lost on the way


@pytest.mark.invariant(3)
def test_what_was_handed_on_and_never_became_durable_is_missing_again():
    """Invariant 3: a Redis that came back empty loses entries that nobody else would ask for."""
    ledger = LedgerCopy(exchange="okx")
    universe = a_universe("BTC_USDT", ledger=ledger)
    see(universe.symbols["BTC_USDT"], 720, 721, 722)
    handed = universe.published()
    see(universe.symbols["BTC_USDT"], 723)  # on its way still
    ledger[CANDLES].replace(DAY_0, {"BTC_USDT": DayLedger(received=span_mask(720, 721))})

    lost = universe.take_back_lost(handed)

    assert lost == 1
    assert universe.symbols["BTC_USDT"].gaps(minute(724) + GRACE) == [Gap(minute(722), minute(723))]
    assert universe.take_back_lost(handed) == 0


def test_a_symbol_of_which_nothing_is_stored_is_asked_for_whole():
    universe = a_universe("BTC_USDT")
    see(universe.symbols["BTC_USDT"], 720)

    assert universe.take_back_lost(universe.published()) == 1
    assert universe.symbols["BTC_USDT"].seen.count() == 0


def test_what_somebody_else_stored_is_taken_over():
    ledger = LedgerCopy(exchange="okx")
    universe = a_universe("BTC_USDT", ledger=ledger)
    ledger[CANDLES].replace(DAY_0, {"BTC_USDT": DayLedger(healed=span_mask(720, 729)), "ETH_USDT": DayLedger(healed=1)})

    universe.take_over({DAY_0})

    assert universe.symbols["BTC_USDT"].gaps(minute(730) + GRACE) == []


# --- what is published for the ledger


def account(verdicts):
    return {(v.verdict, v.symbols, v.begin, v.end) for v in verdicts}


@pytest.mark.invariant(7)
def test_what_was_wanted_and_is_over_and_what_the_exchange_does_not_have_is_published():
    """Invariant 7."""
    universe = a_universe("BTC_USDT", "ETH_USDT")
    universe.symbols["ETH_USDT"].absent.add(minute(721))

    verdicts = account(universe.pending_verdicts("okx", minute(725) + GRACE))

    assert verdicts == {
        ("wanted", ("BTC_USDT", "ETH_USDT"), NOON, minute(725)),
        ("absent", ("ETH_USDT",), minute(721), minute(722)),
    }


@pytest.mark.invariant(7)
def test_what_the_ledger_knows_is_not_published_again_and_what_it_forgot_is():
    """Invariant 7: the difference is published, so no message has to arrive."""
    ledger = a_ledger(BTC_USDT=DayLedger(wanted=span_mask(720, 724), absent=1 << 722))
    universe = a_universe("BTC_USDT", ledger=ledger)
    universe.symbols["BTC_USDT"].begin = NOON
    universe.symbols["BTC_USDT"].absent.add(minute(722))

    assert account(universe.pending_verdicts("okx", minute(726) + GRACE)) == {
        ("wanted", ("BTC_USDT",), minute(725), minute(726))
    }
    ledger[CANDLES].replace(DAY_0, {})
    assert account(universe.pending_verdicts("okx", minute(726) + GRACE)) == {
        ("wanted", ("BTC_USDT",), NOON, minute(726)),
        ("absent", ("BTC_USDT",), minute(722), minute(723)),
    }


@pytest.mark.invariant(7)
@given(st.sets(st.integers(720, 760)), st.sets(st.integers(720, 760)), st.sets(st.integers(720, 760)))
def test_once_published_and_stored_every_wanted_minute_has_a_verdict(seen, absent, stored):
    """Invariant 7: wanted minutes are received, healed, absent, halted or missing, never nothing."""
    ledger = LedgerCopy(exchange="okx")
    universe = a_universe("BTC_USDT", ledger=ledger)
    wanted = universe.symbols["BTC_USDT"]
    see(wanted, *seen)
    for number in absent - seen:
        wanted.absent.add(minute(number))
    day = DayLedger(received=sum(1 << number for number in stored))
    for verdict in universe.pending_verdicts("okx", minute(761) + GRACE):
        first, end = (verdict.begin - MIDNIGHT) // MINUTE, (verdict.end - MIDNIGHT) // MINUTE
        day |= DayLedger(**{verdict.verdict: span_mask(first, end - 1)})

    assert day.wanted == span_mask(720, 760)
    verdicts = day.verdicts(FULL_DAY)
    assert sum(mask.bit_count() for mask in verdicts.values()) == 41
    assert day.missing(FULL_DAY).bit_count() == 41 - len(stored | (absent - seen))


# --- where a row is due at some minutes only


def test_a_settlement_whose_rate_is_not_stored_is_missing_and_no_other_minute_is():
    ledger = a_ledger("funding", BTC_USDT=DayLedger(wanted=1 << 480 | 1, received=1))
    universe = a_universe("BTC_USDT", "ETH_USDT", ledger=ledger, about="funding", backfill_days=1)

    assert universe.symbols["BTC_USDT"].gaps(NOON) == [Gap(minute(480), minute(481))]
    assert universe.symbols["ETH_USDT"].gaps(NOON) == []
    assert universe.is_known("BTC_USDT", minute(0))
    assert not universe.is_known("BTC_USDT", minute(480))
    ledger["funding"].replace(DAY_0, {"BTC_USDT": DayLedger(wanted=1 << 480 | 1, healed=1 << 480 | 1)})
    universe.take_over([DAY_0])
    assert universe.symbols["BTC_USDT"].gaps(NOON) == []


@pytest.mark.invariant(7)
def test_the_ledger_learns_what_was_due_whenever_that_was_found_out():
    """Invariant 7: a settlement is wanted by having happened, also one before the last that is known."""
    ledger = a_ledger("funding", BTC_USDT=DayLedger(wanted=1 << 480, received=1 << 480))
    universe = a_universe("BTC_USDT", ledger=ledger, about="funding", backfill_days=1)
    for number in (0, 480):
        universe.note_due("BTC_USDT", minute(number) + timedelta(milliseconds=7))

    (only,) = universe.pending_verdicts("okx", NOON)

    assert (only.about, only.verdict, only.begin, only.end) == ("funding", "wanted", minute(0), minute(1))


def test_settlements_are_asked_for_since_the_symbol_was_collected_last():
    """Between two settlements nothing is due: that the symbol was followed only its candles say."""
    ledger = a_ledger(BTC_USDT=DayLedger(wanted=span_mask(0, 500), received=span_mask(0, 500)))

    universe = Tracker(Reach(0), ledger, "funding")
    universe.apply(a_ranking("BTC_USDT", ranked_time=NOON), NOON, {})

    assert universe.symbols["BTC_USDT"].begin == minute(501)
    assert not universe.symbols["BTC_USDT"].asked


def test_one_that_left_is_let_go_once_its_settlements_are_there():
    universe = a_universe("BTC_USDT", about="funding", backfill_days=1)
    wanted = universe.symbols["BTC_USDT"]
    wanted.until = minute(600)
    universe.note_due("BTC_USDT", minute(480))
    assert universe.drop_done(NOON) == []

    universe.note_published("BTC_USDT", minute(480))
    universe._ledger.replace(DAY_0, {"BTC_USDT": DayLedger(wanted=1 << 480, received=1 << 480)})

    assert universe.drop_done(NOON) == ["BTC_USDT"]


# --- ends, and returns


@pytest.mark.invariant(7)
def test_what_was_wanted_while_an_end_was_in_doubt_does_not_exist():
    """Invariant 7: the ledger was asked to want it, and nobody would ever bring it."""
    universe = a_universe("GONE_USDT")

    universe.end("GONE_USDT", minute(725), minute(740))

    wanted = universe.symbols["GONE_USDT"]
    assert wanted.absent.gaps(minute(720), minute(740)) == [
        Gap(minute(720), minute(725)),
        Gap(minute(739), minute(740)),
    ]
    assert wanted.gaps(minute(2000)) == [Gap(NOON, minute(725))]


@pytest.mark.invariant(7)
def test_one_that_is_back_is_followed_again_at_once_and_what_lies_between_is_wanted():
    """Invariant 7."""
    universe = a_universe("BACK_USDT")
    see(universe.symbols["BACK_USDT"], *range(720, 725))
    universe.end("BACK_USDT", minute(725), minute(740))

    assert universe.revive(minute(745), {}, {"BACK_USDT": minute(725)}) == []
    assert universe.revive(minute(745), {"BACK_USDT": None}, {}) == ["BACK_USDT"]

    assert universe.followed(minute(745)) == ["BACK_USDT"]
    assert universe.symbols["BACK_USDT"].gaps(minute(745) + GRACE) == [Gap(minute(725), minute(745))]


def test_a_member_that_was_let_go_at_its_end_is_taken_up_again_when_it_is_back():
    universe = a_universe("BACK_USDT")
    universe.end("BACK_USDT", NOON, NOON)
    del universe.symbols["BACK_USDT"]

    assert universe.revive(minute(745), {"BACK_USDT": None}, {}) == ["BACK_USDT"]
    assert universe.symbols["BACK_USDT"].last is None


@pytest.mark.invariant(7)
def test_one_that_left_and_was_let_go_at_its_end_is_followed_for_the_rest_of_its_time_when_it_is_back():
    """Invariant 7: one odd row said that it had ended."""
    universe = a_universe("OLD_USDT", "BTC_USDT", leaver_grace=90 * DAY)
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(730), removed=["OLD_USDT"]), minute(730), {})
    stored = span_mask(720, 739)
    see(universe.symbols["OLD_USDT"], *range(720, 740))
    universe._ledger.replace(DAY_0, {"OLD_USDT": DayLedger(wanted=stored, received=stored)})
    universe.end("OLD_USDT", minute(740), minute(740))
    assert universe.drop_done(minute(741)) == ["OLD_USDT"]

    assert universe.revive(minute(745), {}, {"OLD_USDT": minute(740)}) == []
    assert universe.revive(minute(745), {"OLD_USDT": None}, {}) == ["OLD_USDT"]
    assert universe.revive(minute(746), {"OLD_USDT": None}, {}) == []

    back = universe.symbols["OLD_USDT"]
    assert back.until == minute(730) + 90 * DAY
    assert back.gaps(minute(745) + GRACE) == [Gap(minute(740), minute(745))]


def test_one_that_is_back_after_the_time_for_which_it_would_have_been_followed_is_not():
    universe = a_universe("OLD_USDT", "BTC_USDT", leaver_grace=timedelta(hours=1))
    universe.apply(a_ranking("BTC_USDT", ranked_time=minute(730), removed=["OLD_USDT"]), minute(730), {})
    universe.symbols["OLD_USDT"].begin = minute(740)
    universe.end("OLD_USDT", minute(740), minute(740))
    assert universe.drop_done(minute(741)) == ["OLD_USDT"]

    assert universe.revive(minute(791), {"OLD_USDT": None}, {}) == []
    assert universe.symbols.keys() == {"BTC_USDT"}


# --- what was a member is followed on


def test_one_that_left_is_followed_on_after_a_restart_for_the_rest_of_its_time():
    first = a_universe("OLD_USDT", "BTC_USDT", leaver_grace=90 * DAY)
    first.apply(a_ranking("BTC_USDT", ranked_time=minute(1440), removed=["OLD_USDT"]), minute(1440), {})
    left = first.left()
    assert left == {"OLD_USDT": minute(1440)}

    again = a_universe("BTC_USDT", now=minute(2000), leaver_grace=90 * DAY)
    assert again.follow_left(left, minute(2000), {}) == ["OLD_USDT"]

    assert again.symbols["OLD_USDT"].until == minute(1440) + 90 * DAY
    assert again.left() == left
    assert again.follow_left(left, minute(2000), {}) == []
    assert a_universe("BTC_USDT", leaver_grace=DAY).follow_left(left, minute(1440) + 2 * DAY, {}) == []


def test_where_it_was_forgotten_who_left_the_ledger_knows():
    ledger = a_ledger(OLD_USDT=DayLedger(wanted=0b111), GONE_USDT=DayLedger(wanted=0b1), BTC_USDT=DayLedger(wanted=1))
    universe = a_universe("BTC_USDT", ledger=ledger, leaver_grace=90 * DAY)

    assert universe.left_by_ledger(NOON, {"OLD_USDT", "BTC_USDT"}) == {"OLD_USDT": minute(2)}
