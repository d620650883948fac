"""The two ways in which a replay runs the whole system: processes under supervisord, or containers.

Both look at it from outside only: the simulator's clock and truth, what the services say of themselves, the data that
they leave.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.error import URLError

import redis

from cli.stack import ROOT, Stack, StackError, free_port, open_here
from shared.datasets.ledger import CANDLES
from shared.ledger.day import from_bus

SERVICES_THAT_WRITE = ("converter", "ranker", "collector", "writer")
"""In the order in which they are stopped: the writer last, so that it stores what was on its way."""
_FRESH_SECONDS = 7.0
"""A heartbeat is written every five seconds; an older one is from before a restart."""


class System(AbstractContextManager["System"], Protocol):
    """A running system on a simulated exchange."""

    data_dir: Path
    qlib_dir: Path

    def ask_simulator(self, path: str) -> Any:
        """Return what the simulator answers to a GET."""

    def missing(self) -> int | None:
        """Return how many minutes the collector still has to fetch; None while it does not say."""

    def unfinished(self) -> int:
        """Return how many entries the writer has not stored yet."""

    def stored(self) -> int:
        """Return how many candles are stored, as a measure of progress."""

    def converted_until(self) -> datetime | None:
        """Return up to when Qlib has the data."""

    def dead_letters(self) -> int:
        """Return how much input was set aside."""

    def kill(self, service: str) -> int:
        """Send SIGKILL to a service; it is started again. Raises `StackError` where it does not run."""

    def finish(self) -> None:
        """Stop the services in order, convert what came after the last midnight, leave the data in the folders."""


class LocalSystem(System):
    """Processes on this machine, with an embedded Valkey."""

    def __init__(self, folder: Path, settings: Mapping[str, str], simulator: Sequence[str]) -> None:
        self.stack = Stack(folder, settings, simulator=simulator)
        self.data_dir, self.qlib_dir = self.stack.data_dir, self.stack.qlib_dir
        self._redis: Any = redis.Redis.from_url(self.stack.redis_url, decode_responses=True)

    def __enter__(self) -> Self:
        self.stack.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()
        self.stack.stop()

    def ask_simulator(self, path: str) -> Any:
        """Ask over loopback."""
        return self.stack.ask_simulator(path)

    def missing(self) -> int | None:
        """Read the collector's heartbeat."""
        missing = self._beat("collector").get("details", {}).get("missing_minutes")
        return None if missing is None else int(missing)

    def unwell(self, services: Sequence[str]) -> dict[str, str]:
        """Return what each of the services complains of, or that it has no heartbeat; nothing if all are well."""
        found = {}
        for service in services:
            beat = self._beat(service)
            if beat.get("state") != "ok":
                found[service] = str(beat.get("reason", "says nothing"))
        return found

    def subscribed(self) -> int:
        """Return how many symbols are subscribed to on every channel."""
        return subscribed(self.stack)

    def _beat(self, service: str) -> dict[str, Any]:
        """Return what a service said last, nothing if that is long ago."""
        text = self._redis.get(f"heartbeat:{service}")
        beat: dict[str, Any] = json.loads(text) if text else {}
        fresh = beat and (datetime.now(UTC) - datetime.fromisoformat(beat["beaten"])).total_seconds() < _FRESH_SECONDS
        return beat if fresh else {}

    def unfinished(self) -> int:
        """Sum up what is pending and lagging."""
        groups = [group for stream in ("candles", "funding", "universe") for group in self._groups(stream)]
        return sum(int(group["pending"]) + int(group["lag"] or 0) for group in groups if group["name"] == "writer")

    def _groups(self, stream: str) -> list[dict[str, Any]]:
        return list(self._redis.xinfo_groups(stream)) if self._redis.exists(stream) else []

    def stored(self) -> int:
        """Sum up the minutes that are on disk, as the writer's ledger counts them."""
        return sum(
            known.stored.bit_count()
            for key in self._redis.scan_iter("ledger:????-??-??")
            for known in from_bus(self._redis.hgetall(key)).get(CANDLES, {}).values()
        )

    def converted_until(self) -> datetime | None:
        """Read the watermark."""
        text = self._redis.hget("watermarks", "converted_until")
        return datetime.fromisoformat(text) if text else None

    def dead_letters(self) -> int:
        """Count the stream."""
        return int(self._redis.xlen("dead-letter"))

    def kill(self, service: str) -> int:
        """Kill the process; supervisord starts it again."""
        return self.stack.kill(service)

    def finish(self) -> None:
        """Stop and convert, with the stack's own environment."""
        for service in SERVICES_THAT_WRITE:
            if not self.stack.ended(service):
                self.stack.stop_program(service)
        command = [sys.executable, "-m", "services.converter", "--once"]
        subprocess.run(command, cwd=self.stack.directory, env=self.stack.env, check=True)  # noqa: S603 - ours


def subscribed(stack: Stack) -> int:
    """Return how many symbols are subscribed to on every channel, as the simulator counts them."""
    channels = stack.ask_simulator("/sim/stats")["subscriptions_now"]
    return min(int(channels.get(channel, 0)) for channel in ("candle1m", "funding-rate"))


class ComposeSystem(System):
    """`docker compose --profile sim up`, under a project name of its own; its volumes are copied out and removed."""

    def __init__(self, folder: Path, settings: Mapping[str, str], data: Path, simulator: Sequence[str]) -> None:
        self.data_dir, self.qlib_dir = folder / "okx_data", folder / "qlib_data"
        self._folder = folder
        self._port = free_port()
        self._compose = [*_compose_command(), "--project-name", "qlib-crypto-replay", "--profile", "sim"]
        own = {"SIM_DATA_DIR": str(data), "SIM_ARGS": " ".join(simulator), "API_PORT": str(self._port)}
        self._env = {**os.environ, **settings, **own}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run("down", "--volumes", "--remove-orphans")
        self._run("up", "--build", "--detach")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            (self._folder / "compose.log").write_text(self._run("logs", "--no-color"))
        self._run("down", "--volumes", "--remove-orphans")

    def ask_simulator(self, path: str) -> Any:
        """Ask from inside of its container: no port of it is published."""
        code = (
            "import ssl, urllib.request as u; t = ssl.create_default_context(cafile='/sim/ca.pem');"
            f"print(u.urlopen('https://localhost:8911{path}', context=t, timeout=10).read().decode())"
        )
        return json.loads(self._run("exec", "-T", "simulator", "python", "-c", code))

    def _ask_api(self, path: str) -> Any:
        for _ in range(60):
            try:
                with open_here(f"http://127.0.0.1:{self._port}{path}", 10) as answer:
                    return json.load(answer)
            except (URLError, OSError):
                time.sleep(1)
        raise StackError(f"the api does not answer {path}")

    def missing(self) -> int | None:
        """Read the collector's row of the status."""
        row = self._service("collector")
        missing = (row.get("details") or {}).get("missing_minutes")
        return None if missing is None else int(missing)

    def _service(self, name: str) -> dict[str, Any]:
        return next((dict(row) for row in self._ask_api("/status")["services"] if row["service"] == name), {})

    def unfinished(self) -> int:
        """Sum up the writer's groups."""
        return sum(
            int(group["pending"]) + int(group["lag"])
            for group in self._ask_api("/lag")["groups"]
            if group["group"] == "writer"
        )

    def stored(self) -> int:
        """Return the files of candles: the api does not count rows."""
        raw = {row["dataset"]: row for row in self._ask_api("/datasets")["raw"]}
        return int(raw.get("kline_1m", {}).get("bytes", 0))

    def converted_until(self) -> datetime | None:
        """Read the watermark."""
        text = self._ask_api("/datasets")["watermarks"].get("converted_until")
        return datetime.fromisoformat(text) if text else None

    def dead_letters(self) -> int:
        """Ask for the count."""
        return int(self._ask_api("/dead-letters?count=1")["total"])

    def kill(self, service: str) -> int:
        """Refuse: the proof by killing is done on processes."""
        raise StackError(f"{service} runs in a container")

    def finish(self) -> None:
        """Stop, convert in a container of its own, and copy the volumes out."""
        for service in SERVICES_THAT_WRITE:
            self._run("stop", service)
        self._run("run", "--rm", "-T", "converter", "--once")
        container = self._run("ps", "--quiet", "api").split()[0]
        for source, target in (("sim_okx_data", self.data_dir), ("sim_qlib/qlib_data", self.qlib_dir)):
            shutil.rmtree(target, ignore_errors=True)
            copy = ["docker", "cp", "--follow-link", f"{container}:/data/{source}", str(target)]
            subprocess.run(copy, check=True, capture_output=True)  # noqa: S603 - our own containers

    def _run(self, *arguments: str) -> str:
        answer = subprocess.run(  # noqa: S603 - our own project
            [*self._compose, *arguments], cwd=ROOT, env=self._env, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise StackError(f"{' '.join(arguments[:3])} failed:\n{answer.stderr[-3000:]}")
        return answer.stdout


def _compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)  # noqa: S607
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    raise StackError("neither `docker compose` nor `docker-compose` is there")
