"""The ledger: a verdict for every wanted minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.datasets.ledger import CANDLES
from shared.grid import DAY, MINUTE
from shared.ledger.day import (
    SETS,
    DayLedger,
    MinuteVerdict,
    account,
    account_of,
    bus_field,
    by_day,
    from_bus,
    from_row,
    from_text,
    over_mask,
    to_row,
    to_text,
)
from shared.ledger.minutes import FULL_DAY, span_mask
from tests.support.builders import DAY_0, MIDNIGHT, a_verdict, minute

MASKS = st.integers(0, FULL_DAY)
LEDGERS = st.builds(DayLedger, *[MASKS] * 6)


@pytest.mark.invariant(7)
@given(LEDGERS, MASKS)
def test_every_wanted_minute_that_is_over_has_exactly_one_verdict(ledger, over):
    """Invariant 7."""
    verdicts = ledger.verdicts(over)

    union = 0
    for mask in verdicts.values():
        assert union & mask == 0
        union |= mask
    assert union == ledger.wanted & over
    assert verdicts[MinuteVerdict.MISSING] == ledger.missing(over)


@pytest.mark.invariant(7)
@given(LEDGERS, MASKS)
def test_the_account_counts_the_verdicts(ledger, over):
    counted = account_of(ledger, over)

    for verdict, mask in ledger.verdicts(over).items():
        assert getattr(counted, verdict) == mask.bit_count()
    assert counted.wanted == sum(getattr(counted, verdict) for verdict in MinuteVerdict)


@given(LEDGERS)
def test_a_day_survives_the_bus_and_the_disk(ledger):
    assert from_text(to_text(ledger)) == ledger
    row = to_row("okx", "BTC_USDT", DAY_0, ledger, "v", about="funding")
    assert list(from_row({name: getattr(row, name) for name in row.__struct_fields__})) == [("funding", ledger)]


@given(LEDGERS, LEDGERS)
def test_each_dataset_of_a_symbol_has_a_field_of_its_own_on_the_bus(candles, funding):
    texts = {bus_field(about, "BTC_USDT"): to_text(one) for about, one in ((CANDLES, candles), ("funding", funding))}

    assert texts.keys() == {"BTC_USDT", "funding/BTC_USDT"}
    assert from_bus(texts) == {CANDLES: {"BTC_USDT": candles}, "funding": {"BTC_USDT": funding}}


@pytest.mark.invariant(7)
def test_a_ledger_of_before_there_were_several_datasets_is_read_as_candles_and_funding():
    """Invariant 7: what an older version knew of settlements stays known."""
    candles, funding = DayLedger(wanted=0b111, healed=0b11), DayLedger(wanted=0b1001, received=0b1)
    old = {"due": "3-3", "settled": "0-0"}

    assert from_bus({"BTC_USDT": "wanted=0-2 healed=0-1 due=3-3 settled=0-0"}) == {
        CANDLES: {"BTC_USDT": candles},
        "funding": {"BTC_USDT": funding},
    }
    row = dict.fromkeys(SETS, "") | {"about": CANDLES, "wanted": "0-2", "healed": "0-1"} | old
    assert list(from_row(row)) == [(CANDLES, candles), ("funding", funding)]


@pytest.mark.invariant(7)
def test_a_settlement_that_an_older_collector_reports_as_due_is_wanted_of_funding():
    """Invariant 7: its entries may wait on the bus while the writer is updated."""
    assert list(by_day(a_verdict("due", 480, 481))) == [(DAY_0, "funding", DayLedger(wanted=1 << 480))]


def test_on_the_bus_it_is_readable():
    ledger = DayLedger(wanted=FULL_DAY, received=span_mask(0, 99) | span_mask(101, 1439))

    assert to_text(ledger) == "wanted=0-1439 received=0-99,101-1439"
    assert to_text(DayLedger()) == ""


@given(LEDGERS, LEDGERS, LEDGERS)
def test_adding_is_idempotent_and_free_of_order(one, two, three):
    assert one | one == one
    assert one | two == two | one
    assert (one | two) | three == one | (two | three)


@given(st.integers(-2000, 2000), st.integers(0, 4000))
def test_a_verdict_falls_apart_into_days(first, length):
    days = list(by_day(a_verdict("wanted", first, first + length)))

    assert sum(ledger.wanted.bit_count() for _, _, ledger in days) == length
    assert all(about == CANDLES and ledger.received == 0 for _, about, ledger in days)


def test_the_account_sums_up_and_says_what_share_of_what_exists_is_stored():
    day = DayLedger(wanted=span_mask(0, 9), received=span_mask(0, 4), healed=1 << 5, absent=1 << 6, halted=1 << 7)

    found = account([(DAY_0, day), (DAY_0, day)], MIDNIGHT + DAY)

    assert (found.wanted, found.received, found.healed) == (20, 10, 2)
    assert (found.absent, found.halted, found.missing) == (2, 2, 4)
    assert found.complete == 12 / 16
    assert account([], MIDNIGHT).complete is None


def test_what_is_not_over_is_not_missing():
    day = DayLedger(wanted=FULL_DAY)

    assert day.missing(over_mask(DAY_0, minute(10))) == span_mask(0, 9)
    assert day.missing(over_mask(DAY_0, MIDNIGHT - MINUTE)) == 0
    assert day.missing(over_mask(DAY_0, MIDNIGHT + 5 * DAY)) == FULL_DAY


def test_a_candle_outweighs_that_there_is_none():
    both = DayLedger(wanted=1, healed=1, absent=1)

    assert both.without_row == 0
    assert both.verdicts(1)[MinuteVerdict.HEALED] == 1
