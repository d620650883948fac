"""The page of figures says what was measured, where, and how to measure it again."""

import pytest

from proofs.bench.document import (
    KEPT,
    Machine,
    Moment,
    Outcome,
    amount,
    command_of,
    document,
    sentences_of,
    with_kept,
)
from proofs.bench.figure import Beside, Figure
from proofs.bench.machine import file_system_of

MACHINE = Machine("A processor", 2, 23.5, "Linux 6.1", "ext4", {"Python": "3.13.1", "pyqlib": "0.9.7"}, "abc1234")
IDLE, BUSY = Moment("2026-11-27 08:00 UTC", (0.1, 0.2, 0.3)), Moment("2026-11-27 08:05 UTC", (3.5, 1.0, 0.5))
COST = Figure("a frame", 12.0, "us of CPU", Beside(4.0, "cryptofeed"), Beside(3.0, "msgspec"))
RATE = Figure("a backlog", 2_000.0, "candles a second", floor=Beside(30_000.0, "read only"), is_rate=True)


def page_of(*outcomes: Outcome, end: Moment = IDLE, full: bool = False) -> str:
    return document(outcomes, MACHINE, IDLE, end, full=full)


def test_a_figure_is_one_row_with_the_command_that_measures_it_again():
    page = page_of(Outcome("frames", "python -m proofs.bench.frames --symbols 5", 1.0, [COST]))

    row = "| a frame | 12.0 us of CPU | 4.00, cryptofeed | 3.00, msgspec | 3.00 | 4.00 |"
    assert f"{row} `python -m proofs.bench.frames --symbols 5` |\n" in page


def test_a_ratio_is_one_of_costs_also_where_more_is_better():
    assert COST.times(COST.floor) == pytest.approx(4.0)
    assert RATE.times(RATE.floor) == pytest.approx(15.0)


@pytest.mark.parametrize("other", [None, Beside(0.0, "nothing to do")])
def test_there_is_no_ratio_to_nothing(other):
    assert COST.times(other) is None
    assert RATE.times(other) is None


def test_a_benchmark_that_failed_says_why_on_its_line_and_the_others_stay():
    failed = Outcome("drain", "python -m proofs.bench.drain", 1.0, failure="NotMeasuredError: 1 | 2 <rows>\nlost")

    page = page_of(failed, Outcome("frames", "again", 1.0, [COST]))

    assert "| drain | not measured: NotMeasuredError: 1 \\| 2 &lt;rows> lost |  |  |  |  | `python" in page
    assert "| a frame | 12.0 us of CPU |" in page


def test_every_row_has_as_many_cells_as_the_head():
    page = page_of(Outcome("a", "b", 1.0, [COST, RATE]), Outcome("c", "d", 1.0, failure="e"))
    rows = [line for line in page.partition("## Where")[0].splitlines() if line.startswith("| ") and "`" in line]

    assert len(rows) == 3
    assert {row.count("|") for row in rows} == {8}


def test_the_page_says_where_when_and_in_which_sizes():
    page = page_of(Outcome("a", "b", 1.0, [COST]), full=True)

    for text in ("A processor, 2 cores", "23.5 GiB", "Linux 6.1", "ext4", "abc1234", "Python 3.13.1, pyqlib 0.9.7"):
        assert text in page
    assert "| full (`make bench FULL=1`) |" in page
    assert "2026-11-27 08:00 UTC, 2026-11-27 08:00 UTC" in page
    assert "0.10 0.20 0.30; 0.10 0.20 0.30" in page


def test_a_machine_that_did_other_work_is_said_to_be_one():
    outcome = Outcome("a", "b", 1.0, [COST])

    assert "upper bounds" in page_of(outcome, end=BUSY)
    assert "upper bounds" not in page_of(outcome)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.000163, "0.000163"),
        (0.0712, "0.0712"),
        (5.0, "5.00"),
        (12.04, "12.0"),
        (999.6, "1,000"),
        (14_237.0, "14,200"),
        (-0.5, "-0.500"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_has_the_three_digits_that_count(value, text):
    assert amount(value) == text


def test_a_command_has_each_value_of_an_option_and_can_be_pasted():
    options = {"days": [7, 60], "qlib_checkout": "my qlib"}

    assert (
        command_of("convert", options) == "python -m proofs.bench.convert --days 7 --days 60 --qlib-checkout 'my qlib'"
    )


def test_a_terminal_shows_the_same_figures():
    (work, said), (_, rate) = sentences_of(Outcome("a", "b", 1.0, [COST, RATE]))

    assert work == "a frame"
    assert said == "12.0 us of CPU; peer 4.00, cryptofeed, x 3.00; floor 3.00, msgspec, x 4.00"
    assert rate == "2,000 candles a second; floor 30,000, read only, x 15.0"


def test_what_is_written_by_hand_stays_below_the_figures():
    assert with_kept("new\n", f"old\n\n{KEPT}\n\nby hand\n") == f"new\n\n{KEPT}\n\nby hand\n"
    assert with_kept("new\n", "old\n") == "new\n"
    assert with_kept("new\n", "") == "new\n"


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path):
    mounts = f"/dev/a / ext4 rw 0 0\ntmpfs {str(tmp_path).replace(' ', chr(92) + '040')} tmpfs rw 0 0\n"

    assert file_system_of(tmp_path / "folder", mounts) == "tmpfs"
    assert file_system_of(tmp_path.parent, mounts) == "ext4"
    assert file_system_of(tmp_path, "") == "unknown"
