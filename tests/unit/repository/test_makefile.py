"""The Makefile hands names to commands as they are, whatever is in them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[3] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def commands(folder: Path, *arguments: str) -> list[str]:
    """Return the words that the shell would see in a folder."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--file", str(MAKEFILE), "UV=true", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return [word for line in done.stdout.splitlines() for word in shlex.split(line)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'it\'s a $HOME "x"'
    for name in (".venv", ".venv-research"):
        (folder / name).mkdir(parents=True)
    for name in ("uv.lock", ".python-version", ".venv/.synced", ".venv-research/.synced"):
        (folder / name).touch()
    return folder


def test_a_folder_may_have_any_name(folder):
    found = commands(folder, "workflow")

    assert f"QLIB_DIR={folder}/qlib_data" in found
    assert f"EXPERIMENTS_DIR={folder}/experiments" in found


def test_a_recording_may_have_any_name(folder):
    found = commands(folder, "replay", "DATA=my 'rec' $$HOME")

    assert found[found.index("--data") + 1] == "my 'rec' $HOME"


@pytest.mark.parametrize("market", ["nope", "empty", "it's a $HOME", None])
def test_a_market_that_is_not_there_is_said_in_one_sentence_before_anything_is_loaded(folder, market):
    instruments = folder / "qlib_data" / "instruments"
    instruments.mkdir(parents=True)
    (folder / "qlib_data" / "calendars").mkdir()
    for name, text in {"all": "BTC_USDT", "usdt": "BTC_USDT", "empty": ""}.items():
        (instruments / f"{name}.txt").write_text(text)

    said = run_make(folder, "workflow", *([] if market is None else [f"MARKET={market.replace('$', '$$')}"]))

    assert said.startswith(f"MARKET={market or 'top50'}: QLIB_DIR=qlib_data has no such market")
    assert "it has: all usdt\n" in said
    assert "Traceback" not in said


def test_a_market_that_is_there_is_found_whatever_its_case(folder):
    (folder / "qlib_data" / "instruments").mkdir(parents=True)
    (folder / "qlib_data" / "calendars").mkdir()
    (folder / "qlib_data" / "instruments" / "usdt.txt").write_text("BTC_USDT")

    assert "no such market" not in run_make(folder, "workflow", "MARKET=USDT")


def run_make(folder: Path, *arguments: str) -> str:
    """Return what a target says that cannot come to its end: the environments are empty."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--file", str(MAKEFILE), "UV=true", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("run", "run"),
        ("demo", "demo"),
        ("audit", "audit"),
        ("fields", "docs fields > docs/fields.md"),
        ("env-example", "docs env-example > .env.example"),
    ],
)
def test_a_target_is_the_command_of_that_name(folder, target, command):
    found = commands(folder, target)

    expected = [".venv/bin/python", "-m", "cli", *command.split()]
    assert found[-len(expected) :] == expected


MARKED = """
import pytest

def test_plain(): pass

@pytest.mark.proof
def test_proof(): pass

@pytest.mark.proof
@pytest.mark.sample
def test_sample(): pass
"""


@pytest.mark.parametrize(
    ("target", "expected"), [("test", {"test_plain", "test_sample"}), ("proof", {"test_proof", "test_sample"})]
)
def test_what_the_tests_leave_out_is_in_the_proofs(folder, tmp_path, target, expected):
    words = commands(folder, target)
    expressions = {words[place + 1] for place, word in enumerate(words) if word == "-m"} - {"pytest"}
    (expression,) = expressions  # the same in both environments
    (tmp_path / "test_marked.py").write_text(MARKED)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", expression, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"::(\w+)", done.stdout)) == expected


def test_a_benchmark_is_chosen_by_its_name(folder):
    found = commands(folder, "bench", "ONLY=frames ledger", "FULL=1", "QLIB_CHECKOUT=my qlib")

    assert found[found.index("bench") :] == ["bench", "frames", "ledger", "--full", "--qlib-checkout", "my qlib"]
    assert "--full" not in commands(folder, "bench", "FULL=0")
