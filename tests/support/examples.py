"""Examples in the documents that are run by tests, and the made-up data that they are run on.

A fenced block is run if the line before it is `<!-- run: services -->` or `<!-- run: research -->`: the environment
that it is for. It runs in a folder that has `okx_data` and `qlib_data`, as a user's has.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from proofs.rig import synthetic_year
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from tests.support.builders import a_candle

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
SECONDS = 180

#: The day that the examples read is in the middle.
MARKET = synthetic_year.Market(symbols=6, days=5, seed=1, first=date(2026, 2, 27))
SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "XRP_USDT", "DOGE_USDT", "ADA_USDT")

#: Runs what comes in as a shell of Python does, and ends at an expression whose answer holds nothing.
_AS_TYPED = """
import ast, sys
names = {}
for node in ast.parse(sys.stdin.read()).body:
    if isinstance(node, ast.Expr):
        answer = eval(compile(ast.Expression(node.value), "example", "eval"), names)
        if hasattr(answer, "__len__") and not len(answer):
            sys.exit(f"the answer to line {node.lineno} is empty: {ast.unparse(node)}")
    else:
        exec(compile(ast.Module([node], []), "example", "exec"), names)
"""

type Environment = Literal["services", "research"]

_MARKED = re.compile(r"^<!-- run: (\w+) -->\n```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of a document, and where it stands."""

    document: Path
    line: int
    environment: str
    language: str
    code: str

    @property
    def where(self) -> str:
        """Return the place that a failing test names."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def examples_in(document: Path) -> list[Example]:
    """Return the blocks of a document that are marked."""
    text = document.read_text(encoding="utf-8")
    return [
        Example(document, text.count("\n", 0, found.start()) + 1, *found.groups()) for found in _MARKED.finditer(text)
    ]


def examples_of(environment: Environment) -> list[Example]:
    """Return the blocks of all documents that are for an environment."""
    return [one for document in DOCUMENTS for one in examples_in(document) if one.environment == environment]


def make_data(folder: Path, interpreter: str) -> None:
    """Make a raw folder of the made-up market, and convert it with an interpreter that has the converter."""
    named, synthetic_year.symbol_of = synthetic_year.symbol_of, lambda number: SYMBOLS[number]
    try:
        for _ in synthetic_year.make(MARKET, folder / "okx_data"):
            pass
    finally:
        synthetic_year.symbol_of = named
    RawStore(folder / "okx_data").append({Candle: [a_candle(SYMBOLS[0], datetime(2026, 3, 3, 23, 59, tzinfo=UTC))]})
    done = run_in(folder, [interpreter, "-m", "services.converter", "--once"], interpreter)
    assert done.returncode == 0, done.stderr


def run(example: Example, folder: Path, interpreter: str) -> subprocess.CompletedProcess[str]:
    """Run an example in a folder that has data. An answer that holds nothing is a failure: 1 is the code then."""
    if example.language == "python":
        return run_in(folder, [interpreter, "-c", _AS_TYPED], interpreter, typed=example.code)
    assert example.language == "sh", f"{example.where}: only python and sh can be run"
    return run_in(folder, ["bash", "-euo", "pipefail", "-c", example.code], interpreter)


def run_in(
    folder: Path, command: list[str], interpreter: str, *, typed: str = "", root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder with the code of the repository, or of a copy of it, and with no setting of ours."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "TMPDIR"}}
    environment = kept | {
        "PATH": f"{Path(interpreter).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'research'}",
        "REDIS_URL": "redis://127.0.0.1:9/0",  # none answers: no example needs it
        "DATA_DIR": str(folder / "okx_data"),  # `qlib-crypto` takes those of its checkout, wherever it is called
        "QLIB_DIR": str(folder / "qlib_data"),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, input=typed, capture_output=True, text=True, timeout=SECONDS, check=False
    )
