"""`qlib-crypto demo`: the whole way from an exchange to a Qlib DataFrame, on a machine without internet.

The exchange is the simulator with a generated market, a minute of it passing in a second. It starts shortly before
midnight UTC, so that a ranking and the daily conversion come due within a minute.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from cli.research.environment import print_dataframes, require_environment
from cli.stack import ROOT, Stack, StackError, clear, end_on_signals
from shared.runtime.exit_codes import ExitCode

FOLDER = ROOT / ".run" / "demo"

START = datetime(2026, 3, 1, 23, 36, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
SPEED = 60
MARKET = ["--symbols", "8", "--seed", "7", "--start", START.isoformat(), "--speed", str(SPEED)]
MEMBERS, DAYS = 5, 2
SETTINGS = {"TOP_N": str(MEMBERS), "BACKFILL_DAYS": str(DAYS), "FLUSH_SECONDS": "2"}
HISTORY_MINUTES = MEMBERS * ((START - MIDNIGHT).seconds // 60 + DAYS * 1440)

_LIVE_MINUTES = 5
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a step is."""

    done: bool
    text: str


class Demo:
    """The steps, each with a deadline and a question to the system that shows when it is done."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack = stack
        self.console = console
        self._began = time.monotonic()

    def run(self) -> None:
        """Watch every step happen. Raises `StackError` for the first that does not."""
        self.step("ranking", 30, self.ranked)
        self.step("history", 90, self.history)
        self.step("live candles", 60, self.live)
        self.step("conversion", 90, self.converted)

    def step(self, name: str, seconds: float, question: Callable[[], Progress]) -> None:
        """Ask until the step is done."""
        seen, deadline = "", time.monotonic() + seconds
        with self.console.status(name) as display:
            while not (progress := self._ask(question)).done:
                if progress.text != seen:  # a slow machine gets there, too
                    seen, deadline = progress.text, time.monotonic() + seconds
                if time.monotonic() > deadline:
                    raise StackError(
                        f"{name}: nothing has moved for {seconds:.0f} s: {progress.text}\n{self._reasons()}\n"
                        f"logs: {self.stack.folder / 'logs'}"
                    )
                display.update(f"{name}: {progress.text}")
                time.sleep(_POLL_SECONDS)
        self.report(name, progress.text)

    def report(self, name: str, text: str) -> None:
        """Tick a step off."""
        self.console.print(f"{time.monotonic() - self._began:5.0f} s  {name}: {text}", highlight=False, soft_wrap=True)

    def ranked(self) -> Progress:
        """Return whether there is a universe."""
        universe = self.stack.ask_api("/universe")
        return Progress(bool(universe["members"]), f"top {len(universe['members'])} by |funding rate|")

    def history(self) -> Progress:
        """Return whether the collector has fetched what lies before its start."""
        details = self._details("collector")
        missing = min(details.get("missing_minutes", HISTORY_MINUTES), HISTORY_MINUTES)
        text = f"{HISTORY_MINUTES - missing:,} of {HISTORY_MINUTES:,} minutes fetched over REST"
        return Progress(bool(details.get("history_complete")), text)

    def live(self) -> Progress:
        """Return whether candles are stored that closed after the start."""
        opened = [row["last_candle"] for row in self.stack.ask_api("/lag")["symbols"]]
        oldest = min(map(datetime.fromisoformat, opened)) if opened and all(opened) else START
        minutes = max(0, int((oldest - START).total_seconds() // 60))
        return Progress(minutes >= _LIVE_MINUTES, f"{minutes} minutes of {len(opened)} symbols over WebSocket, stored")

    def converted(self) -> Progress:
        """Return whether midnight has passed, and the day before it is in Qlib."""
        until = self._details("converter").get("converted_until")
        done = until is not None and datetime.fromisoformat(until) >= MIDNIGHT
        clock = datetime.fromisoformat(self.stack.ask_api("/status")["clock"]["exchange_time"])
        return Progress(
            done,
            f"midnight has passed, Qlib holds everything until {until}"
            if done
            else f"at the exchange it is {clock:%H:%M:%S}",
        )

    def _ask(self, question: Callable[[], Progress]) -> Progress:
        self._check_simulator()
        try:
            return question()
        except OSError as error:
            return Progress(done=False, text=f"no answer yet ({error})")

    def _check_simulator(self) -> None:
        if self.stack.ended("simulator"):
            raise StackError(f"the simulator has ended; see {self.stack.log_of('simulator')}")

    def _details(self, service: str) -> dict[str, Any]:
        rows = self.stack.ask_api("/status")["services"]
        details: dict[str, Any] = next(row["details"] for row in rows if row["service"] == service)
        return details

    def _reasons(self) -> str:
        try:
            return "\n".join(row["reason"] for row in self.stack.ask_api("/status")["services"])
        except OSError as error:
            return f"the api does not answer: {error}"


def convert_the_rest(stack: Stack) -> None:
    """Convert today's minutes, too: the daily conversion ended at midnight. Raises `StackError`."""
    command = [sys.executable, "-m", "services.converter", "--once"]
    done = subprocess.run(command, cwd=stack.directory, env=stack.env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StackError(f"the conversion failed:\n{done.stderr}")


def show(stack: Stack) -> None:
    """Print what Qlib sees. Raises `StackError`."""
    if not print_dataframes(stack.qlib_dir):
        raise StackError("Qlib cannot read the data")


def _farewell(stack: Stack) -> str:
    return f"""
raw data   {stack.data_dir}
Qlib data  {stack.qlib_dir}
logs       {stack.folder / "logs"}

Look at it with qlib-crypto --stack demo, such as `qlib-crypto --stack demo dataset list`.
Open it yourself with .venv-research/bin/python:
  import qlib; from qlib.data import D
  qlib.init(provider_uri="{stack.qlib_dir}", region="cn")
  D.features(D.instruments("top50"), ["$close", "$funding_rate"], freq="1min")"""


def main() -> None:
    """Show the pipeline at work on a simulated exchange, and end with a DataFrame out of Qlib."""
    require_environment()
    end_on_signals()
    console = Console()
    try:
        clear(FOLDER)
        stack = Stack(FOLDER, SETTINGS, simulator=MARKET)
        demo = Demo(stack, console)
        with stack:
            demo.report("start", f"simulated OKX, Valkey and five services; api {stack.api_url}/docs while this runs")
            demo.run()
        demo.report("stop", "everything stopped, everything received is stored")
        convert_the_rest(stack)
        show(stack)
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        sys.exit(130)
    except StackError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(ExitCode.FINDING)
    console.print(_farewell(stack), markup=False, highlight=False, soft_wrap=True)
