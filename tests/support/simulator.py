"""The simulator as tests use it: the real process, on free ports, stopped at the end."""

import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.patience import Deadline

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 30.0
STOP_SECONDS = 10.0


class SimulatorError(AssertionError):
    """The process did not start, or ended with something other than 0."""


class Simulator:
    """A running simulator; a context manager that stops it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ready: dict[str, Any],
        log: Path,
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        self.process = process
        self.rest_port: int = ready["rest_port"]
        self.ws_port: int = ready["ws_port"]
        self.rest_url = f"https://127.0.0.1:{self.rest_port}"
        self.ws_url = f"wss://127.0.0.1:{self.ws_port}/ws/v5"
        self.ca_file = Path(ready["ca_file"])
        self.start_ms: int = ready["start_ms"]
        self.end_ms: int | None = ready["end_ms"]
        self.speed: float = ready["speed"]
        self.ssl_context = ssl.create_default_context(cafile=str(self.ca_file))
        self._log = log
        self._folder = folder

    @classmethod
    def start(
        cls,
        *,
        data: Path | None = None,
        symbols: int | None = None,
        seed: int | None = None,
        start: str | datetime | None = None,
        speed: float | None = None,
        faults: Sequence[dict[str, Any]] | None = None,
        extra: Sequence[str] = (),
        ca_file: Path | None = None,
    ) -> Self:
        """Start the process on free ports and wait until it is ready."""
        folder = tempfile.TemporaryDirectory(prefix="simulator-")
        inside = Path(folder.name)
        arguments = ["--rest-port", "0", "--ws-port", "0", "--ca-file", str(ca_file or inside / "ca.pem")]
        options: dict[str, object] = {"data": data, "symbols": symbols, "seed": seed, "speed": speed}
        options["start"] = start.isoformat() if isinstance(start, datetime) else start
        if faults is not None:
            options["faults"] = inside / "faults.json"
            (inside / "faults.json").write_text(json.dumps(list(faults)))
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name}", str(value)]
        log = inside / "simulator.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.simulator", *arguments, *extra],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
            )
        try:
            return cls(process, _first_line(process, log), log, folder)
        except BaseException:
            process.kill()
            process.wait()
            folder.cleanup()
            raise

    def stop(self) -> None:
        """Stop it with SIGTERM; it must end by itself, with exit code 0."""
        if self.process.stdout is None or self.process.stdout.closed:
            return
        self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        log = self._log.read_text(errors="replace")
        self.process.stdout.close()
        self._folder.cleanup()
        if code != 0:
            raise SimulatorError(f"the simulator ended with {code}:\n{log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace")

    def get(self, path: str, **params: Any) -> Any:
        """Ask the REST port; returns the decoded JSON whatever the HTTP status."""
        return self._request(f"{path}?{urlencode(params)}" if params else path)

    def clock(self) -> dict[str, Any]:
        """Return now_ms, start_ms, end_ms, speed and ended."""
        answer: dict[str, Any] = self.get("/sim/clock")
        return answer

    def now(self) -> int:
        """Return simulated time in ms."""
        return int(self.clock()["now_ms"])

    def wait_until(self, at_ms: int, seconds: float = 30.0) -> None:
        """Wait for a simulated instant, at most so many wall seconds."""
        deadline = Deadline(seconds)
        while (now := self.now()) < at_ms:
            if deadline.has_passed:
                raise SimulatorError(f"simulated time did not reach {at_ms} within {seconds} s: {now}")
            time.sleep(min(0.2, max(0.01, (at_ms - now) / 1000 / self.speed)))

    def truth_candles(self, inst_id: str, begin: int = 0, end: int | None = None) -> list[list[str]]:
        """Return every minute that opens in [begin, end), oldest first, as OKX rows."""
        answer: list[list[str]] = self.get("/sim/truth/candles", instId=inst_id, **_span(begin, end))
        return answer

    def truth_funding(self, inst_id: str, begin: int = 0, end: int | None = None) -> list[dict[str, str]]:
        """Return every settlement in [begin, end), oldest first, as OKX rows."""
        answer: list[dict[str, str]] = self.get("/sim/truth/funding", instId=inst_id, **_span(begin, end))
        return answer

    def truth_predicted(self, at: int) -> dict[str, str]:
        """Return the predicted rate of every live swap at an instant."""
        answer: dict[str, str] = self.get("/sim/truth/predicted", at=at)
        return answer

    def fault(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Arm a fault now; fields as in a faults file (`instId`, `path`, `duration`, `count` ...)."""
        answer: dict[str, Any] = self.post("/sim/faults", {"kind": kind, **fields})
        return answer

    def post(self, path: str, content: Any) -> Any:
        """Post JSON; returns the answer, also where it is a refusal."""
        return self._request(path, json.dumps(content).encode())

    def faults(self) -> list[dict[str, Any]]:
        """Return what the faults did so far."""
        answer: list[dict[str, Any]] = self.get("/sim/faults")
        return answer

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        answer: dict[str, Any] = self.get("/sim/stats")
        return answer

    def _request(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(self.rest_url + path, data=body)  # noqa: S310 our own https address
        try:
            with urllib.request.urlopen(request, context=self.ssl_context, timeout=10) as response:  # noqa: S310 the same
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())


def _span(begin: int, end: int | None) -> dict[str, int]:
    return {"begin": begin} if end is None else {"begin": begin, "end": end}


def _first_line(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Wait for the line that says ready."""
    lines: Queue[bytes] = Queue()
    output = process.stdout
    assert output is not None, "started with a pipe"
    reader = threading.Thread(target=lambda: lines.put(output.readline()), daemon=True)
    reader.start()
    try:
        line = lines.get(timeout=READY_SECONDS)
    except Empty:
        line = b""
    if not line:
        raise SimulatorError(f"the simulator is not ready:\n{log.read_text(errors='replace')}")
    ready: dict[str, Any] = json.loads(line)
    return ready


@contextmanager
def simulator(**options: Any) -> Iterator[Simulator]:
    """Run a simulator for the length of a block."""
    with Simulator.start(**options) as running:
        yield running
