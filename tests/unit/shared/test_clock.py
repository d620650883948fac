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
        theirs = begin + rate * (moment + there - first)
        made.append(Sample(moment, moment + there + back, round(theirs * 1000) / 1000))
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
def test_a_fast_clock_is_known_to_within_its_round_trip(rate, delays):
    made = samples(rate=rate, delays=delays)
    line = fit(made)
    moment = made[-1].sent + 5

    true = 1_700_000_000.0 + rate * (moment - 1_000.0)

    assert abs(line.exchange(moment) - true) <= rate * 0.1


def test_a_clock_that_stands_still_is_seen_to_stand():
    assert fit(samples(rate=0.0)).rate == 0.0


def test_one_sample_gives_the_offset_and_not_yet_the_rate():
    clock = ExchangeClock()

    clock.add(Sample(time.monotonic(), time.monotonic(), 1_500_000_000.0))

    assert not clock.measured
    assert abs(clock.now() - (EPOCH + timedelta(seconds=1_500_000_000))) < timedelta(seconds=1)


def test_a_host_whose_clock_is_wrong_has_the_exchanges_time():
    """The host's wall clock is never asked once the exchange was: only the monotonic clock counts."""
    clock = ExchangeClock()
    last_year = 1_600_000_000.0
    here = time.monotonic()

    for ago in (20.0, 10.0, 0.0):
        clock.add(Sample(here - ago, here - ago + 0.01, last_year - ago))

    assert clock.measured
    assert abs((clock.now() - EPOCH).total_seconds() - last_year) < 1
    assert clock.offset_seconds == pytest.approx(last_year - time.time(), abs=1)


BEGIN = 1_700_000_000.0
SIX_HOURS = 6 * 3600.0
LONG = (0.5, 10, 15, 20, 20)
"""Pauses between measurements that agree for more than a minute."""


def at_exchange(seconds):
    return EPOCH + timedelta(seconds=seconds)


def a_clock_that_jumped(by=SIX_HOURS, pauses=LONG, rate=1.0):
    """Return a clock, and the moment of the last measurement: for a minute they said one thing, then another."""
    clock = ExchangeClock()
    for sample in samples(rate=rate):
        clock.add(sample)
    for sample in samples(rate=rate, begin=BEGIN + rate * 100 + by, first=1_100.0, pauses=pauses):
        clock.add(sample)
    return clock, 1_100.0 + sum(pauses)


@pytest.mark.parametrize("by", [SIX_HOURS, -SIX_HOURS, 200 * 86400.0, 30.0])
def test_a_jump_that_lasts_and_that_the_rows_confirm_is_followed(by):
    clock, here = a_clock_that_jumped(by)
    true = BEGIN + here - 1_000.0 + by

    assert clock.disputed
    assert clock.jump_seconds == pytest.approx(by, abs=0.1)
    assert clock.decide(at_exchange(true - 20), here)

    assert not clock.disputed
    assert clock.rate == 1.0
    assert clock.line.exchange(here) == pytest.approx(true, abs=0.1)


@pytest.mark.parametrize("by", [SIX_HOURS, -SIX_HOURS, 200 * 86400.0])
def test_a_jump_that_the_rows_deny_is_not_believed_however_long_it_lasts(by):
    clock, here = a_clock_that_jumped(by)

    assert not clock.decide(at_exchange(BEGIN + here - 1_000.0 - 20), here)

    assert clock.disputed
    assert clock.line.exchange(here) == pytest.approx(BEGIN + here - 1_000.0, abs=0.1)


def test_a_jump_of_less_than_a_minute_is_not_believed_whatever_the_rows_say():
    clock, here = a_clock_that_jumped(pauses=(0.5, 10, 10, 10))

    assert not clock.is_ripe
    assert not clock.decide(at_exchange(BEGIN + here - 1_000.0 + SIX_HOURS), here)


def test_a_dispute_is_over_once_the_clock_says_again_what_it_said():
    clock, here = a_clock_that_jumped()

    clock.add(Sample(here + 10, here + 10.02, BEGIN + here + 10.01 - 1_000.0))

    assert not clock.disputed
    assert clock.line.exchange(here) == pytest.approx(BEGIN + here - 1_000.0, abs=0.1)


@pytest.mark.parametrize("by", [SIX_HOURS, -SIX_HOURS])
def test_in_a_dispute_nothing_is_over_and_nothing_from_the_future_that_might_not_be(by):
    clock, here = ExchangeClock(), time.monotonic()
    for ago in (40.0, 30.0, 20.0):
        clock.add(Sample(here - ago, here - ago + 0.01, BEGIN - ago))
    clock.add(Sample(here - 1, here - 1 + 0.01, BEGIN - 1 + by))

    assert (clock.now() - EPOCH).total_seconds() == pytest.approx(BEGIN + min(0.0, by), abs=2)
    assert (clock.latest() - EPOCH).total_seconds() == pytest.approx(BEGIN + max(0.0, by), abs=2)


def test_measurements_that_contradict_each_other_confirm_nothing():
    clock = ExchangeClock()
    for sample in samples():
        clock.add(sample)
    for number in range(30):
        clock.add(Sample(1_100.0 + 10 * number, 1_100.01 + 10 * number, BEGIN + 1e6 * (number + 1) ** 2))

    assert clock.disputed
    assert not clock.is_ripe


def test_a_clock_that_starts_to_run_faster_is_followed_once_the_rows_confirm_it():
    clock = ExchangeClock()
    for sample in [*samples(rate=1.0), *samples(rate=60.0, begin=BEGIN + 21.0, first=1_100.0, pauses=LONG)]:
        clock.add(sample)
    here = 1_100.0 + sum(LONG)

    assert clock.decide(at_exchange(BEGIN + 21.0 + 60 * sum(LONG)), here)
    assert clock.rate == pytest.approx(60.0, rel=0.01)


def test_first_measurements_that_are_distrusted_do_not_count_until_something_confirms_them():
    clock = ExchangeClock(distrusted=True)
    for sample in samples():
        clock.add(sample)

    assert clock.fitted
    assert not clock.measured
    assert clock.confirms(at_exchange(BEGIN + 20.0), 1_021.0)
    assert not clock.confirms(at_exchange(BEGIN - SIX_HOURS), 1_021.0)

    clock.forget()

    assert not clock.fitted


def standing(clock, at, *, first, seconds):
    """Let the exchange say the same time every ten seconds."""
    for moment in range(0, seconds + 1, 10):
        clock.add(Sample(first + moment, first + moment + 0.02, at))


def test_a_time_that_stands_still_while_newer_rows_come_is_not_believed_and_the_clock_goes_on():
    clock = ExchangeClock()
    for sample in samples():
        clock.add(sample)
    line = clock.line
    standing(clock, BEGIN + 21, first=1_031.0, seconds=90)

    assert abs(clock.still_time - at_exchange(BEGIN + 21)) < timedelta(seconds=1)
    assert not clock.deny_standstill(at_exchange(BEGIN + 20))
    assert clock.deny_standstill(at_exchange(BEGIN + 80))
    standing(clock, BEGIN + 21, first=1_131.0, seconds=600)

    assert clock.still_denied
    assert (clock.measured, clock.disputed, clock.rate) == (True, False, 1.0)
    assert clock.line.exchange(1_500.0) == pytest.approx(line.exchange(1_500.0), abs=0.1)


def test_a_time_that_stood_still_from_the_start_and_is_denied_measures_nothing_until_it_moves_on():
    clock = ExchangeClock()
    standing(clock, BEGIN, first=1_000.0, seconds=60)

    assert clock.deny_standstill(at_exchange(BEGIN + 30))
    standing(clock, BEGIN, first=1_070.0, seconds=60)
    assert not clock.fitted

    for sample in samples(begin=BEGIN + 200, first=1_200.0):
        clock.add(sample)
    assert clock.fitted
    assert clock.still_time is None
    assert clock.rate == 1.0


def test_a_time_that_runs_backwards_stands_still():
    clock = ExchangeClock()
    for sample in samples(rate=-1.0):
        clock.add(sample)

    assert abs(clock.still_time - at_exchange(BEGIN)) < timedelta(seconds=1)


def test_a_replay_that_has_ended_is_believed_once_its_rows_cannot_be_those_of_a_clock_that_goes_on():
    clock = ExchangeClock()
    for sample in samples():
        clock.add(sample)
    standing(clock, BEGIN + 21, first=1_031.0, seconds=300)

    assert not clock.deny_standstill(at_exchange(BEGIN + 21))
    assert not clock.decide(at_exchange(BEGIN + 21), 1_150.0)
    assert clock.decide(at_exchange(BEGIN + 21), 1_331.0)
    assert clock.rate == 0.0


@given(st.floats(0.001, 600), st.floats(0.0005, 0.05))
def test_a_clock_that_runs_does_not_stand_still_however_slow_or_fast(rate, delay):
    clock = ExchangeClock()
    for sample in samples(rate=rate, delays=((delay, delay),)):
        clock.add(sample)

    assert clock.still_time is None


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
