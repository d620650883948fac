"""Which pages are asked for, and what an answer settles: time is an argument here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.tracking.denials import AGAIN_SECONDS, AGREE, TIMES
from services.collector.tracking.instrument import GRACE, TrackedInstrument
from services.collector.tracking.requests import Request, pages, settle
from shared.exchanges.base import SURE
from shared.exchanges.okx.rest import LIMITS
from shared.grid import DAY, MINUTE
from shared.ledger.minutes import Coverage, Gap
from tests.support.builders import MIDNIGHT, minute
from tests.support.tracked import NOON, see


@given(st.integers(0, 5000), st.integers(1, 2000))
def test_pages_cover_a_gap_newest_first_in_pieces_that_fit(first, length):
    wanted, gap = TrackedInstrument("BTC_USDT", MIDNIGHT), Gap(minute(first), minute(first + length))

    found = list(pages(wanted, [gap], minute(first + length), LIMITS))

    assert all(request.gap.minutes <= LIMITS.page_minutes for request in found)
    assert sum(request.gap.minutes for request in found) == length
    assert found[0].gap.end == gap.end
    assert found[-1].gap.begin == gap.begin


def test_the_last_day_is_fresh_and_the_rest_is_history():
    now = minute(5 * 1440)
    wanted = TrackedInstrument("BTC_USDT", MIDNIGHT)
    gaps = [Gap(now - 2 * DAY, now - 2 * DAY + MINUTE), Gap(now - MINUTE, now)]

    assert [request.fresh for request in pages(wanted, gaps, now, LIMITS)] == [True, False]


@pytest.mark.invariant(7)
def test_an_exchange_asked_well_after_the_minute_is_believed_when_it_has_no_row():
    """Invariant 7: confirmed absent by the exchange."""
    wanted, gap = TrackedInstrument("BTC_USDT", NOON, listed=MIDNIGHT), Gap(minute(720), minute(730))
    see(wanted, 721, 800)
    now = minute(725) + SURE

    deny(wanted, gap, now)
    deny(wanted, gap, now + AGREE, seconds=1000.0, until=now)

    assert wanted.absent.gaps(minute(720), minute(730)) == [
        Gap(minute(721), minute(722)),
        Gap(minute(725), minute(730)),
    ]


def deny(wanted, gap, now, *, times=TIMES, halts=None, seconds=0.0, until=None, disputed=False):
    """Let the history say so often that it has nothing of a gap; `until`: ask only for what was over then."""
    asked = Gap(gap.begin, gap.end if until is None else min(gap.end, until - SURE))
    for number in range(times):
        request = Request("BTC_USDT", asked, fresh=False)
        settle(wanted, request, now, seconds + number * AGAIN_SECONDS, halts or Coverage(), disputed=disputed)


def between_rows():
    """Return a symbol whose minutes from 719 to 900 lie between rows that the exchange has shown."""
    wanted = TrackedInstrument("BTC_USDT", NOON - MINUTE)
    see(wanted, 719, 900)
    return wanted


@pytest.mark.invariant(7)
def test_one_empty_answer_is_not_believed_and_asked_again_a_little_later():
    """Invariant 7: an exchange that hiccups must not make a hole for ever."""
    wanted, gap = between_rows(), Gap(minute(720), minute(722))
    now = minute(800)

    deny(wanted, gap, now, times=TIMES - 1)
    last = (TIMES - 2) * AGAIN_SECONDS
    settle(wanted, Request("BTC_USDT", gap, fresh=False), now, last + 1, Coverage())

    assert wanted.absent.count() == 0
    assert wanted.to_ask([Gap(minute(719), minute(730))], now, last + 1) == [
        Gap(minute(719), minute(720)),
        Gap(minute(722), minute(730)),
    ]
    assert wanted.to_ask([gap], now, last + AGAIN_SECONDS) == [gap]


@pytest.mark.invariant(7)
def test_a_minute_is_absent_after_answers_that_agree_half_an_hour_apart():
    """Invariant 7: three quick answers are one hiccup; after them it is not asked until half an hour has passed."""
    wanted, gap, now = between_rows(), Gap(minute(720), minute(722)), minute(800)

    deny(wanted, gap, now)
    assert wanted.absent.count() == 0
    assert wanted.to_ask([gap], now + AGREE - MINUTE, 1e6) == []
    assert wanted.to_ask([gap], now + AGREE, 1e6) == [gap]

    deny(wanted, gap, now + AGREE, times=1, seconds=1e6)

    assert wanted.absent.gaps(minute(719), minute(723)) == [
        Gap(minute(719), minute(720)),
        Gap(minute(722), minute(723)),
    ]
    assert wanted.denials.count() == 0


@pytest.mark.invariant(7)
def test_a_row_that_comes_after_all_ends_the_denial_and_its_count():
    """Invariant 7: merely late is not absent."""
    wanted, gap, now = between_rows(), Gap(minute(720), minute(722)), minute(800)
    deny(wanted, gap, now)

    see(wanted, 721)
    deny(wanted, gap, now, times=1, seconds=500.0)
    wanted.seen.discard(minute(721))  # lost on the way, so it is asked for again
    deny(wanted, gap, now + AGREE, times=1, seconds=1e6)

    assert [minute(720) in wanted.absent, minute(721) in wanted.absent] == [True, False]


@pytest.mark.invariant(7)
@pytest.mark.parametrize(("shown", "gap"), [((719,), (720, 725)), ((800,), (720, 725)), ((), (720, 725))])
def test_what_does_not_lie_between_rows_of_the_exchange_is_never_absent(shown, gap):
    """Invariant 7: an endpoint that answers nothing at all looks the same."""
    wanted, gap, now = TrackedInstrument("BTC_USDT", NOON - MINUTE), Gap(*map(minute, gap)), minute(900)
    see(wanted, *shown)

    for number in range(10):
        deny(wanted, gap, now + number * AGREE, seconds=number * 1e5)

    assert wanted.absent.count() == 0
    assert wanted.to_ask([gap], now + 20 * AGREE, 2e6) == [gap], "and it is still asked for, now and then"


@pytest.mark.invariant(13)
def test_while_the_clock_is_in_dispute_nothing_is_judged():
    """Invariant 13: minutes of a future that a wrong clock shows would be absent for good."""
    wanted, gap, now = between_rows(), Gap(minute(720), minute(722)), minute(800)

    deny(wanted, gap, now, disputed=True)
    deny(wanted, gap, now + AGREE, seconds=1e6, disputed=True)

    assert wanted.absent.count() == wanted.denials.count() == 0


@pytest.mark.invariant(7)
def test_a_row_that_cannot_be_true_three_times_is_refused_and_never_absent():
    """Invariant 7: the exchange has something of that minute."""
    wanted, gap, now = between_rows(), Gap(minute(720), minute(722)), minute(800)
    for number in range(TIMES):
        wanted.refusals.note([Gap(minute(720), minute(721))], now, number * AGAIN_SECONDS)
        deny(wanted, gap, now, times=1, seconds=number * AGAIN_SECONDS)
        assert (minute(720) in wanted.refused) == (number == TIMES - 1)

    deny(wanted, gap, now + AGREE, times=1, seconds=1e6)

    assert [minute(720) in found for found in (wanted.refused, wanted.absent)] == [True, False]
    assert [minute(721) in found for found in (wanted.refused, wanted.absent)] == [False, True]
    assert wanted.gaps(minute(722) + GRACE) == []


@pytest.mark.invariant(9)
def test_a_month_that_the_exchange_denies_is_a_few_masks():
    """Invariant 9: it is looked through twice a second, for half an hour."""
    wanted = TrackedInstrument("BTC_USDT", MIDNIGHT - 30 * DAY)
    for number in range(30):
        gap = Gap(MIDNIGHT - (number + 1) * DAY, MIDNIGHT - number * DAY)
        settle(wanted, Request("BTC_USDT", gap, fresh=False), minute(800), 5.0, Coverage())

    assert len(wanted.denials._groups) == 1
    assert wanted.denials.count() == 30 * 1440


@pytest.mark.invariant(7)
def test_a_minute_without_a_candle_while_trading_stood_still_was_halted():
    """Invariant 7: the ledger says why; a halt explains itself, so nothing has to be waited for."""
    wanted, gap, halts = between_rows(), Gap(minute(720), minute(723)), Coverage()
    halts.add(minute(721))

    deny(wanted, gap, minute(800), halts=halts)

    assert wanted.halted.gaps(minute(720), minute(723)) == [
        Gap(minute(720), minute(721)),
        Gap(minute(722), minute(723)),
    ]
    deny(wanted, gap, minute(800) + AGREE, halts=halts, seconds=1e6)
    assert wanted.absent.count() == 2
    assert wanted.gaps(minute(723) + GRACE) == []
