"""Where does the running system answer? I/O, but for `candidates`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.machine import get_json
from cli.place import API_URL_FILE, in_checkout
from cli.settings import CommandSettings
from cli.unavailable import NotAvailableError
from shared.runtime.settings import local_folder

_NAME = "qlib-crypto"
_SECONDS = 5.0
"""A busy api takes a second for an answer that costs it nothing."""
_OF_COMPOSE = "http://api:8000"
"""The api as the other containers of docker-compose.yml reach it."""
_RUNS = Path(".run")

_HOW_TO_START = "Start one: `qlib-crypto run`, `qlib-crypto demo` (no internet needed) or `docker compose up -d`."
_IN_A_CONTAINER = "Start it with `docker compose up -d`, and ask from the container `api` or from the host."


@dataclass(frozen=True)
class Candidate:
    """An address at which the api may answer."""

    url: str
    where: str
    """Why it is asked: what a person calls it."""
    expected: bool = True
    """Whether it is what the settings name; another one is announced."""


def candidates(
    api_port: int | None, runs: Mapping[str, str], local: str, *, default_port: int, checkout: bool
) -> list[Candidate]:
    """Return where to ask, the likeliest first. Pure.

    Args:
        api_port: API_PORT where it is set; None where it is not.
        runs: Folder in `.run` → address that a stack left there.
        local: Folder that `qlib-crypto run` uses with these settings.
        default_port: API_PORT where it is not set; docker-compose.yml publishes the same one.
        checkout: Whether this is a checkout; an image is in the network of the containers.

    """
    found = [] if not api_port else [Candidate(f"http://127.0.0.1:{api_port}", f"API_PORT={api_port}")]
    if local in runs:
        found.append(Candidate(runs[local], f".run/{local}"))
    if api_port is None:
        found.append(Candidate(f"http://127.0.0.1:{default_port}", "the default port"))
    if not checkout:
        found.append(Candidate(_OF_COMPOSE, "the container api"))
    others = sorted((name, url) for name, url in runs.items() if name != local)
    found += [Candidate(url, f".run/{name}", expected=False) for name, url in others]
    return list({one.url: one for one in reversed(found)}.values())[::-1]  # each address once, by its likeliest reason


def find_api(settings: CommandSettings, given: str | None = None) -> Candidate:
    """Return the first candidate at which the api of a system like this answers. Raises `NotAvailableError`."""
    asked = (
        [Candidate(given.rstrip("/"), "--api")]
        if given
        else candidates(
            settings.api_port if "api_port" in settings.model_fields_set else None,
            _addresses(_RUNS.glob(f"*/{API_URL_FILE}")),
            local_folder(settings),
            default_port=CommandSettings.model_fields["api_port"].default,
            checkout=in_checkout(),
        )
    )
    problems = []
    for one in asked:
        if (problem := _problem(one.url)) is None:
            return one
        problems.append(f"{one.url} ({one.where}): {problem}")
    hint = _HOW_TO_START if in_checkout() else _IN_A_CONTAINER
    raise NotAvailableError("\n  ".join(["no running system answers:", *problems]) + f"\n{hint}")


def _addresses(files: Iterable[Path]) -> dict[str, str]:
    found = {}
    for file in files:
        try:
            found[file.parent.name] = file.read_text(encoding="utf-8").strip()
        except OSError:  # that stack stops right now
            continue
    return found


def _problem(url: str) -> str | None:
    """Return why this is not the api, or None where it is."""
    try:
        answer = get_json(f"{url}/", seconds=_SECONDS)
    except OSError as error:
        return str(getattr(error, "reason", error))
    except ValueError as error:  # not an address at all
        return str(error)
    if isinstance(answer, dict) and answer.get("name") == _NAME:
        return None
    return "something else answers there"
