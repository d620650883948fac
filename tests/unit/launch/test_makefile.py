"""The Makefile hands names to commands as they are, whatever is in them."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[3] / "Makefile"


def commands(folder: Path, *arguments: str) -> list[str]:
    """Return the words that the shell would see in a folder."""
    done = subprocess.run(
        ["make", "--dry-run", "--file", str(MAKEFILE), "UV=true", *arguments],
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


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_folder_may_have_any_name(folder):
    found = commands(folder, "workflow")

    assert f"QLIB_DIR={folder}/qlib_data" in found
    assert f"EXPERIMENTS_DIR={folder}/experiments" in found


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_recording_may_have_any_name(folder):
    found = commands(folder, "replay", "DATA=my 'rec' $$HOME")

    assert found[found.index("--data") + 1] == "my 'rec' $HOME"
