"""What does Qlib itself read? It lives in an environment of its own, on another Python. I/O."""

import subprocess
from pathlib import Path

from cli.place import ROOT, in_checkout
from cli.unavailable import NotAvailableError

PYTHON = ROOT / ".venv-research" / "bin" / "python"


def require_environment() -> None:
    """Raise `NotAvailableError` where Qlib's environment is missing."""
    if not PYTHON.exists():
        todo = "run `make env-research`" if in_checkout() else "it is part of a checkout"
        raise NotAvailableError(f"Qlib's own environment is missing: {todo}")


def print_dataframes(qlib_dir: Path, rows: int = 8) -> bool:
    """Print the newest rows that the real pyqlib reads; return whether it can. Raises `NotAvailableError`."""
    require_environment()
    command = [str(PYTHON), "-m", "cli.research.dataframe", "--qlib-dir", str(qlib_dir), "--rows", str(rows)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0  # noqa: S603 - our own arguments
