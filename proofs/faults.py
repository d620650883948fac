"""`python -m proofs.faults`: strike every fault, and write down in docs/faults.md how long each took to heal.

A row of the table is: fault | what is seen | what heals it | healed after | test. The first name in backticks is the
fault's; the last column names the tests that prove the row, by pytest's names. The tests append what they measure to
the file that FAULT_TIMES names; it replaces the fourth column, which else stays as it is.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.stack import ROOT
from shared.runtime.command import run

TABLE = ROOT / "docs" / "faults.md"
MEASURING = tuple(f"tests/e2e/{name}.py" for name in ("test_faults", "test_life_cycle", "test_lives", "test_degraded"))
"""Tests that note how long something took to heal."""
COLUMNS = 5
_HEALED = 3
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """One fault of the table."""

    line: int
    """Its place in the file, from 0."""
    cells: tuple[str, ...]

    @property
    def fault(self) -> str:
        """What the fault is called."""
        found = _QUOTED.search(self.cells[0])
        return found.group(1) if found else ""

    @property
    def tests(self) -> list[str]:
        """The tests that prove the row, as pytest calls them."""
        return _QUOTED.findall(self.cells[-1])


def rows_of(text: str) -> Iterator[Row]:
    """Yield the rows of every table of faults in a Markdown text. Pure."""
    is_inside = False
    for number, line in enumerate(text.splitlines()):
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|")) if line.startswith("|") else ()
        if len(cells) == COLUMNS and is_inside and not set(line) <= set("|- :"):
            yield Row(number, cells)
        is_inside = bool(cells) and (is_inside or cells[0] == "fault")


def with_times(text: str, seconds: Mapping[str, float]) -> str:
    """Return the text with what was measured in the fourth column of the rows that it is about. Pure.

    Args:
        text: The Markdown.
        seconds: Fault, or the name of a test where a fault has no measurement of its own, → seconds.

    """
    lines = text.splitlines()
    for row in rows_of(text):
        known = [seconds[name] for name in (row.fault, *row.tests) if name in seconds]
        if known:
            cells = [*row.cells]
            cells[_HEALED] = f"{known[0]:.1f} s"
            lines[row.line] = f"| {' | '.join(cells)} |"
    return "\n".join(lines) + "\n"


def read_times(path: Path) -> dict[str, float]:
    """Return what was measured: the longest of each."""
    found: dict[str, float] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        found[entry["what"]] = max(found.get(entry["what"], 0.0), entry["seconds"])
    return found


def main(
    times: Annotated[Path, typer.Option(help="Where the tests leave what they measure")] = Path(".run/fault_times"),
) -> None:
    """Run the tests that measure, and write the fourth column again."""
    console = Console()
    times = times.resolve()
    times.parent.mkdir(exist_ok=True)
    times.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", *MEASURING]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"FAULT_TIMES": str(times)}, check=False).returncode  # noqa: S603 - our own arguments
    measured = read_times(times)
    TABLE.write_text(with_times(TABLE.read_text(), measured))
    console.print(f"{len(measured)} times measured, {TABLE.relative_to(ROOT)} written")
    raise SystemExit(code)


if __name__ == "__main__":
    run(main)
