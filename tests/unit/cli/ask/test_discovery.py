"""Where the running system is looked for, and what counts as one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.ask.discovery import candidates, find_api
from cli.machine import free_port
from cli.place import API_URL_FILE, SETTINGS_FILE
from cli.settings import CommandSettings
from cli.unavailable import NotAvailableError


def asked(api_port=None, local_url=None, *, checkout=True):
    return [one.url for one in candidates(api_port, local_url, "local", default_port=8000, checkout=checkout)]


def test_without_anything_the_default_port_is_asked():
    assert asked() == ["http://127.0.0.1:8000"]


def test_a_port_that_is_set_is_asked_first_and_the_default_one_not_at_all():
    assert asked(9000, "http://127.0.0.1:9000") == ["http://127.0.0.1:9000"]
    assert asked(9000, "http://127.0.0.1:5") == ["http://127.0.0.1:9000", "http://127.0.0.1:5"]


def test_the_local_run_comes_before_the_default_port():
    assert asked(local_url="http://127.0.0.1:5") == ["http://127.0.0.1:5", "http://127.0.0.1:8000"]


def test_a_port_of_zero_names_no_address():
    assert asked(0, "http://127.0.0.1:5") == ["http://127.0.0.1:5"]


def test_a_container_also_asks_the_container_of_the_api():
    assert asked(checkout=False) == ["http://127.0.0.1:8000", "http://api:8000"]


class _Answer(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def serve():
    """Start servers that answer everything with one body; return the URL."""
    servers = []

    def start(body: bytes) -> str:
        handler = type("Handler", (_Answer,), {"body": body})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


API = json.dumps({"name": "qlib-crypto", "questions": {}}).encode()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Run where no `.env` and no `.run` is, and with no free default port's answer in the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_PORT", raising=False)
    return tmp_path


def left_by(folder, name, url):
    (folder / ".run" / name).mkdir(parents=True)
    (folder / ".run" / name / API_URL_FILE).write_text(url + "\n")


def test_the_local_run_is_found_by_the_address_that_it_left(folder, serve):
    url = serve(API)
    left_by(folder, "local", url)

    found = find_api(CommandSettings())

    assert (found.url, found.where) == (url, ".run/local")


def test_a_demo_that_is_well_does_not_stand_in_for_the_system_that_is_down(folder, serve, monkeypatch):
    monkeypatch.setenv("API_PORT", str(free_port()))
    left_by(folder, "demo", serve(API))
    (folder / ".run" / "demo" / SETTINGS_FILE).touch()
    left_by(folder, "local-elsewhere", url := serve(API))

    with pytest.raises(NotAvailableError) as caught:
        find_api(CommandSettings())

    assert "Another one runs in .run/demo: ask it with `--stack demo`." in str(caught.value)
    assert f"Another one runs in .run/local-elsewhere: ask it with `--api {url}`." in str(caught.value)


@pytest.mark.parametrize("body", [b'{"name": "another"}', b"[]", b"<html>", b"1"])
def test_another_server_on_the_port_is_not_taken_for_the_api(serve, monkeypatch, body):
    monkeypatch.setenv("API_PORT", serve(body).rpartition(":")[2])

    with pytest.raises(NotAvailableError, match="no running system answers"):
        find_api(CommandSettings())


def test_an_address_that_was_left_behind_by_a_dead_run_is_named_with_its_trouble(folder):
    left_by(folder, "local", f"http://127.0.0.1:{free_port()}")

    with pytest.raises(NotAvailableError, match=r"\.run/local\): .*refused(.|\n)*qlib-crypto run"):
        find_api(CommandSettings())


@pytest.mark.parametrize("given", ["nonsense", "http://", "http://127.0.0.1:99999"])
def test_what_is_no_address_is_said_and_not_raised(given):
    with pytest.raises(NotAvailableError, match="--api"):
        find_api(CommandSettings(), given)
