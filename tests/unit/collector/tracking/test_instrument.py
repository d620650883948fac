"""Which minutes of one instrument are missing: time is an argument here."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.tracking.instrument import GRACE, TrackedInstrument
from shared.ledger.minutes import Gap
from tests.support.builders import minute
from tests.support.tracked import NOON, see


@pytest.mark.invariant(7)
@pytest.mark.invariant(13)
def test_a_minute_is_missing_once_it_should_have_arrived():
    """Invariants 7 and 13: by the exchange's clock, which is an argument; here this day has long passed."""
    wanted = TrackedInstrument("BTC_USDT", NOON)

    assert wanted.gaps(minute(721) + GRACE - timedelta(milliseconds=1)) == []
    assert wanted.gaps(minute(721) + GRACE) == [Gap(minute(720), minute(721))]


@pytest.mark.invariant(13)
def test_a_row_of_a_later_minute_proves_that_earlier_ones_are_over():
    """Invariant 13: the exchange's own rows count, whatever the clock says."""
    wanted = TrackedInstrument("BTC_USDT", NOON, forming=minute(723))

    assert wanted.gaps(minute(721)) == [Gap(minute(720), minute(722))]


@pytest.mark.invariant(7)
@given(st.sets(st.integers(720, 800)), st.sets(st.integers(720, 800)))
def test_every_minute_is_seen_absent_or_missing(seen, absent):
    """Invariant 7: gaps, seen and absent are all, and what is settled is not missing."""
    wanted = TrackedInstrument("BTC_USDT", NOON)
    see(wanted, *seen)
    for number in absent:
        wanted.absent.add(minute(number))

    gaps = wanted.gaps(minute(801) + GRACE)

    missing = {number for number in range(720, 801) for gap in gaps if gap.begin <= minute(number) < gap.end}
    assert missing == set(range(720, 801)) - seen - absent
