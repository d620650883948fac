"""The facts that the findings are about: ports, folders, disks, the exchange, Redis, packages. I/O, no decisions."""

import asyncio
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from cli.doctor.findings import Holder, RedisFacts
from shared.exchanges.base import ExchangeUnavailable
from shared.exchanges.registry import open_exchange

_SECONDS = 5.0
"""A person waits for the report."""


def port_holder(host: str, number: int, *, is_our_api: bool) -> Holder | None:
    """Return who listens on a port; None where it is free."""
    try:
        socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        pid = _listener(number)
        return Holder(is_our_api=is_our_api) if pid is None else _holder(pid, is_our_api=is_our_api)
    return None


def _listener(number: int) -> int | None:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - part of a checkout, not of an image

    try:
        rows = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS shows it to root only
        return None
    listening = (row for row in rows if row.status == psutil.CONN_LISTEN and row.laddr.port == number)
    return next((row.pid for row in listening if row.pid is not None), None)


def _holder(pid: int, *, is_our_api: bool) -> Holder:
    import psutil  # noqa: PLC0415 - the same

    try:
        process = psutil.Process(pid)
        return Holder(pid, " ".join(process.cmdline()), process.cwd(), is_our_api)
    except psutil.Error:  # it has ended, or is another user's
        return Holder(pid, is_our_api=is_our_api)


def folder_problem(path: Path) -> str | None:
    """Return why no file can be made in a folder, or in the one that it would be made in; None where one can."""
    there = path.absolute()
    while not os.path.lexists(there):
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except NotADirectoryError:
        return f"{there} is no folder"
    except OSError as error:
        return f"{there}: {error.strerror}"


@dataclass(frozen=True)
class DiskSpace:
    """A disk, and which folders lie on it; sizes in bytes."""

    names: list[str]
    free: int
    total: int


def disk_spaces(folders: Mapping[str, Path]) -> list[DiskSpace]:
    """Return each disk once; a folder that is not there yet lies where its parent does."""
    names: dict[int, list[str]] = defaultdict(list)
    places: dict[int, Path] = {}
    for name, path in folders.items():
        there = path.absolute()
        while not there.exists():
            there = there.parent
        device = there.stat().st_dev
        names[device].append(name)
        places[device] = there
    usages = {device: shutil.disk_usage(place) for device, place in places.items()}
    return [DiskSpace(names[device], usage.free, usage.total) for device, usage in usages.items()]


@dataclass(frozen=True)
class ExchangeAnswer:
    """What came back from the exchange's time endpoint."""

    milliseconds: float
    offset_seconds: float
    """By how much the exchange's clock is ahead of the host's."""
    unsure_seconds: float


def ask_exchange(name: str, rest_url: str, ca_file: Path | None) -> ExchangeAnswer:
    """Ask an exchange for its time, once. Raises `ExchangeError`."""
    return asyncio.run(_ask_exchange(name, rest_url, ca_file))


async def _ask_exchange(name: str, rest_url: str, ca_file: Path | None) -> ExchangeAnswer:
    async with open_exchange(name, rest_url, ca_file=ca_file) as exchange:
        try:
            async with asyncio.timeout(_SECONDS):
                sample = await exchange.measure_time()
        except TimeoutError as error:
            raise ExchangeUnavailable(f"no answer within {_SECONDS:.0f} s") from error
    half = (sample.received - sample.sent) / 2
    host = time.time() - time.monotonic() + sample.sent + half
    return ExchangeAnswer(2000 * half, sample.exchange - host, half)


def ask_redis(url: str) -> RedisFacts:
    """Ask a Redis about itself. Raises `redis.RedisError`."""
    client: Any = redis.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
    with client:
        info = client.info()
    return RedisFacts(
        str(info["redis_version"]),
        bool(info["aof_enabled"]),
        str(info.get("maxmemory_policy", "")),
        int(info.get("maxmemory", 0)),
    )


def alert_problem(urls: str) -> str | None:
    """Return what is wrong with ALERT_URLS, without showing an address; None where nothing is."""
    from services.api.alerts.notifiers import UnknownAddressError, notifiers  # noqa: PLC0415 - only the api has it

    try:
        notifiers(urls)
    except UnknownAddressError as error:
        return f"ALERT_URLS: {error}"
    return None


def installed_here() -> dict[str, str]:
    """Return the packages of this environment and their versions."""
    return {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}


_REPORT = (
    "import importlib.metadata as m, json, platform; "
    "print(json.dumps([platform.python_version(), {d.metadata['Name']: d.version for d in m.distributions()}]))"
)


def installed_in(python: Path) -> tuple[str, dict[str, str]]:
    """Return the Python version and the packages of another environment. Raises `OSError`."""
    done = subprocess.run([str(python), "-c", _REPORT], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        why = [f"exit code {done.returncode}", *done.stderr.split("\n")]
        raise OSError(f"{python} does not run: {[line for line in why if line.strip()][-1]}")
    version, packages = json.loads(done.stdout)
    return version, packages


def locked_in(file: Path) -> dict[str, set[str]]:
    """Return the versions that a lock file holds of each package."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in tomllib.loads(file.read_text(encoding="utf-8"))["package"]:
        found[package["name"]].add(package.get("version", ""))
    return dict(found)


def python_version() -> str:
    """Return the version of this interpreter."""
    return ".".join(map(str, sys.version_info[:3]))
