"""The probes of the doctor against this machine."""

import os
import socket
import sys
from pathlib import Path

import pytest

from cli.doctor.probes import (
    alert_problem,
    disk_spaces,
    folder_problem,
    installed_here,
    installed_in,
    locked_in,
    port_holder,
)
from cli.place import ROOT


def test_a_port_that_somebody_listens_on_names_the_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        holder = port_holder("127.0.0.1", number, is_our_api=False)
    freed = port_holder("127.0.0.1", number, is_our_api=False)

    assert holder is not None
    assert (holder.pid, holder.directory) == (os.getpid(), str(Path.cwd()))
    assert "python" in holder.command or "pytest" in holder.command
    assert freed is None


def test_a_folder_that_is_not_there_yet_is_judged_by_where_it_would_be_made(tmp_path):
    (tmp_path / "file").touch()

    assert folder_problem(tmp_path / "a" / "b") is None
    assert folder_problem(tmp_path / "file" / "b") == f"{tmp_path / 'file'} is no folder"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_that_takes_no_file_says_why():
    assert folder_problem(Path("/proc/self")) is not None


def test_a_disk_is_named_once_with_all_folders_on_it(tmp_path):
    (disk,) = disk_spaces({"DATA_DIR": tmp_path / "not there yet", "QLIB_DIR": tmp_path})

    assert disk.names == ["DATA_DIR", "QLIB_DIR"]
    assert 0 < disk.free <= disk.total


def test_an_unknown_address_of_alerts_is_named_by_its_number_and_not_shown():
    problem = alert_problem("json://localhost:1 nonsense://secret")

    assert problem is not None
    assert problem.startswith("ALERT_URLS: address 2 of 2")
    assert "secret" not in problem
    assert alert_problem("") is None


def test_packages_of_this_environment_are_what_another_process_sees():
    version, packages = installed_in(Path(sys.executable))

    assert version.startswith("3.13.")
    assert packages == installed_here()
    assert packages["cryptofeed"] in locked_in(ROOT / "uv.lock")["cryptofeed"]


def test_an_environment_that_does_not_run_is_an_error():
    with pytest.raises(OSError, match="does not run"):
        installed_in(Path("/bin/false"))
