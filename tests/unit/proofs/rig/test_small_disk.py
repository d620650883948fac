"""A disk that can be filled, seen by one process and its children alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.stack import ROOT

_SCRIPT = """
import sys
from pathlib import Path
from proofs.rig.small_disk import NoSmallDiskError, SmallDisk
disk = SmallDisk(Path(sys.argv[1]), 64 << 20)
try:
    disk.mount()
except NoSmallDiskError as error:
    sys.exit(f"skip: {error}")
def writes():
    try:
        (disk.path / "x").write_bytes(bytes(100_000))
    except OSError as error:
        return error.strerror
    return "written"
disk.fill()
full = writes()
disk.free()
print(full, writes(), sep=",")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")
def test_a_small_disk_is_full_and_free_again_and_leaves_nothing_mounted(tmp_path: Path):
    answer = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if answer.stderr.startswith("skip: "):
        pytest.skip(answer.stderr.strip())

    assert answer.stdout == "No space left on device,written\n", answer.stderr
    assert not os.path.ismount(tmp_path / "disk")
