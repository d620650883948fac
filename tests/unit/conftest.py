"""What unit tests may ask for."""

import os
from pathlib import Path

import pytest


class Disk:
    """What was asked of the disk, in order: no power cut can be staged, but what survives one can be watched."""

    def __init__(self):
        self.calls = []

    def position(self, call, path):
        """Return when a file was last synced ("fsync") or got its name ("rename"): a file is known by its inode."""
        wanted = call, path.stat().st_ino
        assert wanted in self.calls, f"{path} never had its {call}"
        return max(number for number, made in enumerate(self.calls) if made == wanted)

    def synced(self, path):
        return self.position("fsync", path)

    def named(self, path):
        return self.position("rename", path)


@pytest.fixture
def disk(monkeypatch):
    """Watch the disk; everything is done for real."""
    disk, fsync, replace = Disk(), os.fsync, os.replace

    def watched_fsync(descriptor):
        fsync(descriptor)
        disk.calls.append(("fsync", os.fstat(descriptor).st_ino))

    def watched_replace(source, target, **options):
        replace(source, target, **options)
        disk.calls.append(("rename", Path(target).stat().st_ino))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return disk
