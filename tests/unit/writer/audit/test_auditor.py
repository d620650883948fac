"""What is stored, held against what the exchange says: pure comparison, and what is looked at next."""

import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.writer.audit.__main__ import Choice, Report, plan, spans_of
from services.writer.audit.auditor import withdraw
from services.writer.audit.compare import (
    COMPARED,
    PAGE_MINUTES,
    Answer,
    Kind,
    Mismatch,
    Page,
    answer_of,
    compare_candles,
    compare_settlements,
    last_hour_end,
    next_recent,
    pages_of,
    pick_day,
    repair_of,
    repairs_of,
    sure_until,
)
from services.writer.disk.ledger import scan_day
from services.writer.disk.reading import StoredRows
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import Verdict
from shared.exchanges.okx.candles import candles_of
from shared.exchanges.okx.rest import LIMITS, SHARES
from shared.grid import DAY, MINUTE
from shared.ledger.day import NOTHING, DayLedger
from shared.ledger.minutes import FULL_DAY, span_mask
from shared.storage.layout import Partition
from shared.storage.parquet import merge, read_rows, table_of
from tests.support.builders import DAY_0, MIDNIGHT, a_candle, a_candle_row, a_funding_rate, at, minute, store

PAGE = Page("BTC_USDT", minute(0), minute(PAGE_MINUTES))
MINUTES = st.integers(0, PAGE_MINUTES - 1)
VALUES = st.floats(min_value=1e-9, max_value=1e12)


@st.composite
def pages(draw, least=0):
    """Return the candles of some minutes of the page."""
    opens = draw(st.sets(MINUTES, min_size=least, max_size=30))
    return {minute(number): a_candle(open_time=minute(number), price=draw(VALUES)) for number in opens}


def replaced(row, **values):
    return msgspec.structs.replace(row, **values)


def kinds(found):
    return [(mismatch.kind, mismatch.at) for mismatch in found]


@given(pages())
def test_what_is_stored_as_the_exchange_has_it_has_no_mismatch(candles):
    stored = {opened: replaced(candle, source="ws", receive_time=minute(9999)) for opened, candle in candles.items()}

    assert compare_candles(PAGE, stored, Answer(candles), DayLedger(wanted=FULL_DAY)) == []


@given(pages(least=1), st.sampled_from(COMPARED[Candle]), VALUES, st.data())
def test_each_single_changed_field_is_found_exactly_once(candles, field, value, data):
    opened = data.draw(st.sampled_from(sorted(candles)))
    ours = replaced(candles[opened], **{field: value})

    found = compare_candles(PAGE, candles | {opened: ours}, Answer(candles), NOTHING)

    if value == getattr(candles[opened], field):
        assert found == []
    else:
        assert kinds(found) == [(Kind.CHANGED, opened)]
        assert [one.field for one in found[0].differences] == [field]


@given(pages(), pages(), *[st.integers(0, (1 << PAGE_MINUTES) - 1)] * 3)
def test_every_minute_is_right_or_found_once_with_the_verdict_that_the_ledger_gave(
    ours, theirs, wanted, absent, halted
):
    ledger = DayLedger(wanted=wanted, absent=absent, halted=halted)

    found = dict(reversed(one) for one in kinds(compare_candles(PAGE, ours, Answer(theirs), ledger)))

    for number in range(PAGE_MINUTES):
        opened, bit = minute(number), 1 << number
        if opened in ours and opened in theirs:
            expected = None if ours[opened] == theirs[opened] else Kind.CHANGED
        elif opened in ours:
            expected = Kind.INVENTED
        elif opened in theirs:
            named = ((halted, Kind.HALTED), (absent, Kind.ABSENT), (wanted, Kind.MISSING))
            expected = next((kind for mask, kind in named if mask & bit), None)
        else:
            expected = None
        assert found.get(opened) == expected


def read(rows, now):
    """Read rows as OKX spells them."""
    return candles_of("BTC-USDT-SWAP", rows, source="rest", receive_time=now, exchange_now=now)


def test_a_forming_row_and_one_that_cannot_be_true_say_nothing_of_their_minute():
    rows = [a_candle_row(minute(2), confirm="0"), a_candle_row(minute(1), price=-1.0), a_candle_row(minute(0))]

    answer = answer_of(PAGE, read(rows, minute(5)))
    stored = {minute(number): a_candle(open_time=minute(number)) for number in range(3)}

    assert answer.unsure == {minute(1), minute(2)}
    assert compare_candles(PAGE, stored, answer, DayLedger(wanted=FULL_DAY)) == []


@pytest.mark.parametrize("odd", [None, 5, "row", [], [None], ["n/a", "1"], {"ts": "1"}])
def test_a_row_without_a_time_costs_the_page_nothing_but_what_it_may_stand_for(odd):
    rows = [a_candle_row(minute(0)), odd]

    answer = answer_of(PAGE, read(rows, minute(5)))
    stored = {minute(number): a_candle(open_time=minute(number), price=7.0) for number in range(2)}

    (found,) = compare_candles(PAGE, stored, answer, DayLedger(wanted=FULL_DAY))
    assert (found.kind, found.at) == (Kind.CHANGED, minute(0))


def test_rows_outside_a_page_are_left_out():
    rows = [a_candle_row(minute(PAGE_MINUTES)), a_candle_row(minute(-1))]

    assert answer_of(PAGE, read(rows, minute(999))).candles == {}


def test_what_one_of_two_answers_has_the_exchange_has():
    first, second = ({minute(number): a_candle(open_time=minute(number))} for number in (1, 2))

    assert set((Answer(first) | Answer(second, frozenset({minute(3)}))).candles) == {minute(1), minute(2)}


@pytest.mark.invariant(2)
@given(pages(least=1), VALUES, st.timedeltas(timedelta(days=-2), timedelta(days=2)))
def test_a_repair_is_the_newest_knowledge_whatever_the_clocks_say(candles, price, ahead):
    """Invariant 2."""
    theirs = min(candles.values(), key=lambda candle: candle.open_time)
    ours = replaced(a_candle(open_time=theirs.open_time, price=price), receive_time=theirs.receive_time + ahead)
    mismatch = Mismatch(Kind.CHANGED, "BTC_USDT", theirs.open_time, ours, theirs)

    event = repair_of(mismatch, exchange_now=minute(9999))
    merged = merge(Candle, table_of(Candle, [ours]), table_of(Candle, [event])).to_pylist()

    assert [row["close"] for row in merged] == [theirs.close]
    assert (
        repair_of(Mismatch(Kind.MISSING, "BTC_USDT", theirs.open_time, None, theirs), exchange_now=MIDNIGHT) == theirs
    )


def test_of_an_invented_minute_only_a_doubt_is_reported():
    mismatch = Mismatch(Kind.INVENTED, "BTC_USDT", minute(3), a_candle(open_time=minute(3)), None)

    event = repair_of(mismatch, exchange_now=minute(60))

    assert isinstance(event, Verdict)
    assert (event.verdict, event.symbols, event.begin, event.end) == ("absent", ("BTC_USDT",), minute(3), minute(4))


def test_an_empty_page_is_reported_and_not_acted_upon():
    invented = [Mismatch(Kind.INVENTED, "BTC_USDT", minute(n), a_candle(open_time=minute(n)), None) for n in range(3)]

    assert repairs_of(invented, 3, exchange_now=minute(60)) == []
    assert [one for one, _ in repairs_of(invented, 4, exchange_now=minute(60))] == invented


def test_settlements_are_compared_by_their_instant_and_their_rate():
    hours = [MIDNIGHT + timedelta(hours=8 * number) for number in range(5)]
    answered = {when: a_funding_rate(funding_time=when) for when in hours[1:4]}
    stored = {when: a_funding_rate(funding_time=when, source="rest") for when in (hours[0], hours[1], hours[4])}
    stored[hours[1]] = a_funding_rate(funding_time=hours[1], rate=2e-4)

    found = compare_settlements("BTC_USDT", stored, answered, wanted=lambda when: when == hours[2])

    # The first is older than the history reaches; the fourth is not wanted.
    assert kinds(found) == [(Kind.RATE, hours[1]), (Kind.RATE_MISSING, hours[2]), (Kind.RATE_INVENTED, hours[4])]
    assert [(one.field, one.stored, one.exchange) for one in found[0].differences] == [("funding_rate", 2e-4, 1e-4)]


def test_a_repaired_settlement_wins_on_disk():
    ours = a_funding_rate(rate=2e-4, known_time=minute(99))
    mismatch = Mismatch(Kind.RATE, "BTC_USDT", MIDNIGHT, ours, a_funding_rate(known_time=minute(50)))

    event = repair_of(mismatch, exchange_now=minute(50))
    merged = merge(FundingRate, table_of(FundingRate, [ours]), table_of(FundingRate, [event])).to_pylist()

    assert [row["funding_rate"] for row in merged] == [1e-4]


# --- What is looked at


def test_the_pages_of_a_day_hold_every_known_minute_once_and_fit_one_answer():
    ledgers = {"BTC_USDT": DayLedger(wanted=FULL_DAY), "ETH_USDT": DayLedger(received=span_mask(600, 610))}

    found = pages_of(DAY_0, ledgers, MIDNIGHT, MIDNIGHT + DAY)

    btc = [page for page in found if page.symbol == "BTC_USDT"]
    assert [page.begin for page in btc[1:]] == [page.end for page in btc[:-1]]
    assert (btc[0].begin, btc[-1].end) == (MIDNIGHT, MIDNIGHT + DAY)
    assert max((page.end - page.begin) // MINUTE for page in found) <= LIMITS.page_minutes
    assert [page.begin <= minute(600) < minute(610) < page.end for page in found if page.symbol == "ETH_USDT"] == [True]


def test_pages_are_cut_to_a_range_and_to_symbols():
    ledgers = {name: DayLedger(wanted=FULL_DAY) for name in ("BTC_USDT", "ETH_USDT")}

    found = pages_of(DAY_0, ledgers, minute(280), minute(300), {"ETH_USDT"})

    assert found == [Page("ETH_USDT", minute(280), minute(288)), Page("ETH_USDT", minute(288), minute(300))]


def test_where_time_runs_faster_more_minutes_are_still_on_their_way():
    now = at("2025-04-05 12:00")

    assert sure_until(now) == at("2025-04-05 11:50")
    assert sure_until(now, rate=61.0) == at("2025-04-05 10:50")
    assert last_hour_end(at("2025-04-05 12:14")) == at("2025-04-05 11:00")
    assert last_hour_end(at("2025-04-05 12:15")) == at("2025-04-05 12:00")


def test_the_last_hour_of_each_symbol_is_looked_at_exactly_once():
    ledgers = {f"S{number}_USDT": DayLedger(wanted=FULL_DAY) for number in range(3)}
    ledgers["OLD_USDT"] = DayLedger(received=span_mask(0, 100))
    audited, looked = {}, []

    for hour in (12, 13):
        while (page := next_recent(audited, ledgers, minute(hour * 60))) is not None:
            audited[page.symbol] = page.end
            looked.append(page)

    expected = {(f"S{number}_USDT", minute(hour * 60)) for number in range(3) for hour in (11, 12)}
    assert {(page.symbol, page.begin) for page in looked} == expected
    assert len(looked) == len(expected)


def test_a_symbol_that_is_behind_is_caught_up_in_pages_of_one_day():
    ledgers = {"BTC_USDT": DayLedger(wanted=FULL_DAY)}
    audited = {"BTC_USDT": minute(-90)}

    first = next_recent(audited, ledgers, minute(60))
    second = next_recent({"BTC_USDT": first.end}, ledgers, minute(60))

    assert first == Page("BTC_USDT", minute(-90), minute(0))
    assert second == Page("BTC_USDT", minute(0), minute(60))


def test_recent_days_are_chosen_more_often_and_old_ones_too():
    dice = random.Random(5)
    days = [DAY_0 - timedelta(days=age) for age in range(30)]

    chosen = [pick_day(dice, days, DAY_0) for _ in range(3000)]

    assert chosen.count(DAY_0) > 5 * chosen.count(days[29]) > 0
    assert pick_day(dice, [], DAY_0) is None


def test_a_seed_chooses_the_same_pages_again(tmp_path: Path):
    store(tmp_path, [a_candle(f"S{n}_USDT", minute(m)) for n in range(6) for m in (5, 700)])
    scan_day(tmp_path, DAY_0)

    def chosen(**choice):
        return plan(StoredRows(tmp_path), "okx", Choice(**choice), MIDNIGHT + 2 * DAY, 1.0, retention_days=90)

    assert len(chosen()) == 12
    assert chosen(sample=4, seed=1) == chosen(sample=4, seed=1) != chosen(sample=4, seed=2)
    assert len(chosen(sample=99)) == 12
    assert {page.symbol for page in chosen(symbols=frozenset({"S2_USDT"}))} == {"S2_USDT"}
    # past the retention
    assert plan(StoredRows(tmp_path), "okx", Choice(), MIDNIGHT + 92 * DAY, 1.0, retention_days=90) == []


def test_the_settlements_of_a_symbol_are_compared_between_its_first_and_last_page():
    pages = [Page("A", minute(0), minute(9)), Page("A", minute(700), minute(710)), Page("B", minute(900), minute(910))]

    assert spans_of(pages, minute(705)) == {"A": (minute(0), minute(705))}


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (Report(minutes=5), 0),
        (Report(minutes=5, troubles={"network": 1}), 3),
        (Report(), 3),
        (Report(minutes=5, mismatches=[Mismatch(Kind.MISSING, "A", MIDNIGHT, None, a_candle())], troubles={"x": 1}), 1),
    ],
)
def test_the_exit_code_says_clean_or_mismatches_or_that_nobody_knows(report, code):
    assert report.exit_code == code


# --- Deleting


@pytest.mark.invariant(7)
def test_what_is_deleted_leaves_the_file_and_the_ledger_but_never_an_empty_file(tmp_path: Path):
    """Invariant 7."""
    store(tmp_path, [a_candle(open_time=minute(number)) for number in range(4)])
    scan_day(tmp_path, DAY_0)

    gone, known = withdraw(tmp_path, DAY_0, "BTC_USDT", {minute(1), minute(9)})

    path = Partition(Candle.dataset, DAY_0, "BTC_USDT").path(tmp_path)
    assert (gone, known["kline_1m", "BTC_USDT"].ledger.received) == (1, 0b1101)
    assert read_rows(Candle, path)["open_time"].to_pylist() == [minute(0), minute(2), minute(3)]
    assert withdraw(tmp_path, DAY_0, "BTC_USDT", {minute(number) for number in range(4)}) == (0, {})
    assert withdraw(tmp_path, DAY_0, "ETH_USDT", {minute(0)}) == (0, {})


# --- Limits


def test_all_shares_of_the_exchanges_limits_together_leave_some_room():
    assert pytest.approx(0.95) == sum(SHARES.values())
