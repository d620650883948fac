"""What becomes of the instruments and of the exchange: time is an argument here."""

import pytest

from services.collector.instruments import Instruments
from shared.coverage import Gap
from shared.grid import DAY, MINUTE
from shared.okx.spelling import Maintenance
from tests.support.builders import MIDNIGHT, an_instrument, minute

BEGAN, NOW = minute(710), minute(720)
FROM, TO = minute(700), minute(800)


def a_window(state="ongoing", begin=BEGAN, end=None):
    return Maintenance(title="System upgrade", state=state, begin=begin, end=end)


def halted(instruments, begin=FROM, end=TO):
    """Return which minutes stood still, as spans."""
    moving = instruments.halts("BTC_USDT").gaps(begin, end)
    edges = [begin, *(edge for gap in moving for edge in (gap.begin, gap.end)), end]
    return [Gap(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last]


@pytest.mark.invariant(7)
def test_an_exchange_stands_still_until_the_end_that_it_expects():
    """Invariant 7: when it is over it is not told any more, so that no look would find its last minutes."""
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
        instruments.update({"BTC_USDT": an_instrument(state=state)}, minute(at))

    assert halted(instruments) == [Gap(minute(715), minute(736))]
