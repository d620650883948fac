"""Faults of the host, done to a running stack and undone again: processes, Redis, disk, files."""

import heapq
import itertools
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Error as RpcError

from cli.stack import Stack, StackError
from proofs.chaos.plan import Strike
from proofs.rig.small_disk import SmallDisk

_PATIENCE_SECONDS = 5.0
"""A process that is just being restarted is waited for this long; then the strike did not happen."""
_YOUNGEST_DAYS = 2
"""Files of the last days are damaged: what is older than the requested history is not fetched again."""


class Happened(NamedTuple):
    """One fault that took place."""

    kind: str
    began_ms: int
    """Simulated time."""
    ended_ms: int
    wall: str
    detail: str


class Host:
    """Does strikes to the host of a stack, and knows what it has yet to undo."""

    def __init__(self, stack: Stack, disk: SmallDisk | None) -> None:
        self._stack = stack
        self._disk = disk
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._waiting: list[tuple[float, Strike]] = []
        self.injected: Counter[str] = Counter()
        self.happened: list[Happened] = []

    def strike(self, strike: Strike) -> None:
        """Do it now, or as soon as what it hits is there."""
        self.injected[strike.kind] += 1
        self._waiting.append((time.monotonic() + _PATIENCE_SECONDS, strike))
        self.tick()

    def tick(self) -> None:
        """Undo what is over; try again what found nothing to hit."""
        now = time.monotonic()
        while self._undo and self._undo[0][0] <= now:
            heapq.heappop(self._undo)[2]()
        waiting, self._waiting = self._waiting, []
        for until, strike in waiting:
            began = self._simulated_ms()
            try:
                detail = self._do(strike)
            except (StackError, OSError, HTTPException, RpcError):
                if now < until:
                    self._waiting.append((until, strike))
                continue
            self._note(strike, began, detail)

    def end(self) -> None:
        """Undo everything."""
        self._waiting.clear()
        while self._undo:
            heapq.heappop(self._undo)[2]()

    def _do(self, strike: Strike) -> str:
        """Do a strike and say what was hit. Raises where there is nothing to hit now."""
        what, _, target = strike.kind.partition(" ")
        if what == "kill":
            return f"pid {self._stack.kill(target)}"
        if what == "stop":
            return self._hold(target, strike.seconds)
        return self._others()[strike.kind](strike)

    def _others(self) -> dict[str, Callable[[Strike], str]]:
        return {
            "redis killed": lambda _: f"pid {self._stack.kill('valkey')}",
            "redis stopped": lambda strike: self._hold("valkey", strike.seconds),
            "redis emptied": lambda _: self._empty_redis(),
            "disk full": self._fill_disk,
            "file damaged": self._damage,
            "segment damaged": self._damage_segment,
        }

    def _hold(self, program: str, seconds: float) -> str:
        pid = self._stack.kill(program, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):  # killed meanwhile
                os.kill(pid, signal.SIGCONT)

        self._later(seconds, go_on)
        return f"pid {pid} for {seconds:g} s"

    def _empty_redis(self) -> str:
        self._stack.kill("valkey")  # it has no chance to say goodbye, also where it is being held
        self._stack.stop_program("valkey")
        try:
            for path in (self._stack.folder / "valkey").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            self._stack.start_program("valkey")
        return "without its AOF"

    def _fill_disk(self, strike: Strike) -> str:
        if self._disk is None:
            raise StackError("no small disk")
        self._disk.fill()
        self._later(strike.seconds, self._disk.free)
        return f"for {strike.seconds:g} s"

    def _damage(self, strike: Strike) -> str:
        """Cut a candle file off in the middle.

        By a replacement, as a disk or a copy gone wrong leaves it: a file that shrinks while a process maps it kills
        that process by SIGBUS, which is another fault.
        """
        folders = sorted((self._stack.data_dir / "kline_1m").glob("date=*"))[-_YOUNGEST_DAYS:]
        files = [path for folder in folders for path in sorted(folder.glob("[!.]*.parquet"))]
        if not files:
            raise StackError("no file yet")
        return self._cut(files[int(strike.pick * len(files))], strike)

    def _damage_segment(self, strike: Strike) -> str:
        """Cut a file of rows off that are not merged into day files yet: candles, settlements, or what was found out.

        Predictions are spared: they cannot be fetched again.
        """
        segments = self._stack.data_dir / "_segments"
        files = sorted(
            path for name in ("kline_1m", "funding", "ledger") for path in segments.glob(f"{name}/0*.parquet")
        )
        if not files:
            return "none waits"
        return self._cut(files[int(strike.pick * len(files))], strike)

    def _cut(self, path: Path, strike: Strike) -> str:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return "merged just then"
        cut = int(len(content) * (strike.pick * 1000 % 1) * _MOST_KEPT)
        aside = path.with_name(f".{path.name}.cut")
        aside.write_bytes(content[:cut])
        aside.replace(path)
        return f"{path.relative_to(self._stack.data_dir)}: {cut} of {len(content)} bytes left"

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._number), undo))

    def _note(self, strike: Strike, began_ms: int, detail: str) -> None:
        lasts = strike.seconds if strike.kind.startswith("stop") or strike.kind in _LASTING else 0.0
        ended = began_ms + int(lasts * self._speed() * 1000)
        self.happened.append(Happened(strike.kind, began_ms, ended, datetime.now(UTC).isoformat(), detail))

    def _clock(self) -> dict[str, Any]:
        return dict(self._stack.ask_simulator("/sim/clock"))

    def _simulated_ms(self) -> int:
        return int(self._clock()["now_ms"])

    def _speed(self) -> float:
        return float(self._clock()["speed"])


_LASTING = ("redis stopped", "disk full")
_MOST_KEPT = 0.95


class Wire:
    """The simulator's own chaos: stopped from here, and read from its counts and its log."""

    def __init__(self, stack: Stack, log_file: Path, *, rages: bool) -> None:
        self._stack = stack
        self._log_file = log_file
        self._rages = rages
        self.injected: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()

    def stop(self) -> None:
        """Let no more faults happen, and count those that did. Raises `OSError`."""
        if self._rages:
            answer = self._stack.tell_simulator("/sim/chaos", {"stop": True})
            self.injected, self.happened = Counter(answer["armed"]), Counter(answer["happened"])

    def log(self) -> list[dict[str, Any]]:
        """Return what the faults did to single pushes, answers, subscriptions and connections."""
        try:
            lines = self._log_file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def deaths(stack_folder: Path) -> list[str]:
    """Return what supervisord says of processes that ended by themselves: neither killed nor stopped on request."""
    logs = sorted((stack_folder / "logs").glob("supervisord.log*"))
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if " exited: " in line and "not expected" in line and "SIGKILL" not in line]
