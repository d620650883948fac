"""The worked examples of CONTRIBUTING.md: a test does what they say, in a copy of the repository."""

import re
import shutil
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from proofs.judges.bins import bin_path
from proofs.rig.synthetic_year import Market, make
from tests.support.examples import ROOT, run_in

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("cli", "docs", "proofs", "services", "shared", "tests", "pyproject.toml")

_STEP = re.compile(r"^<!-- (field|frequency): (\S+) -->\n```(diff|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One step of an example: an edit of a file, or commands."""

    target: str
    """The file to edit; `run` for commands."""
    text: str

    def apply(self, copy: Path) -> None:
        """Make the edit. The lines that it names must be in the file, once."""
        lines = self.text.splitlines()
        before = "\n".join(line[1:] for line in lines if line[0] != "+")
        after = "\n".join(line[1:] for line in lines if line[0] != "-")
        path = copy / self.target
        old = path.read_text(encoding="utf-8")
        assert old.count(f"{before}\n") == 1, f"CONTRIBUTING.md names lines that {self.target} does not have:\n{before}"
        path.write_text(old.replace(f"{before}\n", f"{after}\n"), encoding="utf-8")


def steps_of(example: str) -> tuple[list[Step], str]:
    """Return the edits of an example, and its commands."""
    found = [Step(target, text) for name, target, _, text in _STEP.findall(TEXT) if name == example]
    (commands,) = (step.text for step in found if step.target == "run")
    return [step for step in found if step.target != "run"], commands


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the repository, with a small raw folder in it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    for _ in make(Market(symbols=3, days=2, seed=1, first=date(2026, 3, 1)), copy / "okx_data"):
        pass
    return copy


@pytest.mark.proof
@pytest.mark.parametrize(
    ("example", "field", "frequency"), [("field", "reach", "day"), ("frequency", "open", "120min")]
)
def test_the_steps_lead_to_bins_that_the_judges_accept(example, field, frequency, copy):
    edits, commands = steps_of(example)
    for step in edits:
        step.apply(copy)

    done = run_in(copy, ["bash", "-euo", "pipefail", "-c", commands], sys.executable, root=copy)
    converted = run_in(copy, [sys.executable, "-m", "services.converter", "--once"], sys.executable, root=copy)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert converted.returncode == 0, converted.stderr
    assert bin_path(copy / "qlib_data", "S000_USDT", field, frequency).stat().st_size > 4
    assert frequency in (copy / "docs" / "fields.md").read_text()


@pytest.mark.proof
def test_a_field_without_a_formula_of_the_judge_is_named(copy):
    (row, *_), _ = steps_of("field")
    row.apply(copy)

    command = [sys.executable, "-m", "proofs.judges", "--data", "okx_data", "--cuts", "0"]
    done = run_in(copy, command, sys.executable, root=copy)

    assert done.returncode == 1
    assert "reach" in done.stdout + done.stderr


def test_every_folder_of_the_map_is_there_and_every_service_is_on_it():
    (table,) = re.findall(r"^## The map\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^\| `([^`]+)/` \|", table, re.MULTILINE)

    assert [name for name in named if not (ROOT / name).is_dir()] == []
    services = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    assert services <= {Path(name).parts[1] for name in named if name.startswith("services/")}
