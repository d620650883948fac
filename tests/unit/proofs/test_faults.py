"""docs/faults.md and the tests agree: no fault without a row, no row without a test, no figure that nobody measured."""

import json
import re
import subprocess
import sys

import pytest

from cli.stack import ROOT
from proofs.faults import TABLE, read_times, rows_of, with_times
from services.simulator.faults.kinds import KINDS

ROWS = list(rows_of(TABLE.read_text()))
OWN = ("tests/e2e/test_faults.py", "tests/e2e/test_life_cycle.py")
"""Tests that are there for the table alone: each has its row."""


@pytest.fixture(scope="module")
def collected():
    """Return every test of the files that the table names, as pytest calls them."""
    files = sorted({test.partition("::")[0] for row in ROWS for test in row.tests} | {*OWN})
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    return {line for line in answer.stdout.splitlines() if "::" in line}


def test_every_fault_has_one_row_with_every_cell_filled():
    assert len({row.fault for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.fault
        assert all(row.cells), row


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_the_simulator_knows_has_a_row(kind):
    assert [row for row in ROWS if row.fault == kind or row.fault.startswith(f"{kind} ")]


@pytest.mark.parametrize("kind", KINDS)
def test_how_long_each_of_them_takes_to_heal_is_measured(kind):
    for row in ROWS:
        if row.fault.split()[0] == kind:
            assert re.fullmatch(r"\d+\.\d s", row.cells[3]), row.fault


def test_every_row_names_tests_that_exist(collected):
    for row in ROWS:
        assert row.tests, row.fault
        assert set(row.tests) <= collected, row.fault


def test_every_test_that_strikes_a_fault_has_its_row(collected):
    named = {test for row in ROWS for test in row.tests}
    assert {test for test in collected if test.startswith(OWN)} <= named


TEXT = """\
| other | table |
|---|---|
| `a`: x | y |

| fault | seen | heals | healed after | test |
|---|---|---|---|---|
| `lost`: a row is lost | `x` | REST | - | `tests/a.py::test_a` `tests/b.py::test_b` |
| `late`: it is late | `x` | REST | 7.0 s | `tests/a.py::test_b` |
"""


def test_what_was_measured_replaces_the_fourth_column_and_nothing_else():
    assert with_times(TEXT, {}) == TEXT
    assert with_times(TEXT, {"lost": 2.04}) == TEXT.replace("| - |", "| 2.0 s |")
    assert with_times(TEXT, {"tests/b.py::test_b": 3, "x": 1}) == TEXT.replace("| - |", "| 3.0 s |")


def test_of_several_measurements_the_longest_counts(tmp_path):
    measured = [{"what": "lost", "seconds": 1.5}, {"what": "lost", "seconds": 2.5}, {"what": "late", "seconds": 1}]
    (tmp_path / "times").write_text("".join(json.dumps(one) + "\n" for one in measured))

    assert read_times(tmp_path / "times") == {"lost": 2.5, "late": 1}
    assert read_times(tmp_path / "none") == {}
