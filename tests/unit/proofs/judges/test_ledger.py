"""The ledger's verdicts, true and false: each kind of mistake is made here, and found."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proofs.judges.ledger import judge_ledger, open_minutes, read_ledger, unwanted_minutes
from proofs.judges.stored import only
from proofs.rig.recording import Recorded
from proofs.units import MINUTE_MS as MINUTE
from tests.support.truth import BEGIN, a_truth, faults_of, stored_as


def a_ledger(true: Recorded, **sets: list[int]) -> dict[str, np.ndarray]:
    return {name: true.opens[rows] for name, rows in sets.items()}


def test_a_ledger_that_accounts_for_every_minute_is_clean():
    true = a_truth(10)
    stored = stored_as(true, list(range(8)))
    sets = {"wanted": [*range(10)], "received": [0, 2, 4, 6], "healed": [1, 3, 5, 7], "absent": [8], "halted": [9]}
    ledger = a_ledger(true, **sets)
    there = only(true, np.arange(10) < 8, np.zeros(0, bool))
    found = judge_ledger("A", ledger, stored, there, [(BEGIN, BEGIN + 10 * MINUTE)], end_ms=BEGIN + 10 * MINUTE)

    assert found.faults == 0
    assert found.verdicts == 10


def test_a_ledger_that_lies_or_is_silent_is_found_out():
    true = a_truth(10)
    stored = stored_as(true, [0, 1])
    ledger = a_ledger(true, wanted=[0, 1, 2, 3, 6, 7], received=[0, 1], healed=[], absent=[2], halted=[])
    found = judge_ledger("A", ledger, stored, true, [(BEGIN, BEGIN + 5 * MINUTE)], end_ms=BEGIN + 7 * MINUTE)

    # 1 came over REST and is said to have been received; 2 is said to be absent. 3 has no verdict, 4 not even a wish,
    # 6 is wanted by the ledger alone and has none either; 7 is not over.
    assert faults_of(found) == {"ledger wrong": 3, "unexplained": 4}


@pytest.mark.parametrize(
    ("refused", "verdicts", "wrong"),
    [
        ([8, 9], {"refused": [8, 9]}, 0),
        ([8, 9], {"refused": [8], "absent": [9]}, 1),  # there is a row of 9, if an impossible one
        ([8], {"refused": [8, 9]}, 1),  # 9 is as it should be
        ([], {"refused": [8, 9]}, 2),
    ],
)
def test_a_minute_is_refused_in_the_ledger_exactly_where_the_exchange_shows_it_impossible(refused, verdicts, wrong):
    true = a_truth(10)
    stored = stored_as(true, list(range(8)))
    ledger = a_ledger(true, wanted=[*range(10)], received=[0, 2, 4, 6], healed=[1, 3, 5, 7], **verdicts)
    there = only(true, np.arange(10) < 8, np.zeros(0, bool))
    span = [(BEGIN, BEGIN + 10 * MINUTE)]
    impossible = true.opens[refused]
    found = judge_ledger("A", ledger, stored, there, span, end_ms=BEGIN + 10 * MINUTE, refused=impossible)

    assert found.ledger_wrong == wrong
    assert found.unexplained == 0


def test_minutes_that_the_ledger_itself_has_no_verdict_of_are_open():
    ledger = a_ledger(a_truth(10), wanted=[0, 1, 2, 3, 4, 5], received=[0], healed=[1], absent=[2], halted=[9])

    assert open_minutes(ledger, BEGIN + 5 * MINUTE) == 2


def test_minutes_of_which_the_ledger_does_not_say_yet_that_they_are_wanted_are_counted():
    ledger = a_ledger(a_truth(10), wanted=[0, 1, 2, 5, 6, 9], received=[0])
    windows = [(BEGIN, BEGIN + 4 * MINUTE), (BEGIN + 6 * MINUTE, BEGIN + 9 * MINUTE)]

    assert unwanted_minutes(ledger, windows) == 3
    assert unwanted_minutes({}, windows) == 7
    assert unwanted_minutes(ledger, []) == 0


def test_ledger_is_read_from_its_runs(tmp_path: Path):
    folder = tmp_path / "ledger" / "date=2026-03-01"
    folder.mkdir(parents=True)
    row = {"symbol": "A", "wanted": "0-2,5", "received": "0", "healed": "1-2", "absent": "", "halted": "5-5"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "ledger_20260301.parquet")
    found = read_ledger(tmp_path)

    assert found is not None
    assert {name: ((times - BEGIN) // MINUTE).tolist() for name, times in found["A"].items()} == {
        "wanted": [0, 1, 2, 5],
        "received": [0],
        "healed": [1, 2],
        "absent": [],
        "halted": [5],
        "refused": [],
    }
    assert read_ledger(tmp_path / "nowhere") is None
