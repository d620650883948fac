"""What becomes of the instruments and of the exchange: time is an argument here."""

import msgspec
import pytest

from services.collector.tracking.lifecycle import Instruments
from shared.exchanges.base import Listing, Maintenance
from shared.grid import DAY, MINUTE
from shared.ledger.minutes import Gap
from tests.support.builders import MIDNIGHT, an_instrument, minute

BEGAN, NOW = minute(710), minute(720)
FROM, TO = minute(700), minute(800)


def a_window(state="ongoing", begin=BEGAN, end=None):
    return Maintenance(title="System upgrade", state=state, begin=begin, end=end)


def a_list(*symbols, **instruments):
    """Return a list of live instruments, and of those given."""
    listed = {symbol: an_instrument(symbol) for symbol in symbols} | instruments
    return Listing(listed, frozenset(listed), [])


def halted(instruments, begin=FROM, end=TO):
    """Return which minutes stood still, as spans."""
    moving = instruments.halts("BTC_USDT").gaps(begin, end)
    edges = [begin, *(edge for gap in moving for edge in (gap.begin, gap.end)), end]
    return [Gap(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last]


@pytest.mark.invariant(7)
def test_an_exchange_stands_still_until_the_end_that_it_expects():
    """Invariant 7: when it is over it is not shown any more, so that its last minutes would never be found."""
    instruments = Instruments()

    instruments.stood_still([a_window(end=minute(745))], NOW)
    instruments.stood_still([], minute(750))

    assert halted(instruments) == [Gap(minute(710), minute(745))]


@pytest.mark.parametrize("end", [None, minute(715)], ids=["nobody knows the end", "it takes longer than expected"])
def test_without_a_better_knowledge_it_stands_still_for_a_minute_more(end):
    instruments = Instruments()

    instruments.stood_still([a_window(end=end)], NOW)

    assert halted(instruments) == [Gap(minute(710), minute(721))]


def test_an_end_beyond_all_measure_is_believed_for_a_day():
    instruments = Instruments()

    instruments.stood_still([a_window(end=NOW + 1000 * DAY)], NOW)

    assert halted(instruments, MIDNIGHT, NOW + 3 * DAY) == [Gap(minute(710), NOW + DAY)]


def test_what_is_only_scheduled_or_over_halts_nothing():
    instruments = Instruments()

    assert (
        instruments.stood_still([a_window("scheduled"), a_window("completed"), a_window(begin=NOW + MINUTE)], NOW) == []
    )
    assert halted(instruments) == []


@pytest.mark.invariant(7)
def test_a_suspension_reaches_from_the_last_look_before_it_to_the_first_one_after_it():
    """Invariant 7: an instant is known to one interval only."""
    instruments = Instruments()
    for at, state in ((715, "live"), (720, "suspend"), (730, "suspend"), (735, "live"), (760, "live")):
        instruments.update(a_list(BTC_USDT=an_instrument(state=state)), minute(at), float(at))

    assert halted(instruments) == [Gap(minute(715), minute(736))]


# --- a list that lacks rows

MARKET = [f"S{number}_USDT" for number in range(10)]
SHORT = MARKET[1:]
"""The same without the first."""


def looked(*lists, expected=(), every=60.0):
    """Look at some lists, one after the other; return what was learnt and what each changed."""
    instruments, changes = Instruments(), []
    for number, listing in enumerate(lists):
        changes.append(instruments.update(listing, minute(number), number * every, expected))
    return instruments, changes


@pytest.mark.parametrize("thin", [(), MARKET[:1], MARKET[:4]])
def test_a_list_that_lacks_most_of_those_known_changes_nothing(thin):
    instruments, changes = looked(a_list(*MARKET), *[a_list(*thin)] * 10)

    assert changes[1:] == [None] * 10
    assert (instruments.gone, instruments.missing, set(instruments.known)) == ({}, [], set(MARKET))


def test_a_first_list_that_lacks_those_that_are_followed_is_not_believed():
    instruments, changes = looked(a_list("NEW_USDT"), a_list(), expected=MARKET)

    assert changes == [None, None]
    assert instruments.known == {}


def test_a_row_that_is_missing_once_ends_nothing():
    instruments, changes = looked(a_list(*MARKET), a_list(*SHORT), a_list(*MARKET), a_list(*SHORT), a_list(*MARKET))

    assert changes == [[]] * 5
    assert (instruments.gone, instruments.missing) == ({}, [])


@pytest.mark.parametrize(("every", "looks"), [(60.0, 4), (90.0, 4), (1.0, 181), (20.0, 10)])
def test_a_name_that_is_missing_in_several_looks_over_minutes_is_gone_since_the_first_of_them(every, looks):
    instruments, changes = looked(a_list(*MARKET), *[a_list(*SHORT)] * looks, every=every)

    assert instruments.gone == {"S0_USDT": minute(1)}
    assert [change.what for change in changes[-1]] == ["delisted"]
    assert all(change == [] for change in changes[:-1])


def test_a_name_whose_announced_end_has_passed_is_gone_at_the_first_look_without_it():
    leaving = an_instrument("S0_USDT", expiry_time=minute(1))

    instruments, _ = looked(a_list(*SHORT, S0_USDT=leaving), a_list(*SHORT))

    assert instruments.gone == {"S0_USDT": minute(1)}


def test_a_name_that_is_missing_before_its_announced_end_needs_as_many_looks_as_any_other():
    leaving = an_instrument("S0_USDT", expiry_time=minute(500))

    instruments, _ = looked(a_list(*SHORT, S0_USDT=leaving), a_list(*SHORT), a_list(*SHORT))

    assert (instruments.gone, instruments.missing) == ({}, ["S0_USDT"])


def test_one_that_the_exchange_calls_expired_is_gone():
    over = an_instrument("S0_USDT", state="expired", expiry_time=minute(0))

    instruments, _ = looked(a_list(*MARKET), a_list(*SHORT, S0_USDT=over))

    assert instruments.gone == {"S0_USDT": minute(0)}


def test_one_that_is_back_is_not_gone_any_more():
    instruments, changes = looked(a_list(*MARKET), *[a_list(*SHORT)] * 4, a_list(*MARKET))

    assert instruments.gone == {}
    assert [(change.symbol, change.what) for change in changes[-1]] == [("S0_USDT", "back")]


def test_a_row_that_could_not_be_read_is_listed_all_the_same():
    odd = Listing({symbol: an_instrument(symbol) for symbol in SHORT}, frozenset(MARKET), [])

    instruments, _ = looked(a_list(*MARKET), *[odd] * 10)

    assert (instruments.gone, instruments.missing) == ({}, [])


def test_one_that_is_followed_and_was_never_listed_needs_evidence_too():
    instruments, _ = looked(*[a_list(*SHORT)] * 3, expected=MARKET)
    assert instruments.gone == {}

    instruments, _ = looked(*[a_list(*SHORT)] * 4, expected=MARKET)
    assert instruments.gone == {"S0_USDT": minute(0)}


@pytest.mark.parametrize("state", ["suspend", "rebase", "preopen"])
def test_in_a_rebase_as_in_a_suspension_nothing_is_traded(state):
    instruments, _ = looked(a_list(*MARKET), a_list(*SHORT, S0_USDT=an_instrument("S0_USDT", state=state)))

    assert instruments.is_expected_silent("S0_USDT")
    assert minute(0) in instruments.halts("S0_USDT")


def test_what_changes_under_a_name_is_said():
    before = an_instrument("S0_USDT", contract_value="1", lot_size="1", max_leverage="50", settle_currency="USDT")
    now = an_instrument("S0_USDT", contract_value="1000", lot_size="10", max_leverage="20", settle_currency="USDC")

    _, changes = looked(a_list(*SHORT, S0_USDT=before), a_list(*SHORT, S0_USDT=now))

    assert {(change.what, change.before, change.now) for change in changes[1]} == {
        ("contract value", "1", "1000"),
        ("lot size", "1", "10"),
        ("leverage", "50", "20"),
        ("settle currency", "USDT", "USDC"),
    }


def test_maintenance_of_other_services_halts_nothing():
    instruments = Instruments()
    window = a_window(end=minute(745))

    assert instruments.stood_still([msgspec.structs.replace(window, halts_swaps=False)], NOW) == []
    assert halted(instruments) == []


@pytest.mark.parametrize(("looks", "gone"), [(1, {}), (2, {"S0_USDT": minute(1)})])
def test_a_name_that_is_missing_and_unknown_to_the_other_endpoints_is_gone(looks, gone):
    instruments, _ = looked(a_list(*MARKET), *[a_list(*SHORT)] * looks)

    instruments.unknown("S0_USDT")
    instruments.unknown("S1_USDT")

    assert instruments.gone == gone


def test_an_instrument_that_went_while_nobody_looked_is_gone_by_the_same_evidence():
    """It is not known to this process, only to the store."""
    instruments, stored = Instruments(), {"OLD_USDT": None}

    for number in range(4):
        assert "OLD_USDT" not in instruments.gone
        instruments.update(a_list("BTC_USDT"), minute(number), 60.0 * number, (), stored)

    assert instruments.gone == {"OLD_USDT": minute(0)}


def test_one_whose_end_was_announced_before_needs_a_single_look():
    instruments = Instruments()

    instruments.update(a_list("BTC_USDT"), minute(700), 0.0, (), {"OLD_USDT": minute(600)})

    assert instruments.gone == {"OLD_USDT": minute(600)}


def test_a_store_full_of_instruments_that_are_gone_does_not_make_a_list_look_thin():
    instruments, stored = Instruments(), {f"OLD{number}_USDT": None for number in range(100)}

    changes = instruments.update(a_list("BTC_USDT"), minute(0), 0.0, ["BTC_USDT"], stored)

    assert changes == []


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"contract_value": "0.1"}, "contract value changed from 0.01 to 0.1 by 2025-04-05T00:01:00+00:00"),
        ({"settle_currency": "USD"}, "settle currency changed from USDT to USD by 2025-04-05T00:01:00+00:00"),
        ({"tick_size": "0.5"}, None),
    ],
)
def test_an_instrument_that_is_another_contract_since_is_shown_for_a_day(changed, shown):
    as_it_was = an_instrument(contract_value="0.01", settle_currency="USDT", tick_size="0.1")
    instruments = Instruments()
    instruments.update(a_list(BTC_USDT=as_it_was), minute(0), 0.0)
    now = msgspec.structs.replace(as_it_was, **changed)

    instruments.update(a_list(BTC_USDT=now), minute(1), 60.0)
    assert instruments.of_note(["BTC_USDT"]).get("BTC_USDT") == shown

    instruments.update(a_list(BTC_USDT=now), minute(1441), 9999.0)
    assert instruments.of_note(["BTC_USDT"]) == {}
