"""Several chaos runs are added up, and what they leave unproved is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from proofs.chaos.plan import HOST, WIRE
from proofs.chaos.report import BadReportError, add_up, read_reports


def a_report(seed: int, **changes: Any) -> dict[str, Any]:
    kinds = dict.fromkeys((*HOST, *WIRE), 3)
    report = {"seed": seed, "command": f"make chaos SEED={seed}", "passed": True, "seconds": 60.0, "injected": kinds}
    report |= {"happened": kinds, "compared": {"candles": 1000}, "wrong": {"lost": 0}, "qlib": {"bins": {"wrong": 0}}}
    return report | {"audited": {"changed": 1}, "deaths": [], "unhealed": {}, "dead_letters": 2} | changes


def test_counts_of_all_runs_are_added_up():
    total = add_up([a_report(1), a_report(2)])

    assert total.seeds == [1, 2]
    assert total.compared["candles"] == 2000
    assert total.happened["drop"] == total.injected["drop"] == 6
    assert total.audited["changed"] == 2
    assert total.others["dead letters"] == 4
    assert total.lacking(faults=len(HOST + WIRE) * 6, candles=2000, each=6) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"passed": False}, "failed: make chaos SEED=2"),
        ({"wrong": {"lost": 1}}, "lost: 1"),
        ({"qlib": {"bins": {"shifted": 4}}}, "Qlib by bins: shifted: 4"),
        ({"compared": {"candles": 7}}, "1,007 candles of 1,500"),
        ({"happened": {"drop": 300}}, "less than 4 times: " + ", ".join(f"{k} 3" for k in HOST + WIRE if k != "drop")),
    ],
)
def test_what_one_run_leaves_unproved_is_said(changes: dict[str, Any], sentence: str):
    assert add_up([a_report(1), a_report(2, **changes)]).lacking(faults=200, candles=1500, each=4) == [sentence]


def test_only_faults_that_took_place_count():
    total = add_up([a_report(1, happened={"drop": 1})])

    assert total.lacking(faults=2, candles=0, each=0) == ["1 faults of 2"]


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"seed": 1})])
def test_a_file_that_is_no_report_is_named(tmp_path: Path, content: str):
    path = tmp_path / "some.json"
    path.write_text(content)

    with pytest.raises(BadReportError, match=r"some\.json"):
        read_reports([path])
