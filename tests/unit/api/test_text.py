"""Figures as a person reads them."""

import pytest

from services.api.text import byte_size, counted, duration, instant, some_of
from tests.support.builders import MIDNIGHT


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (180, "3 min"), (7200, "2 h"), (86400 * 4, "4 days")],
)
def test_durations_are_in_the_unit_that_people_use(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_500_000_000, "12.5 GB"), (3e15, "3 PB")]
)
def test_sizes_are_in_the_unit_that_people_use(size, text):
    assert byte_size(size) == text


def test_one_thing_is_singular():
    assert [counted(number, "minute") for number in (0, 1, 2000)] == ["0 minutes", "1 minute", "2,000 minutes"]


def test_only_some_names_are_spelled_out():
    assert some_of("abcde") == "a, b, c, d, e"
    assert some_of("abcdefg") == "a, b, c, d, e and 2 more"
    assert some_of([]) == ""


def test_an_instant_has_its_zone():
    assert instant(MIDNIGHT).endswith("00:00 UTC")
