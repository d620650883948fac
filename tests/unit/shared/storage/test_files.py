import os
import signal
import subprocess
import sys
import time

import pytest

from shared.storage.files import remove_stale_temporaries, replace_file, replace_text
from tests.support.builders import wait_for
from tests.support.simulator import ROOT

_WRITER = """
import sys
from pathlib import Path
from shared.storage.files import replace_text
path = Path(sys.argv[1])
for number in range(1_000_000):
    replace_text(path, f"{number}\\n" * 20_000)
"""


@pytest.mark.invariant(3)
@pytest.mark.invariant(8)
def test_a_reader_sees_the_old_file_or_the_new_one_never_half(tmp_path):
    """Invariants 3 and 8: whatever the instant, also that of kill -9."""
    path = tmp_path / "folder" / "file.txt"
    for pause in (0.0, 0.03, 0.07):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], cwd=ROOT)
        wait_for(path.exists)
        until = time.monotonic() + 0.3 + pause
        while time.monotonic() < until:
            lines = path.read_text().splitlines()
            assert len(lines) == 20_000
            assert len(set(lines)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()

        lines = path.read_text().splitlines()

        assert (len(lines), len(set(lines))) == (20_000, 1)

    remove_stale_temporaries(tmp_path)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.invariant(3)
def test_a_file_is_durable_before_it_has_its_name_and_the_name_before_anybody_goes_on(tmp_path, disk):
    """Invariant 3: also where the power goes."""
    path = tmp_path / "folder" / "file.txt"

    replace_text(path, "new")

    assert disk.synced(path) < disk.named(path) < disk.synced(path.parent)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    replace_text(path, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_is_hidden_from_whoever_looks_for_data(tmp_path):
    seen = []

    def note(temporary):
        temporary.write_text("new")
        seen.extend(os.listdir(tmp_path))  # noqa: PTH208 - the names are what matters

    replace_file(tmp_path / "1min.txt", note)

    assert len(seen) == 1
    assert seen[0].startswith(".")
    assert not seen[0].endswith(".txt")


def test_what_a_crash_left_behind_is_removed_and_data_is_not(tmp_path):
    replace_text(tmp_path / "a" / "data.parquet", "data")
    (tmp_path / "a" / ".data.parquet.123.tmp").write_text("half")

    assert remove_stale_temporaries(tmp_path) == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["data.parquet"]
