"""The catalogue of the settings, and who passes them on."""

import inspect
import re
from collections import Counter
from pathlib import Path

import yaml

from cli.docs.env_example import KINDS, example

ROOT = Path(__file__).resolve().parents[4]

#: Decided by the compose file itself: where things lie and listen inside of a container.
_INSIDE_A_CONTAINER = {
    "REDIS_URL",
    "OKX_REST_URL",
    "OKX_WS_URL",
    "OKX_CA_FILE",
    "DATA_DIR",
    "QLIB_DIR",
    "LOG_FORMAT",
    "API_HOST",
    "API_PORT",
}


def _settings() -> set[str]:
    return {name.upper() for kind in KINDS for name in kind.model_fields}


def test_committed_example_is_what_the_settings_say():
    """`make env-example` writes it."""
    committed = (ROOT / ".env.example").read_text()

    assert example() == committed


def test_every_setting_is_declared_by_one_class():
    """Two declarations of one name would say two things of it, and only one is in the example."""
    classes = {one for kind in KINDS for one in kind.__mro__ if one.__module__.startswith(("shared", "services"))}
    declared = Counter(
        name for one in classes for name in inspect.get_annotations(one) if not name.startswith(("_", "model_"))
    )

    assert [name for name, times in declared.items() if times > 1] == []
    assert {name.upper() for name in declared} >= _settings()


def test_example_sets_nothing():
    """Copied to `.env` as it is, it changes no default."""
    lines = example().splitlines()

    assert all(line.startswith("#") or not line for line in lines)


def test_containers_get_every_setting():
    """A setting that compose does not pass on would be ignored without a word."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    metrics_ports = {name for name in _settings() if name.endswith("_METRICS_PORT")}
    wanted = _settings() - _INSIDE_A_CONTAINER - metrics_ports

    only_the_api = {name for name in compose["services"]["api"]["environment"] if name.startswith("ALERT_")}
    assert wanted == set(compose["x-settings"]) | only_the_api
    assert not any(name.startswith("ALERT_") for name in compose["x-settings"])


def test_every_variable_of_the_compose_file_is_in_the_example():
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    known = set(re.findall(r"^#([A-Z_]+)=", example(), re.MULTILINE))

    assert used <= known
