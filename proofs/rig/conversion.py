"""Runs the converter as a user does, in a process of its own, and measures it. I/O."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESEARCH_PYTHON = ROOT / ".venv-research" / "bin" / "python"
"""The interpreter that has the real pyqlib."""
NO_REDIS = "redis://127.0.0.1:1/0"
"""Nothing listens there: a judge's conversion must not reach the bus of a running system."""


class ProcessFailedError(Exception):
    """A process ended with an error; the text is what it said last."""


@dataclass(frozen=True)
class Cost:
    """What a process took, its own children included."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall_seconds + other.wall_seconds, self.cpu_seconds + other.cpu_seconds)


def measured(command: Sequence[str], settings: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; return what it took. Raises `ProcessFailedError`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, **(settings or {})}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if answer.returncode:
        said = (answer.stdout + answer.stderr)[-2000:]
        raise ProcessFailedError(f"{' '.join(command)} ended with {answer.returncode}:\n{said}")
    return Cost(ended - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def convert(data_dir: Path, qlib_dir: Path, settings: Mapping[str, str], *, rebuild: bool = False) -> Cost:
    """Convert a raw folder whole. Raises `ProcessFailedError`."""
    given = {
        "DATA_DIR": str(data_dir.resolve()),
        "QLIB_DIR": str(qlib_dir.absolute()),
        "REDIS_URL": NO_REDIS,
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "services.converter", "--rebuild" if rebuild else "--once"]
    return measured(command, {**given, **settings})
