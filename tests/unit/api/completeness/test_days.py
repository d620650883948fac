"""Days of the ledger, counted; gaps; and the sentence about them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.completeness.days import (
    Counted,
    Day,
    LedgerView,
    OpenGaps,
    arrived_until,
    by_symbol,
    gaps,
    missing_settlements,
    open_gaps,
    per_cent,
    sentence,
    sum_of,
)
from shared.datasets.ledger import CANDLES
from shared.grid import DAY, MINUTE
from shared.ledger.day import Account, DayLedger, MinuteVerdict, account
from shared.ledger.minutes import FULL_DAY, Gap, day_mask, span_mask
from tests.support.builders import DAY_0, MIDNIGHT, minute

MASKS = st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 300)), max_size=3).map(
    lambda spans: sum({1 << m for first, length in spans for m in range(first, min(1440, first + length))})
)
LEDGERS = st.builds(DayLedger, wanted=st.just(FULL_DAY) | MASKS, received=MASKS, absent=MASKS)
SYMBOLS = st.dictionaries(st.sampled_from(["BTC_USDT", "ETH_USDT", "SOL_USDT"]), LEDGERS)
DATASETS = st.dictionaries(st.sampled_from([CANDLES, "funding"]), SYMBOLS)
DAYS = st.dictionaries(st.integers(0, 3), DATASETS, max_size=3).map(
    lambda found: [Day(DAY_0 + number * DAY, datasets) for number, datasets in found.items()]
)
INSTANTS = st.integers(-10, 4 * 1440 + 10).map(minute)


def a_day(number=0, funding=None, **ledgers):
    return Day(DAY_0 + number * DAY, {CANDLES: ledgers, "funding": funding or {}})


@pytest.mark.invariant(7)
@given(DAYS, INSTANTS)
def test_what_is_cached_by_day_is_what_the_ledger_counts(days, until):
    def expected(dataset):
        return account([(day.day, ledger) for day in days for ledger in day.of(dataset).ledgers.values()], until)

    both = Counted(expected(CANDLES), expected("funding"))
    assert LedgerView({day.day: day for day in days}, until).counted == both
    counted = by_symbol(days, MIDNIGHT, max(MIDNIGHT, until))
    assert sum_of(found for counts in counted.values() for found in counts) == both
    alone = by_symbol(days, MIDNIGHT, max(MIDNIGHT, until), dataset="funding")
    assert sum_of(found for counts in alone.values() for found in counts) == Counted(both.settlements)


@pytest.mark.invariant(7)
@given(DAYS, INSTANTS)
def test_gaps_hold_every_missing_minute_once_and_no_other(days, until):
    found = gaps([day.minutes for day in days], MIDNIGHT, until, MinuteVerdict.MISSING)

    minutes = [(one.symbol, one.gap.begin + n * MINUTE) for one in found for n in range(one.gap.minutes)]
    assert len(minutes) == len(set(minutes))
    assert set(minutes) == {
        (symbol, opened)
        for day in days
        for symbol, ledger in day.minutes.ledgers.items()
        for m in range(1440)
        if (opened := minute(m) + (day.day - DAY_0)) < until and ledger.missing(1 << m)
    }
    assert [one.gap.end for one in found] == sorted((one.gap.end for one in found), reverse=True)


@given(DAYS, INSTANTS)
def test_open_gaps_count_what_gaps_spell(days, until):
    found = gaps([day.minutes for day in days], MIDNIGHT, until, MinuteVerdict.MISSING)

    assert open_gaps(days, until) == OpenGaps(
        minutes=sum(one.gap.minutes for one in found),
        symbols=len({one.symbol for one in found}),
        gaps=len(found),
        since=min((one.gap.begin for one in found), default=None),
        settlements=len(missing_settlements(days, MIDNIGHT, until)),
    )


def test_a_gap_goes_on_over_midnight():
    days = [
        a_day(0, BTC_USDT=DayLedger(wanted=FULL_DAY, received=span_mask(0, 1429))),
        a_day(1, BTC_USDT=DayLedger(wanted=FULL_DAY, received=span_mask(5, 1439))),
    ]

    (only,) = gaps([day.minutes for day in days], MIDNIGHT, minute(3000), MinuteVerdict.MISSING)

    assert only == ("BTC_USDT", Gap(minute(1430), minute(1445)))
    assert open_gaps(days, minute(3000)).gaps == 1


def test_gaps_of_other_verdicts_and_of_one_symbol():
    day = a_day(
        BTC_USDT=DayLedger(
            wanted=FULL_DAY, received=span_mask(0, 1399), absent=span_mask(1400, 1439), halted=1 << 1400
        ),
        ETH_USDT=DayLedger(wanted=FULL_DAY, halted=span_mask(7, 8)),
    )

    def found(verdict, symbol=None):
        return gaps([day.minutes], MIDNIGHT, minute(1440), verdict, symbol)

    assert found(MinuteVerdict.ABSENT) == [("BTC_USDT", Gap(minute(1401), minute(1440)))]
    assert found(MinuteVerdict.HALTED, "ETH_USDT") == [("ETH_USDT", Gap(minute(7), minute(9)))]
    assert found(MinuteVerdict.MISSING, "BTC_USDT") == []


def test_settlements_that_are_missing_newest_first():
    day = a_day(funding={"BTC_USDT": DayLedger(wanted=1 | 1 << 480, healed=1), "ETH_USDT": DayLedger(wanted=3)})

    assert missing_settlements([day], MIDNIGHT, minute(1440)) == [
        ("BTC_USDT", minute(480)),
        ("ETH_USDT", minute(1)),
        ("ETH_USDT", MIDNIGHT),
    ]
    assert missing_settlements([day], minute(1), minute(480), "ETH_USDT") == [("ETH_USDT", minute(1))]


@given(DAYS, INSTANTS, INSTANTS, st.none() | st.just("BTC_USDT"))
def test_missing_settlements_of_a_span_are_those_of_its_minutes_newest_first(days, begin, end, symbol):
    found = missing_settlements(days, begin, end, symbol)

    expected = {
        (name, instant)
        for day in days
        for name, ledger in day.settlements.ledgers.items()
        for number in range(1440)
        if ledger.missing(FULL_DAY) >> number & 1
        and begin <= (instant := minute((day.day - DAY_0).days * 1440 + number)) < end
        and symbol in {None, name}
    }
    assert found == sorted(expected, key=lambda one: (-one[1].timestamp(), one[0]))


def test_symbols_of_which_nothing_was_wanted_are_left_out():
    day = a_day(BTC_USDT=DayLedger(wanted=1, received=1), ETH_USDT=DayLedger(received=FULL_DAY))

    assert list(by_symbol([day], MIDNIGHT, minute(1440))) == ["BTC_USDT"]


@pytest.mark.parametrize(
    ("stored", "missing", "text"),
    [(1, 0, "100.000 %"), (999_999, 1, "99.999 %"), (2, 1, "66.666 %"), (0, 5, "0.000 %"), (0, 0, None)],
)
def test_a_hundred_per_cent_means_that_nothing_is_missing(stored, missing, text):
    assert per_cent(Counted(Account(received=stored, missing=missing))) == text


def test_a_settlement_whose_rate_is_missing_is_no_hundred_per_cent():
    assert per_cent(Counted(Account(received=99), Account(missing=1))) == "99.000 %"
    assert per_cent(Counted(Account(received=99), Account(healed=1))) == "100.000 %"


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 90), (1.0, 90), (600.0, 60 + 30 * 600)])
def test_young_minutes_are_on_their_way(rate, seconds):
    assert arrived_until(MIDNIGHT, rate, flush_seconds=5.0) == MIDNIGHT - timedelta(seconds=seconds)


def test_minutes_on_their_way_are_not_missing():
    day = a_day(BTC_USDT=DayLedger(wanted=span_mask(0, 99), received=span_mask(0, 97)))

    assert open_gaps([day], minute(98)).minutes == 0
    assert open_gaps([day], minute(100)).minutes == 2
    assert day_mask(DAY_0, MIDNIGHT, minute(98)).bit_count() == 98


@pytest.mark.parametrize(
    ("ledgers", "text"),
    [
        ({}, "no minute missing"),
        ({"A": DayLedger(wanted=4)}, "1 minute of 1 symbol missing since 2025-04-05 00:02 UTC; being healed"),
        (
            {"A": DayLedger(wanted=4), "B": DayLedger(wanted=3), "funding": {"A": DayLedger(wanted=1)}},
            "3 minutes of 2 symbols and 1 settlement missing since 2025-04-05 00:00 UTC; being healed",
        ),
        ({"funding": {"A": DayLedger(wanted=3)}}, "2 settlements missing; being healed"),
    ],
)
def test_the_sentence(ledgers, text):
    assert sentence(LedgerView({DAY_0: a_day(**ledgers)}, minute(1440))) == text
