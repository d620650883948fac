"""What grows is found, also among what goes up and down; what is merely restless is not accused."""

import csv
from pathlib import Path

import pytest

from proofs.bench.soak import after_first_day, growth_per_day, is_flat, write_csv

HOURS = [24 + hour for hour in range(6 * 24)]


def a_quantity(per_day: float, *, saw: float = 0.0, base: float = 100.0) -> list[tuple[float, float]]:
    return [(hour / 24, base + per_day * hour / 24 + saw * (hour % 7)) for hour in HOURS]


def test_growth_is_the_slope_whatever_goes_up_and_down_around_it():
    assert growth_per_day(a_quantity(3.0)) == pytest.approx(3.0)
    assert growth_per_day(a_quantity(3.0, saw=2.0)) == pytest.approx(3.0, abs=0.2)
    assert growth_per_day([(1.0, 5.0)]) == 0.0


@pytest.mark.parametrize(
    ("name", "per_day", "flat"),
    [
        ("RSS MB writer", 0.5, True),
        ("RSS MB writer", 5.0, False),
        ("RSS MB writer", -50.0, True),
        ("files collector", 3.0, False),
        ("threads api", 0.0, True),
        ("redis MB", 4.0, False),
        ("stream candles", 20.0, True),
        ("logs MB", 2.5, False),
        ("AOF MB", 12.0, True),
        ("AOF MB", 30.0, False),
    ],
)
def test_what_grows_by_more_than_it_may_is_not_flat(name: str, per_day: float, flat: bool):
    assert is_flat(name, a_quantity(per_day, saw=0.1)) is flat


def test_the_first_day_is_not_judged():
    taken = [(0.5, {"redis MB": 1.0}), (1.0, {"redis MB": 2.0, "files api": 1.0}), (1.5, {"redis MB": 3.0})]

    assert after_first_day(taken) == {"redis MB": [(1.0, 2.0), (1.5, 3.0)]}


def test_samples_are_written_a_line_each(tmp_path: Path):
    write_csv(tmp_path / "soak.csv", [(0.0, {"redis MB": 1.0}), (0.04, {"redis MB": 2.0, "files api": 9.0})])

    with (tmp_path / "soak.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["day", "files api", "redis MB"],
            ["0.0000", "", "1.0"],
            ["0.0400", "9.0", "2.0"],
        ]
