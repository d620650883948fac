"""What docker-compose.yml says, without an engine: who gets the proxy, and what never goes through it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from cli.stack import ROOT, SERVICES, open_here
from services.api.settings import ApiSettings
from shared.exchanges.proxy import proxy_for
from shared.runtime.settings import NAMES

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
NOWHERE = "http://127.0.0.1:9"


def proxies_of(environment):
    return {name: value for name, value in (environment or {}).items() if name.lower().endswith("_proxy")}


def test_the_proxy_is_handed_to_the_services_that_ask_the_exchange_and_to_no_other():
    handed = {name for name, service in COMPOSE.items() if proxies_of(service.get("environment"))}

    assert handed == set(SERVICES)
    for service in SERVICES:
        assert set(proxies_of(COMPOSE[service]["environment"])) == {
            spelled for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY") for spelled in (name, name.lower())
        }


def test_the_api_is_handed_no_setting_of_another_service():
    """How often the others work is in their heartbeats."""
    own = {name.upper() for name in ApiSettings.model_fields}

    assert NAMES & set(COMPOSE["api"]["environment"]) <= own


def compose_command():
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


@pytest.mark.parametrize(
    ("shell", "handed"),
    [
        ({}, {}),
        ({"HTTPS_PROXY": "http://a:1"}, {"HTTPS_PROXY": "http://a:1"}),
        ({"https_proxy": "http://a:1", "no_proxy": "x"}, {"https_proxy": "http://a:1"}),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x,y"}, {"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x,y"}),
    ],
)
def test_compose_hands_on_what_is_set_and_never_looks_for_the_simulator_behind_a_proxy(shell, handed):
    if (command := compose_command()) is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    shown = subprocess.run(
        [*command, "config"], cwd=ROOT, env=os.environ | shell, capture_output=True, check=True
    ).stdout
    environment = proxies_of(yaml.safe_load(shown)["services"]["collector"]["environment"])
    exceptions = environment.pop("no_proxy")

    assert {name: value for name, value in environment.items() if value is not None} == handed
    inside = {name: value for name, value in environment.items() if value is not None} | {"no_proxy": exceptions}
    assert proxy_for("https://simulator:8911", inside) is None
    assert (proxy_for("https://www.okx.com", inside) is None) == (not handed)
    if len(shell) > 1:
        assert proxy_for("https://x", inside) is None


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in {"/health", "/api"} else 404)
        self.end_headers()
        self.wfile.write(json.dumps({}).encode())

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def port():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("service", "its_port"), [("api", 8000), ("research", 8888)])
def test_a_health_check_asks_its_own_container_and_no_proxy(service, its_port, port):
    *_, code = COMPOSE[service]["healthcheck"]["test"]
    environment = os.environ | {"HTTP_PROXY": NOWHERE, "http_proxy": NOWHERE}

    def exit_code(text):
        command = [sys.executable, "-c", text.replace(f":{its_port}/", f":{port}/")]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    assert exit_code(code) == 0
    assert exit_code(code.replace("/health", "/nothing").replace("/api", "/nothing")) != 0


def test_the_launchers_ask_what_runs_here_without_a_proxy(port, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)

    with open_here(f"http://127.0.0.1:{port}/health", 5) as answer:
        assert answer.status == 200
