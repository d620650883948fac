"""A stack without Docker: everything up, everything restarted, nothing left behind."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.stack import ROOT, Stack, StackError, clear
from tests.support.patience import Deadline

_MARKET = ["--symbols", "3", "--seed", "1", "--start", "2026-03-01T12:00:00"]
_SETTINGS = {"TOP_N": "2", "BACKFILL_DAYS": "0", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1"}


def _until[T](question: Callable[[], T], seconds: float = 30) -> T:
    deadline = Deadline(seconds)
    while not (answer := question()):
        assert not deadline.has_passed, "waited in vain"
        time.sleep(0.1)
    return answer


def _alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Longer than a Unix socket's path may be, and with what confuses a configuration file."""
    return tmp_path / "a folder; 100 % full" / ("x" * 100)


def test_stack_comes_up_restarts_what_dies_and_leaves_nothing(folder: Path):
    with Stack(folder, _SETTINGS, simulator=_MARKET) as stack:
        _until(lambda: all(program.pid for program in stack.status().values()))
        killed = stack.kill("writer")
        _until(lambda: stack.status()["writer"].pid not in {0, killed})
        _until(lambda: _answers(stack))
        pids = [program.pid for program in stack.status().values()]

    assert all(pids)
    assert not [pid for pid in pids if _alive(pid)]
    assert stack.status() == {}


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.ask_api("/universe")["members"])
    except OSError:
        return False


def test_killed_launcher_takes_everything_along(folder: Path):
    """`kill -9` runs no clean-up of ours: the kernel does it."""
    code = (
        "import sys, time; from pathlib import Path; from cli.stack import Stack\n"
        f"with Stack(Path(sys.argv[1]), {_SETTINGS!r}, simulator={_MARKET!r}) as stack:\n"
        "    print(*(program.pid for program in stack.status().values()), flush=True); time.sleep(600)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
    assert launcher.stdout is not None
    with launcher, launcher.stdout as output:
        pids = [int(pid) for pid in output.readline().split()]
        launcher.kill()

    assert len([pid for pid in pids if pid]) == 7
    _until(lambda: not any(_alive(pid) for pid in pids if pid))


def test_folder_of_a_running_stack_is_not_touched(tmp_path: Path):
    stack = Stack(tmp_path, simulator=_MARKET)
    stack._lock.take()
    try:
        with pytest.raises(StackError, match="in use"):
            Stack(tmp_path, simulator=_MARKET).start()
        with pytest.raises(StackError, match="in use"):
            clear(tmp_path)
    finally:
        stack.stop()


@pytest.mark.proof
def test_failed_start_says_what_the_program_logged(tmp_path: Path):
    with pytest.raises(StackError, match="give either --data FOLDER"):
        Stack(tmp_path, simulator=[]).start()


def test_simulation_takes_no_setting_from_its_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a user has set for the exchange must not reach a simulated one, and the other way round."""
    monkeypatch.setenv("TOP_N", "7")

    simulated = Stack(tmp_path, simulator=_MARKET)
    real = Stack(tmp_path)

    assert "TOP_N" not in simulated.env
    assert simulated.directory == tmp_path
    assert real.env["TOP_N"] == "7"
    assert real.directory == ROOT
    assert "OKX_CA_FILE" not in real.settings


def test_given_redis_is_used_and_none_is_started(tmp_path: Path):
    stack = Stack(tmp_path, {"REDIS_URL": "redis://somewhere:6379/0"})

    assert "valkey" not in stack.programs
    assert stack.env["REDIS_URL"] == "redis://somewhere:6379/0"
