"""Many files become durable by one call, where there is one that says so when it failed; else each by its own."""

import errno
import os
from pathlib import Path

import pytest

from shared.storage import durable
from shared.storage.durable import Durable

MANY = durable._FEW + 1


@pytest.fixture
def synced(monkeypatch):
    """Note what is synced, file by file."""
    found = []
    monkeypatch.setattr(durable, "fsync_path", lambda path: found.append(str(path)))
    return found


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}" for number in range(MANY)]
    for path in paths:
        path.touch()
    return [*map(str, paths)]


def opened(root):
    one = Durable(root)
    one.open()
    return one


def test_many_files_are_synced_by_one_call_to_the_file_system(tmp_path, files, synced, monkeypatch):
    calls = []
    monkeypatch.setattr(durable, "syncfs", lambda: calls.append)

    opened(tmp_path).sync(files)

    assert len(calls) == 1
    assert synced == []


def test_a_few_files_are_synced_each(tmp_path, files, synced, monkeypatch):
    monkeypatch.setattr(durable, "syncfs", lambda: pytest.fail)

    opened(tmp_path).sync(files[:3])

    assert sorted(synced) == sorted(files[:3])


@pytest.mark.parametrize("refuses", [True, False])
def test_where_there_is_no_such_call_each_file_is_synced(tmp_path, files, synced, monkeypatch, refuses):
    def not_here(_):
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(durable, "syncfs", lambda: not_here if refuses else None)

    opened(tmp_path).sync(files)

    assert sorted(synced) == sorted(files)


def test_without_having_been_opened_before_the_writing_each_file_is_synced(tmp_path, files, synced):
    """An error that happened in between would not be reported."""
    Durable(tmp_path).sync(files)

    assert sorted(synced) == sorted(files)


def test_files_of_another_file_system_are_synced_each(tmp_path, files, synced, monkeypatch):
    monkeypatch.setattr(durable, "syncfs", lambda: pytest.fail)
    one = opened(tmp_path)
    elsewhere = Path("/proc").stat().st_dev
    assert elsewhere != tmp_path.stat().st_dev

    one.sync([*files, "/proc/version"])

    assert sorted(synced) == sorted([*files, "/proc/version"])


def test_a_page_that_could_not_be_written_is_an_error(tmp_path, files, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "disk is gone")

    monkeypatch.setattr(durable, "syncfs", lambda: broken)

    with pytest.raises(OSError, match="disk is gone"):
        opened(tmp_path).sync(files)


@pytest.mark.skipif(durable.syncfs() is None, reason="only Linux 5.8 and later has a call that reports errors")
def test_the_call_of_this_system_syncs_and_says_what_is_no_descriptor(tmp_path):
    call = durable.syncfs()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    call(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        call(-1)


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.44-fc", (6, 18)), ("5.4", (5, 4)), ("custom", (0, 0)), ("5.x", (0, 0))]
)
def test_a_kernel_is_known_by_its_numbers(monkeypatch, release, version):
    monkeypatch.setattr(durable.platform, "release", lambda: release)

    assert durable._linux() == version
