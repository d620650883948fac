"""Where does the running system answer? I/O, but for `candidates`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.machine import get_json
from cli.place import API_URL_FILE, SETTINGS_FILE, in_checkout
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


def candidates(
    api_port: int | None, local_url: str | None, local: str, *, default_port: int, checkout: bool
) -> list[Candidate]:
    """Return where to ask, the likeliest first. Pure.

    A simulated system is none of them: that it is well says nothing about the one that was asked for.

    Args:
        api_port: API_PORT where it is set; None where it is not.
        local_url: Address that `qlib-crypto run` left with these settings; None where it does not run.
        local: Its folder in `.run`.
        default_port: API_PORT where it is not set; docker-compose.yml publishes the same one.
        checkout: Whether this is a checkout; an image is in the network of the containers.

    """
    found = [Candidate(f"http://127.0.0.1:{api_port}", f"API_PORT={api_port}")] if api_port else []
    if local_url is not None:
        found.append(Candidate(local_url, f".run/{local}"))
    if api_port is None:
        found.append(Candidate(f"http://127.0.0.1:{default_port}", "the default port"))
    if not checkout:
        found.append(Candidate(_OF_COMPOSE, "the container api"))
    return list({one.url: one for one in reversed(found)}.values())[::-1]  # each address once, by its likeliest reason


def find_api(settings: CommandSettings, given: str | None = None) -> Candidate:
    """Return the first candidate at which the api of a system like this answers. Raises `NotAvailableError`."""
    runs, local = _addresses(_RUNS.glob(f"*/{API_URL_FILE}")), local_folder(settings)
    asked = (
        [Candidate(given.rstrip("/"), "--api")]
        if given
        else candidates(
            settings.api_port if "api_port" in settings.model_fields_set else None,
            runs.get(local),
            local,
            default_port=CommandSettings.model_fields["api_port"].default,
            checkout=in_checkout(),
        )
    )
    problems = []
    for one in asked:
        if (problem := _problem(one.url)) is None:
            return one
        problems.append(f"  {one.url} ({one.where}): {problem}")
    hint = _HOW_TO_START if in_checkout() else _IN_A_CONTAINER
    raise NotAvailableError("\n".join(["no running system answers:", *problems, *_others(runs, local), hint]))


def _others(runs: Mapping[str, str], local: str) -> Iterator[str]:
    """Say which other systems run here, such as a demo."""
    for name, url in runs.items():
        if name != local and _problem(url) is None:
            option = f"--stack {name}" if (_RUNS / name / SETTINGS_FILE).exists() else f"--api {url}"
            yield f"Another one runs in .run/{name}: ask it with `{option}`."


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
