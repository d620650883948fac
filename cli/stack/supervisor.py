"""Which programs run, and what starts one again that dies? supervisord, and what we ask of it. I/O.

Nothing stays behind: neither after `shut_down`, nor when the process that started all this is killed.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error as RpcError
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from cli.stack.folder import StackError, tail

_STOP_SECONDS = 30
"""Enough for the writer's last flush on a slow disk; a stop usually takes a second."""
_UP_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LONGEST_SOCKET_PATH = 100
"""Unix sockets take 107 bytes; supervisord appends its process id to a temporary one."""

_CONFIG = """\
; Written by cli/stack/supervisor.py at every start.
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
nodaemon=true
silent=true
{user}logfile=logs/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile=supervisord.pid
childlogdir=logs

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}
"""

_PROGRAM = """
[program:{name}]
command={command}
{directory}priority={priority}
autostart=false
autorestart={autorestart}
startsecs=1
startretries=1000
stopsignal=TERM
stopwaitsecs={stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""
"""A program that dies is started again at once; one that dies within a second, after 1, 2, 3 ... seconds."""


@dataclass(frozen=True)
class Program:
    """What supervisord reports of a program."""

    name: str
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL."""
    pid: int
    """0 where it does not run."""
    description: str


@dataclass(frozen=True)
class Launch:
    """How a program is started."""

    command: Sequence[str]
    directory: Path | None = None
    """Where it runs; None: in the stack's folder."""
    restarts: bool = True
    """Whether it is started again when it dies."""


def configuration(launches: Mapping[str, Launch], socket: str, *, as_root: bool) -> str:
    """Return supervisord's configuration: programs in the order of the start, the stop is in reverse. Pure.

    The settings are no part of it: supervisord's environment carries them, where no quoting can go wrong and a
    password is no file. Paths are relative to the folder, whose own name may hold what means something in such a file.
    """
    text = _CONFIG.format(socket=socket, user="user=root\n" if as_root else "")
    for position, (name, launch) in enumerate(launches.items()):
        text += _PROGRAM.format(
            name=name,
            command=_escape(shlex.join(_tied(launch.command))),
            directory="" if launch.directory is None else f"directory={_escape(launch.directory)}\n",
            priority=10 * (position + 1),
            autorestart="true" if launch.restarts else "false",
            stop_seconds=_STOP_SECONDS,
        )
    return text


def _escape(value: object) -> str:
    """`%` starts an expansion in such a file."""
    return str(value).replace("%", "%%")


def _tied(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cli.die_with_parent", *command]


class Supervised:
    """Programs of one folder under supervisord, by name."""

    def __init__(self, folder: Path, launches: Mapping[str, Launch]) -> None:
        self.folder = folder
        self.launches = launches
        self._socket = folder / "supervisor.sock"
        self._short: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, env: Mapping[str, str]) -> None:
        """Start supervisord, and none of the programs yet. Raises `StackError`.

        Call it in the main thread: its death is what the processes are tied to.
        """
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH:
            self._short = tempfile.TemporaryDirectory(prefix="qlib-crypto-")
            self._socket = Path(self._short.name) / "s"
        config = self.folder / "supervisord.conf"
        config.write_text(configuration(self.launches, self._socket_name(), as_root=os.geteuid() == 0))
        with (self.folder / "logs" / "start.log").open("wb") as output:
            # A session of its own: Ctrl-C on the terminal is for us, and we stop the rest in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [*_tied([sys.executable, "-m", "supervisor.supervisord"]), "-c", config.name],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.wait_until("supervisord answers", lambda: bool(self.status()), None)

    def shut_down(self) -> None:
        """Stop every program in reverse order, each with time to flush, and supervisord. Safe to call again."""
        process, self._process = self._process, None
        if process is not None:
            left = [program.pid for program in self.status().values() if program.pid]
            process.terminate()
            try:
                process.wait(_STOP_SECONDS * (len(self.launches) + 1))
            except BaseException:
                process.kill()
                process.wait()
                for pid in left:
                    _kill_group(pid)
                raise
        if self._short is not None:
            self._short.cleanup()
            self._short = None

    # --- One program

    def status(self) -> dict[str, Program]:
        """Return what supervisord reports of each program; nothing while it does not answer."""
        try:
            with self._rpc() as rpc:
                rows: Any = rpc.supervisor.getAllProcessInfo()
        except (OSError, HTTPException, RpcError):
            return {}
        found = {row["name"]: Program(row["name"], row["statename"], row["pid"], row["description"]) for row in rows}
        return {name: found[name] for name in self.launches}  # in the order in which the data flows

    def pid(self, program: str) -> int:
        """Return the process id of a running program. Raises `StackError` where it does not run."""
        found = self.status().get(program)
        if found is None or not found.pid:
            raise StackError(f"{program} does not run: {found.state if found else 'supervisord does not answer'}")
        return found.pid

    def ended(self, program: str) -> bool:
        """Return whether a program has ended for good, as the simulator does when it cannot go on."""
        found = self.status().get(program)
        return found is not None and found.state in {"EXITED", "FATAL", "STOPPED"}

    def kill(self, program: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a program and return the process id that got it; supervisord starts it again."""
        pid = self.pid(program)
        os.kill(pid, number)
        return pid

    def stop_program(self, program: str) -> None:
        """Stop a program and wait until it has ended."""
        with self._rpc() as rpc:
            rpc.supervisor.stopProcess(program, True)

    def start_program(self, program: str) -> None:
        """Start a program, without waiting for it to be up."""
        with self._rpc() as rpc:
            rpc.supervisor.startProcess(program, False)

    def log_of(self, program: str) -> Path:
        """Return where a program's log is."""
        return self.folder / "logs" / f"{program}.log"

    def wait_until(self, what: str, holds: Callable[[], bool], program: str | None) -> None:
        """Wait until something holds. Raises `StackError` with the end of the program's log where it does not."""
        deadline = time.monotonic() + _UP_SECONDS
        log = self.log_of(program) if program else self.folder / "logs" / "start.log"
        while not holds():
            over = self._process is None or self._process.poll() is not None
            over = over or (program is not None and self.ended(program))
            if over or time.monotonic() > deadline:
                raise StackError(f"waited in vain until {what}; {log} ends with:\n{tail(log)}")
            time.sleep(_POLL_SECONDS)

    # --- Inside

    def _socket_name(self) -> str:
        return self._socket.name if self._short is None else str(self._socket)

    def _rpc(self) -> ServerProxy:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return ServerProxy("http://127.0.0.1", transport=transport)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
