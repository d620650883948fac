"""`qlib-crypto run`: collect from the exchange on this machine, without Docker, and show how it goes."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cli.ask.tables import coloured, freshness
from cli.docs.env_example import KINDS
from cli.settings import CommandSettings
from cli.stack import ROOT, Program, Stack, StackError, end_on_signals, listens, tail
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import local_folder, read_settings

_POLL_SECONDS = 2.0
_PLAIN_SECONDS = 30.0
"""Where there is no terminal, a line when the verdict changes, and one at least so often; reasons count seconds."""


@dataclass(frozen=True)
class View:
    """What is known at one moment, from the api where it answers and from supervisord where not."""

    programs: dict[str, Program]
    status: dict[str, Any] | None
    lag: dict[str, Any] | None
    last_lines: dict[str, str] = field(default_factory=dict)
    """Program that does not stay up → the last line of its log."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield (program, verdict, reason): from supervisord where a program is down, else from the api."""
        reported = {row["service"]: row for row in self.status["services"]} if self.status else {}
        for name, program in self.programs.items():
            service = reported.get(name)
            if program.state != "RUNNING":
                yield name, program.state.lower(), self.last_lines.get(name) or program.description
            elif service is None:
                yield name, "running", program.description
            else:
                yield name, service["verdict"], service["reason"].removeprefix(f"{name}: ")

    def verdict(self) -> str:
        """Return the whole in a word."""
        return "" if self.status is None else str(self.status["verdict"])

    def headline(self) -> str:
        """Return the whole in a sentence."""
        if self.status is None:
            return "the api does not answer yet"
        return f"{self.status['verdict']}: {self.status['reason']}"


def observe(stack: Stack) -> View:
    """Ask supervisord and the api."""
    programs = stack.status()
    silent = {name for name, program in programs.items() if program.state in {"BACKOFF", "FATAL", "EXITED"}}
    words = {name: tail(stack.log_of(name), 1) for name in silent}
    return View(programs, _answer(stack, "/status"), _answer(stack, "/lag"), words)


def _answer(stack: Stack, path: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = stack.ask_api(path)
    except OSError:
        return None
    return answer


def table(view: View, title: str) -> Table:
    """Draw a view."""
    drawn = Table(title=title, title_justify="left", caption=freshness(view.lag), caption_justify="left", expand=True)
    drawn.add_column("service", no_wrap=True)
    drawn.add_column("verdict", no_wrap=True)
    drawn.add_column("reason", ratio=1)
    for name, verdict, reason in view.rows():
        drawn.add_row(name, coloured(verdict), escape(reason))
    return drawn


def watch(stack: Stack, console: Console, title: str, last: deque[View]) -> None:
    """Show how it goes until interrupted; `last` holds the last view."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                if (done := stack.mend_redis()) is not None:
                    live.console.print(done, markup=False, soft_wrap=True)
                last.append(observe(stack))
                live.update(table(last[-1], title), refresh=True)
                time.sleep(_POLL_SECONDS)
    shown, shown_at = "", 0.0
    while True:
        if (done := stack.mend_redis()) is not None:
            console.print(done, markup=False, soft_wrap=True)
        view = observe(stack)
        last.append(view)
        if view.verdict() != shown or time.monotonic() - shown_at > _PLAIN_SECONDS:
            shown, shown_at = view.verdict(), time.monotonic()
            console.print(f"{time.strftime('%H:%M:%S')} {shown}", freshness(view.lag), markup=False, soft_wrap=True)
        time.sleep(_POLL_SECONDS)


def _stack(settings: CommandSettings) -> Stack:
    given = {"API_PORT": str(settings.api_port)} if settings.api_port else {}  # 0: any free one
    if "redis_url" in settings.model_fields_set:
        given["REDIS_URL"] = str(settings.redis_url)
    if settings.api_port and listens(settings.api_port):
        raise StackError(f"API_PORT={settings.api_port} is taken on this machine; set another one")
    return Stack(ROOT / ".run" / local_folder(settings), given)


def farewell(view: View | None) -> str:
    """Return what can be said of the data once everything is stopped, by the last view of the writer."""
    rows = {name: verdict for name, verdict, _ in view.rows()} if view is not None else {}
    if rows.get("writer") == "ok":
        return "stopped; everything that was received is stored"
    return (
        f"stopped; the writer was {rows.get('writer', 'not there yet')} when it was looked at last: "
        "what it has not stored waits in Redis for the next start"
    )


def main() -> None:
    """Collect from OKX until Ctrl-C: Valkey, unless REDIS_URL is set, and the services under supervisord.

    Settings come from the environment and `.env`; see .env.example. Data goes to okx_data and qlib_data.
    """
    end_on_signals()
    console = Console()
    settings = read_settings(CommandSettings)
    for of_service in KINDS:
        read_settings(of_service)  # a wrong one ends it here, and not each service again and again
    last: deque[View] = deque(maxlen=1)
    try:
        stack = _stack(settings)
        with stack:
            console.print(f"api {stack.api_url}/docs, logs {stack.folder / 'logs'}; Ctrl-C stops", soft_wrap=True)
            watch(stack, console, f"qlib-crypto, from {settings.okx_rest_url}", last)
    except KeyboardInterrupt:
        console.print(farewell(last[-1] if last else None))
    except StackError as error:
        console.print(escape(str(error)), soft_wrap=True)
        sys.exit(ExitCode.FINDING)
