"""`qlib-crypto doctor`: checks this machine, and says of each thing that it is fine, or what to do."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import redis
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from cli.ask.discovery import Candidate, find_api
from cli.ask.questions import answer_of
from cli.doctor import findings, probes
from cli.doctor.findings import Finding, State
from cli.place import ROOT, in_checkout
from cli.research.environment import PYTHON as RESEARCH_PYTHON
from cli.settings import CommandSettings
from cli.unavailable import NotAvailableError
from shared.exchanges.base import ExchangeError
from shared.exchanges.proxy import ProxyError, proxy_for, take_over
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import (
    CommonSettings,
    problem_of_file,
    problems_of,
    running_redis,
    unknown_names,
    values_in_file,
)

_SERVICES = ("ranker", "collector", "writer", "converter", "api")
_ENV_FILE = Path(".env")
_LEAST_FREE_PERCENT = 10.0
"""Where the settings of the api are not part of the image; its ALERT_DISK_FREE by default."""
_WRITES = {"ranker": "DATA_DIR", "writer": "DATA_DIR", "converter": "QLIB_DIR"}
"""Service → the folder that it writes; in its image the others are mounted for reading only, or not at all."""
_STYLES = {State.OK: "green", State.NOTE: "dim", State.TODO: "red"}


@dataclass(frozen=True)
class Machine:
    """What the checks need to know: the settings of every service that is here."""

    common: CommandSettings
    services: dict[str, CommonSettings]
    """Service → its settings; in an image only one."""
    api: Candidate | None
    """The running system; None: nothing runs."""

    def folder(self, setting: str) -> Path | None:
        """Return the folder that a setting names; None where no service that is here has the setting."""
        name = setting.lower()
        return next((getattr(one, name) for one in self.services.values() if hasattr(one, name)), None)


def main(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for machines")] = False) -> None:
    """Check this machine: each line is ok, or says what to do. Exit code 1 where something is to be done.

    Settings, ports, folders, disks, clock, exchange and proxy, Redis, versions, and the system that runs here.
    """
    console, found = Console(), []
    for finding in examine():
        found.append(finding)
        if not as_json:
            console.print(line(finding), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2, ensure_ascii=False))
    wrong = any(finding.state is State.TODO for finding in found)
    raise typer.Exit(ExitCode.FINDING if wrong else ExitCode.FINE)


def line(finding: Finding) -> Text:
    """Return a finding as a line of the report, and a second one with what to do. Pure."""
    text = Text.assemble((f"{finding.state:<5}", _STYLES[finding.state]), f" {finding.check:<9} {finding.text}")
    return text.append(f"\n      {'':<9} -> {finding.todo}") if finding.todo else text


def examine() -> Iterator[Finding]:
    """Yield one finding after the other, as they come."""
    wrong, services = _read_all()
    file = {} if problem_of_file(_ENV_FILE) else values_in_file(_ENV_FILE)
    yield from findings.settings_findings(wrong, unknown_names(os.environ, file))
    if wrong:
        yield findings.note("doctor", "the other checks need settings that can be read")
        return
    take_over(file, os.environ)
    common = CommandSettings()
    machine = Machine(common, services, _running_api(common))
    if in_checkout():
        yield from _ports(machine)
    yield from _folders(machine)
    yield from _disks(machine)
    yield from _exchange(common)
    yield from _redis(common)
    if in_checkout():
        yield from _versions()
    yield _system(machine.api)


def _read_all() -> tuple[list[str], dict[str, CommonSettings]]:
    """Read the settings of every service that is here; return what is wrong with them, each once, and them."""
    if (problem := problem_of_file(_ENV_FILE)) is not None:
        return [problem], {}
    wrong: dict[str, None] = {}
    read: dict[str, CommonSettings] = {}
    for service in _SERVICES:
        if find_spec(f"services.{service}") is None:
            continue
        kind: type[CommonSettings] = getattr(
            import_module(f"services.{service}.settings"), f"{service.capitalize()}Settings"
        )
        try:
            read[service] = kind()
        except ValidationError as error:
            wrong |= dict.fromkeys(problems_of(error))
    alert_urls = getattr(read.get("api"), "alert_urls", None)
    if alert_urls is not None and (problem := probes.alert_problem(alert_urls.get_secret_value())) is not None:
        wrong[problem] = None
    return list(wrong), read


def _running_api(common: CommandSettings) -> Candidate | None:
    try:
        return find_api(common)
    except NotAvailableError:
        return None


def _ports(machine: Machine) -> Iterator[Finding]:
    for service, settings in machine.services.items():
        for name in [name for name in type(settings).model_fields if name.endswith("_port")]:
            number = getattr(settings, name)
            host = getattr(settings, name.replace("_port", "_host"), settings.metrics_host)
            ours = machine.api is not None and machine.api.url.endswith(f":{number}")
            holder = probes.port_holder(host, number, is_our_api=ours) if number else None
            yield findings.port_finding(name.upper(), number, service, holder, ROOT)


def _folders(machine: Machine) -> Iterator[Finding]:
    names = ["DATA_DIR", "QLIB_DIR"] if in_checkout() else [_WRITES[one] for one in machine.services if one in _WRITES]
    for name in names:
        if (folder := machine.folder(name)) is not None:
            # Qlib's folder is a symlink that is swapped, to versions beside it.
            place = folder.absolute().parent if name == "QLIB_DIR" else folder
            yield findings.folder_finding(name, folder, probes.folder_problem(place))
    if in_checkout():
        yield findings.folder_finding(".run", ROOT / ".run", probes.folder_problem(ROOT / ".run"))


def _disks(machine: Machine) -> Iterator[Finding]:
    folders = {name: folder for name in ("DATA_DIR", "QLIB_DIR") if (folder := machine.folder(name)) is not None}
    least = getattr(machine.services.get("api"), "alert_disk_free", _LEAST_FREE_PERCENT)
    for disk in probes.disk_spaces(folders):
        yield findings.disk_finding(disk.names, disk.free, disk.total, least)


def _exchange(common: CommandSettings) -> Iterator[Finding]:
    url = common.okx_rest_url
    try:
        proxy = proxy_for(url)
        way = None if proxy is None else str(proxy)
        answer = probes.ask_exchange(common.exchange, url, common.okx_ca_file)
    except ProxyError as error:
        yield findings.todo("exchange", str(error), "correct the proxy's setting")
    except ExchangeError as error:
        yield findings.exchange_finding(url, way, None, str(error))
    else:
        yield findings.exchange_finding(url, way, answer.milliseconds)
        simulated = common.okx_ca_file is not None  # the exchanges themselves need no certificate of ours
        yield findings.clock_finding(answer.offset_seconds, answer.unsure_seconds, simulated=simulated)


def _redis(common: CommandSettings) -> Iterator[Finding]:
    given = "redis_url" in common.model_fields_set or not in_checkout()
    url = None if given else running_redis(common)
    address = url or common.redis_url
    where = f"{address.host}:{address.port or 6379}"
    try:
        facts, problem = probes.ask_redis(str(address)), ""
    except (redis.RedisError, OSError) as error:
        facts, problem = None, type(error).__name__  # its text may hold the address, with a password
    yield from findings.redis_findings(where, facts, problem, given=given or url is not None)


def _versions() -> Iterator[Finding]:
    wanted = (ROOT / ".python-version").read_text(encoding="utf-8").split()
    locked = probes.locked_in(ROOT / "uv.lock")
    yield findings.python_finding(probes.python_version(), wanted[0])
    yield findings.locked_finding(".venv", probes.installed_here(), locked, ["cryptofeed"], "make env")
    if not RESEARCH_PYTHON.exists():
        yield findings.note("versions", "no environment for Qlib: `make env-research` makes it, for demo and research")
        return
    try:
        version, packages = probes.installed_in(RESEARCH_PYTHON)
    except OSError as error:
        yield findings.todo("versions", str(error), "delete .venv-research and run `make env-research`")
        return
    yield findings.locked_finding(
        f".venv-research (Python {version})", packages, locked, ["pyqlib"], "make env-research"
    )


def _system(api: Candidate | None) -> Finding:
    if api is None:
        return findings.system_finding(None, "", "")
    try:
        status: dict[str, Any] = answer_of(api, "/status")
    except NotAvailableError as error:
        return findings.system_finding(api.url, "silent", str(error))
    return findings.system_finding(api.url, status["verdict"], status["reason"])
