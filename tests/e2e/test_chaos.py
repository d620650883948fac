"""Everything goes wrong at once, small: processes, Redis, disk, sockets and answers, and not a minute is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.proof
@pytest.mark.invariant(7)
@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_wrong_after_a_minute_of_chaos(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "proofs.chaos", "--seed", "4", "--minutes", "0.5", "--rate", "1.5"),
            *("--symbols", "12", "--members", "8", "--speed", "300", "--backfill-days", "2"),
            # What the exchange corrects later is audited more than a minute later; the audit has tests of its own.
            *("--without", "corrected"),
            *("--report", report, "--folder", tmp_path / "run"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    outcome = json.loads(report.read_text())
    assert outcome["compared"]["candles"] > 8 * 2 * 1440
    assert sum(outcome["happened"].values()) > 20
    assert {kind.split()[0] for kind in outcome["happened"]} > {"kill", "stop", "redis"}
    assert not any(outcome["wrong"].values())
