"""What supervisord is configured to do with the programs."""

import configparser
import shlex
from pathlib import Path

from cli.stack.supervisor import Launch, configuration


def parsed(launches, socket="supervisor.sock", *, as_root=False):
    parser = configparser.RawConfigParser(interpolation=None)
    parser.read_string(configuration(launches, socket, as_root=as_root))
    return parser


def test_programs_start_in_order_and_none_by_itself():
    found = parsed({"valkey": Launch(["valkey"]), "writer": Launch(["python", "-m", "services.writer"])})

    assert int(found["program:valkey"]["priority"]) < int(found["program:writer"]["priority"])
    assert {found[f"program:{name}"]["autostart"] for name in ("valkey", "writer")} == {"false"}


def test_a_simulator_is_not_started_again():
    found = parsed({"simulator": Launch(["x"], restarts=False), "writer": Launch(["y"])})

    assert found["program:simulator"]["autorestart"] == "false"
    assert found["program:writer"]["autorestart"] == "true"


def test_a_blank_and_a_percent_sign_survive():
    found = parsed({"writer": Launch(["a b", "100 %"], Path("/a 100 %"))})["program:writer"]

    assert shlex.split(found["command"].replace("%%", "%"))[-2:] == ["a b", "100 %"]
    assert found["directory"] == "/a 100 %%"


def test_root_is_named_only_where_it_runs_as_root():
    assert parsed({}, as_root=True)["supervisord"]["user"] == "root"
    assert "user" not in parsed({})["supervisord"]
