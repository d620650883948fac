"""The compose project as a user starts it, on the simulated exchange: from `up` to the bins in the volume."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 1, 23, 40, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
SETTINGS = {
    "SIM_ARGS": f"--symbols 6 --seed 3 --speed 60 --start {START.isoformat()}",
    "TOP_N": "4",
    "BACKFILL_DAYS": "1",
    "FLUSH_SECONDS": "2",
    "COMPACT_EVERY": "0.1",
}


def _compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            answer = subprocess.run([*command, "version"], capture_output=True, check=False)
            if answer.returncode == 0:
                return command
    return []


class Project:
    """A compose project of its own name, on a free port."""

    def __init__(self) -> None:
        self.name = f"qlibcrypto{uuid.uuid4().hex[:8]}"
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self._environment = {**os.environ, **SETTINGS, "API_PORT": str(self.port), "SIM_DATA_DIR": "sim_recording"}

    def compose(self, *arguments: str) -> str:
        command = [*_compose_command(), "--project-name", self.name, "--profile", "sim", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def command(self, service: str, *arguments: str) -> tuple[int, str]:
        """Type `qlib-crypto` in a container; return its exit code and what it printed."""
        command = [*_compose_command(), "--project-name", self.name, "--profile", "sim", "exec", "-T", service]
        done = subprocess.run(
            [*command, "qlib-crypto", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def api(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.loads(answer.read())

    def simulator(self, path: str) -> Any:
        """Ask from inside: its port is not published."""
        code = (
            "import ssl, sys, urllib.request as u; trust = ssl.create_default_context(cafile='/sim/ca.pem')\n"
            "print(u.urlopen('https://localhost:8911' + sys.argv[1], context=trust).read().decode())"
        )
        return json.loads(self.compose("exec", "-T", "simulator", "python", "-c", code, path))

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker knows of each container, by service."""
        inspected = json.loads(subprocess.check_output(["docker", "inspect", *self.compose("ps", "-q").split()]))
        return {row["Config"]["Labels"]["com.docker.compose.service"]: row for row in inspected}


@pytest.fixture(scope="module")
def project(docker: None) -> Iterator[Project]:
    """Bring the project up, and take it down with its volumes afterwards."""
    if not _compose_command():
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    project = Project()
    try:
        project.compose("build")
        project.compose("up", "-d")
        yield project
        print(project.compose("logs", "--no-color", "--tail", "40"))  # noqa: T201 - pytest shows it where a test fails
    finally:
        project.compose("down", "--volumes", "--timeout", "10")


def _until(holds: Callable[[], bool], seconds: float, describe: Callable[[], object]) -> None:
    """Wait until something holds; `describe` says what does instead."""
    deadline = time.monotonic() + seconds
    while not _holds(holds):
        assert time.monotonic() < deadline, describe()
        time.sleep(0.5)


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # the api is not up yet
        return False


def _bars(provider: Path, symbol: str, field: str) -> dict[datetime, np.float32]:
    """Read a bin with nothing but the format: float32, of which the first says where in the calendar it begins."""
    lines = (provider / "calendars" / "1min.txt").read_text().split("\n")
    calendar = [datetime.fromisoformat(line).replace(tzinfo=UTC) for line in lines if line]
    values = np.fromfile(provider / "features" / symbol.lower() / f"{field}.1min.bin", "<f4")
    return dict(zip(calendar[int(values[0]) :], values[1:], strict=False))


@pytest.mark.docker
@pytest.mark.proof
@pytest.mark.timeout(600)  # the first build downloads everything
def test_compose_project_carries_the_simulated_market_to_qlib(project: Project, tmp_path: Path):
    _until(lambda: project.api("/status")["verdict"] == "ok", 60, lambda: project.api("/status")["reason"])
    _until(lambda: _written_until(project) > START + timedelta(minutes=5), 60, lambda: project.api("/lag"))
    _until(lambda: _converted_until(project) >= MIDNIGHT, 90, lambda: project.api("/status"))
    _until(lambda: _unhealthy(project) == {}, 60, lambda: _unhealthy(project))
    project.compose("exec", "-T", "converter", "python", "-m", "services.converter", "--once")
    container = project.containers()["converter"]["Id"]
    subprocess.run(["docker", "cp", "-L", f"{container}:/data/sim_qlib/qlib_data", str(tmp_path / "qlib")], check=True)

    members = [row["symbol"] for row in project.api("/lag")["symbols"]]
    assert len(members) == 4
    for symbol in members:
        stored = _bars(tmp_path / "qlib", symbol, "close")
        begin, end = min(stored), max(stored) + timedelta(minutes=1)
        closed = project.simulator(f"/sim/truth/candles?instId={_instrument(symbol)}&{_window(begin, end)}")
        truth = {datetime.fromtimestamp(int(row[0]) / 1000, UTC): np.float32(row[4]) for row in closed}
        assert begin == START.replace(hour=0, minute=0) - timedelta(days=1)
        assert end > MIDNIGHT
        assert stored == truth


@pytest.mark.docker
@pytest.mark.proof
def test_containers_have_no_more_rights_than_they_need(project: Project):
    for service, container in project.containers().items():
        host = container["HostConfig"]

        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert not any((container["NetworkSettings"]["Ports"] or {}).values()) or service == "api"
    published = project.containers()["api"]["NetworkSettings"]["Ports"]["8000/tcp"]
    assert [address["HostIp"] for address in published] == ["127.0.0.1"]
    assert project.containers()["writer"]["Config"]["User"] == "qlib"


@pytest.mark.docker
@pytest.mark.proof
def test_simulated_candles_stay_out_of_the_real_volume(project: Project):
    stored = project.compose("exec", "-T", "writer", "ls", "/data/sim_okx_data")
    real = project.compose("exec", "-T", "writer", "ls", "-A", "/data/okx_data")

    assert "kline_1m" in stored
    assert real == ""


@pytest.mark.docker
@pytest.mark.proof
def test_a_container_runs_the_commands_that_its_image_has(project: Project):
    for service in ("api", "writer", "ranker"):
        code, said = project.command(service, "status")
        assert (code, said.splitlines()[-1]) == (0, "ok: everything works"), said
    for service, *arguments in (
        ("api", "gaps"),
        ("api", "alerts", "list"),
        ("writer", "audit", "--sample", "1"),
        ("writer", "dead-letters", "list"),
        ("converter", "dataset", "verify"),
    ):
        code, said = project.command(service, *arguments)
        assert code == 0, said
    for service, name in (("ranker", "dataset"), ("api", "run"), ("converter", "docs env-example")):
        code, said = project.command(service, *name.split())
        assert code == 3, said
        assert said.startswith(
            f"qlib-crypto {name} is not part of the image of the service {service}, it needs a check"
        )


@pytest.mark.docker
@pytest.mark.proof
@pytest.mark.parametrize("service", ["ranker", "collector", "writer", "converter", "api"])
def test_doctor_finds_nothing_to_do_in_a_container(project: Project, service: str):
    _, said = project.command(service, "doctor", "--json")
    found = [one for one in json.loads(said) if one["check"] != "disk"]  # how full it is, no test can say

    assert {one["state"] for one in found} <= {"ok", "note"}, said
    assert {"settings", "exchange", "clock", "redis", "system"} <= {one["check"] for one in found}


def _written_until(project: Project) -> datetime:
    mark = project.api("/datasets")["watermarks"].get("written_until")
    return datetime.fromisoformat(mark) if mark else datetime.min.replace(tzinfo=UTC)


def _converted_until(project: Project) -> datetime:
    mark = project.api("/datasets")["watermarks"].get("converted_until")
    return datetime.fromisoformat(mark) if mark else datetime.min.replace(tzinfo=UTC)


def _unhealthy(project: Project) -> dict[str, str]:
    states = {service: container["State"] for service, container in project.containers().items()}
    health = {service: state["Health"]["Status"] for service, state in states.items() if "Health" in state}
    return {service: status for service, status in health.items() if status != "healthy"}


def _instrument(symbol: str) -> str:
    return symbol.replace("_", "-") + "-SWAP"


def _window(begin: datetime, end: datetime) -> str:
    return f"begin={int(begin.timestamp() * 1000)}&end={int(end.timestamp() * 1000)}"
