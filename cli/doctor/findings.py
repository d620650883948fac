"""What does a fact about this machine mean for the system, and what is to be done? Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rich.filesize import decimal

from cli.ask.tables import age


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Worth to know; nothing is wrong."""
    TODO = "todo"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    state: State
    text: str
    todo: str = ""
    """What to do; only where the state says so."""


def ok(check: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, State.OK, text)


def note(check: str, text: str) -> Finding:
    """Return a finding that is worth to know."""
    return Finding(check, State.NOTE, text)


def todo(check: str, text: str, what: str) -> Finding:
    """Return a finding that asks for something to be done."""
    return Finding(check, State.TODO, text, what)


# --- Settings


def settings_findings(wrong: Iterable[str], unknown: Mapping[str, str | None]) -> list[Finding]:
    """Judge the environment and `.env`: what stops a start, and what is ignored.

    Args:
        wrong: What read_settings would refuse.
        unknown: Name that is no setting → the setting that it resembles.

    """
    found = [todo("settings", one, "correct it in the environment or in .env: no service starts") for one in wrong]
    for name, nearest in unknown.items():
        what = f"rename it to {nearest}, or remove it" if nearest else "remove it; .env.example names all settings"
        found.append(todo("settings", f"{name} is no setting and is ignored", what))
    return found or [ok("settings", "every setting can be read, and none is unknown")]


# --- Ports


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port; what is not known is empty."""

    pid: int | None = None
    command: str = ""
    directory: str = ""
    is_our_api: bool = False
    """Whether the api of a system like this answers there, whoever forwards the port (Docker does)."""


def port_finding(setting: str, number: int, service: str, holder: Holder | None, root: Path) -> Finding:
    """Judge a port: free, in use by our own service, or taken by another program. `holder` None: it is free."""
    name = f"{setting}={number}"
    if number == 0:
        return ok("ports", f"{name}: {'any free one' if setting == 'API_PORT' else 'no metrics'}")
    if holder is None:
        return ok("ports", f"{name} is free")
    here = f"services.{service}" in holder.command and holder.directory == str(root)
    if here or (setting == "API_PORT" and holder.is_our_api):
        return ok("ports", f"{name} is in use by the running {service}{_pid(holder)}")
    who = f"{holder.command[:_COMMAND]}{_pid(holder)}" if holder.command else "a process of another user"
    none = "" if setting == "API_PORT" else ", or to 0 for no metrics"
    return todo("ports", f"{name} is taken by {who}", f"stop it, or set {setting} to another port{none}")


def _pid(holder: Holder) -> str:
    return "" if holder.pid is None else f" (process {holder.pid})"


_COMMAND = 80
"""Enough of a command line to recognise it."""


# --- Folders and disks


def folder_finding(setting: str, path: Path, problem: str | None) -> Finding:
    """Judge a folder that is written to; `problem` None: a file could be made there."""
    if problem is None:
        return ok("folders", f"{setting}: {path} can be written")
    what = f"let this user write there, or set {setting} to another folder"
    return todo("folders", f"{setting}: {path}: {problem}", what)


def disk_finding(names: Iterable[str], free: int, total: int, least_percent: float) -> Finding:
    """Judge the free space of the disk that holds some folders; sizes in bytes."""
    percent = 100 * free / total if total else 0.0
    text = f"{', '.join(names)}: {decimal(free)} of {decimal(total)} free ({percent:.0f} %)"
    if percent < least_percent:
        return todo("disk", text, f"make room: below ALERT_DISK_FREE={least_percent:g} % the api raises an alert")
    return ok("disk", text)


# --- Exchange and clock

_MINUTE_SECONDS = 60.0
_CLOCK_SECONDS = 5.0
"""Decisions follow the exchange's clock; receive times, alerts and logs carry the host's and fit to it within this."""


def exchange_finding(url: str, proxy: str | None, milliseconds: float | None, problem: str = "") -> Finding:
    """Judge the way to the exchange; `milliseconds` None: it did not answer, and `problem` says why."""
    way = f"through {proxy}" if proxy else "directly"
    if milliseconds is not None:
        return ok("exchange", f"{url} answers in {milliseconds:.0f} ms, {way}")
    what = (
        "check that proxy, and HTTPS_PROXY and NO_PROXY"
        if proxy
        else "check the connection; a network that needs a proxy needs HTTPS_PROXY (see .env.example)"
    )
    return todo("exchange", f"{url} does not answer, asked {way}: {problem}", what)


def clock_finding(offset_seconds: float, unsure_seconds: float, *, simulated: bool) -> Finding:
    """Judge the host's clock by the exchange's, which is `offset_seconds` ahead, give or take `unsure_seconds`."""
    away = f"{abs(offset_seconds):.1f} s" if abs(offset_seconds) < _MINUTE_SECONDS else age(abs(offset_seconds))
    direction = "behind" if offset_seconds > 0 else "ahead of"
    if abs(offset_seconds) - unsure_seconds <= _CLOCK_SECONDS:
        return ok("clock", f"the host is {away} {direction} the exchange")
    text = f"the host's clock is {away} {direction} the exchange's"
    if simulated:
        return note("clock", f"{text}: OKX_REST_URL is a simulated exchange, whose time is its own")
    return todo("clock", text, "set the host's clock (chrony, systemd-timesyncd): receive times and alerts carry it")


# --- Redis


@dataclass(frozen=True)
class RedisFacts:
    """What a Redis reports of itself."""

    version: str
    append_only: bool
    policy: str
    """maxmemory-policy."""
    limit: int
    """maxmemory in bytes; 0: none."""


def redis_findings(where: str, facts: RedisFacts | None, problem: str, *, given: bool) -> list[Finding]:
    """Judge the Redis between the services; `facts` None: it does not answer. `given`: a setting names it."""
    if facts is None and not given:
        return [ok("redis", "none is set and none answers: `qlib-crypto run` brings its own")]
    if facts is None:
        return [todo("redis", f"{where} does not answer: {problem}", "start it, or correct REDIS_URL")]
    found = []
    if not facts.append_only:
        what = "set appendonly yes: what the services have not stored yet is lost when it restarts"
        found.append(todo("redis", f"{where} keeps nothing on disk", what))
    if facts.limit and facts.policy != "noeviction":
        what = "set maxmemory-policy noeviction: candles would be lost without a word"
        found.append(todo("redis", f"{where} evicts when it is full ({facts.policy})", what))
    return found or [ok("redis", f"{where} answers, version {facts.version}, append-only, evicts nothing")]


# --- Versions

_NAMED = 5
"""Packages that a line names."""


def python_finding(running: str, wanted: str) -> Finding:
    """Judge the interpreter; both like 3.13.1, `wanted` possibly without the last part."""
    if running == wanted or running.startswith(f"{wanted}."):
        return ok("versions", f"Python {running}")
    return todo("versions", f"Python {running}, the project wants {wanted}", "run `make clean env`")


def locked_finding(
    environment: str,
    installed: Mapping[str, str],
    locked: Mapping[str, Collection[str]],
    shown: Iterable[str],
    remedy: str,
) -> Finding:
    """Compare installed packages with the lock file, which may hold several versions of one, for several platforms."""
    plain = {normal(name): version for name, version in installed.items()}
    other = sorted(name for name, version in plain.items() if name in locked and version not in locked[name])
    missing = sorted(normal(name) for name in shown if normal(name) not in plain)
    if missing:
        return todo("versions", f"{environment} lacks {', '.join(missing)}", f"run `{remedy}`")
    if other:
        named = ", ".join(f"{name} {plain[name]} (lock: {'/'.join(sorted(locked[name]))})" for name in other[:_NAMED])
        more = f" and {len(other) - _NAMED} more" if len(other) > _NAMED else ""
        return todo("versions", f"{environment} is not what uv.lock says: {named}{more}", f"run `{remedy}`")
    named = ", ".join(f"{name} {plain[normal(name)]}" for name in shown)
    return ok("versions", f"{environment}: {len(plain)} packages as in uv.lock, {named}")


def normal(name: str) -> str:
    """Return a package's name as the lock file spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# --- The system


def system_finding(where: str | None, verdict: str, reason: str) -> Finding:
    """Judge what runs; `where` None: nothing does, which is no fault of the machine."""
    if where is None:
        return note("system", "nothing runs here; `qlib-crypto run` starts it")
    if verdict == "ok":
        return ok("system", f"{where} runs: {reason}")
    return todo("system", f"{where} is {verdict}: {reason}", "see `qlib-crypto status` and `qlib-crypto alerts list`")
