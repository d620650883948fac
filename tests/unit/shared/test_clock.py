"""Invariant 13: the exchange's clock, whatever the host's says and however fast time runs there."""

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ExchangeClock, Sample, fit
from shared.grid import EPOCH

pytestmark = pytest.mark.invariant(13)


def samples(*, rate=1.0, begin=1_700_000_000.0, pauses=(0.5, 0.5, 10, 10), delays=((0.01, 0.01),), first=1_000.0):
    """Make the answers of a clock with a rate; delays: (way there, way back) in our seconds, by turns."""
    made, moment = [], first
    for number, pause in enumerate((0.0, *pauses)):
        moment += pause
        there, back = delays[number % len(delays)]
        told = begin + rate * (moment + there - first)
        made.append(Sample(moment, moment + there + back, round(told * 1000) / 1000))
    return made


@given(
    st.lists(st.tuples(st.floats(0.001, 2.0), st.floats(0.001, 2.0)), min_size=1, max_size=5),
    st.lists(st.floats(0.5, 15), min_size=1, max_size=4),
)
def test_network_jitter_does_not_bend_time(delays, pauses):
    assert fit(samples(delays=delays, pauses=pauses)).rate == 1.0


@given(st.floats(1, 600), st.floats(0.0005, 0.05), st.floats(-1e9, 1e9))
def test_any_rate_from_1_to_600_is_found(rate, delay, offset):
    line = fit(samples(rate=rate, begin=1_700_000_000.0 + offset, delays=((delay, delay),)))

    assert line.rate == pytest.approx(rate, rel=0.01)


@given(st.floats(60, 600), st.lists(st.tuples(st.floats(0.001, 0.02), st.floats(0.001, 0.02)), min_size=2, max_size=5))
def test_a_fast_clock_is_told_to_within_its_round_trip(rate, delays):
    made = samples(rate=rate, delays=delays)
    line = fit(made)
    moment = made[-1].sent + 5

    true = 1_700_000_000.0 + rate * (moment - 1_000.0)

    assert abs(line.exchange(moment) - true) <= rate * 0.1


def test_a_clock_that_stands_still_is_seen_to_stand():
    assert fit(samples(rate=0.0)).rate == 0.0


def test_one_sample_tells_the_offset_and_not_yet_the_rate():
    clock = ExchangeClock()

    clock.add(Sample(time.monotonic(), time.monotonic(), 1_500_000_000.0))

    assert not clock.measured
    assert abs(clock.now() - (EPOCH + timedelta(seconds=1_500_000_000))) < timedelta(seconds=1)


def test_a_host_whose_clock_is_wrong_tells_the_exchanges_time():
    """The host's wall clock is never asked once the exchange was: only the monotonic clock counts."""
    clock = ExchangeClock()
    last_year = 1_600_000_000.0
    here = time.monotonic()

    for ago in (20.0, 10.0, 0.0):
        clock.add(Sample(here - ago, here - ago + 0.01, last_year - ago))

    assert clock.measured
    assert abs((clock.now() - EPOCH).total_seconds() - last_year) < 1
    assert clock.offset_seconds == pytest.approx(last_year - time.time(), abs=1)


def test_a_clock_that_is_set_is_followed_and_keeps_its_rate():
    clock = ExchangeClock()
    for sample in samples(rate=1.0):
        clock.add(sample)
    jumped = samples(begin=1_800_000_000.0, first=2_000.0, pauses=(0.5, 10, 10))

    clock.add(jumped[0])

    assert clock.line.exchange(jumped[0].sent) == pytest.approx(1_800_000_000.0, abs=0.1)
    assert clock.rate == 1.0
    for sample in jumped[1:]:
        clock.add(sample)
    assert clock.rate == 1.0
    assert clock.line.exchange(2_030.0) == pytest.approx(1_800_000_030.0, abs=0.1)


def test_a_clock_that_starts_to_run_faster_is_followed():
    clock = ExchangeClock()
    for sample in [*samples(rate=1.0), *samples(rate=60.0, begin=1_700_000_021.0, first=1_100.0)]:
        clock.add(sample)

    assert clock.rate == pytest.approx(60.0, rel=0.01)


def test_waiting_counts_in_our_seconds():
    clock = ExchangeClock()
    here = time.monotonic()
    for sample in samples(rate=600.0, first=here - 21.0, delays=((0.001, 0.001),)):
        clock.add(sample)

    assert clock.seconds_until(clock.now() + timedelta(hours=1)) == pytest.approx(6.0, rel=0.02)
    assert clock.seconds_until(clock.now() - timedelta(hours=1)) == 0.0


def test_waiting_for_a_clock_that_stands_looks_again_soon():
    clock = ExchangeClock()
    for sample in samples(rate=0.0):
        clock.add(sample)

    assert 0 < clock.seconds_until(clock.now() + timedelta(hours=1)) <= 5
