"""`qlib-crypto` as a user types it, against a real stack under a simulated exchange, and where none runs."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from cli.stack import Stack
from tests.support.builders import wait_for

COMMAND = Path(sysconfig.get_path("scripts")) / "qlib-crypto"
MARKET = ["--symbols", "3", "--seed", "5", "--start", "2026-03-01T12:00:00", "--speed", "60"]
SETTINGS = {"TOP_N": "2", "BACKFILL_DAYS": "1", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1"}


class Shell:
    """Types commands with the settings of a stack, in a folder that has nothing to do with it."""

    def __init__(self, stack, folder):
        self.stack = stack
        self.folder = folder

    def run(self, *arguments, code=0):
        """Run a command; return what it printed. code: how it must end; None: anyhow."""
        done = subprocess.run(
            [str(COMMAND), *arguments],
            cwd=self.folder,
            env=self.stack.env | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert code in {None, done.returncode}, done.stdout + done.stderr
        return done.stdout if done.returncode in {0, 1} else done.stderr

    def run_until(self, holds, *arguments):
        """Run a command again and again until what it prints holds; return that. A stack may be late for a moment."""
        return wait_for(lambda: (said := self.run(*arguments, code=None)) and holds(said) and said, 60, every=0.5)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("stack"), SETTINGS, simulator=MARKET) as stack:
        shell = Shell(stack, tmp_path_factory.mktemp("elsewhere"))
        wait_for(lambda: _is_whole(stack), 120)
        yield shell


def _is_whole(stack):
    try:
        status = stack.ask_api("/status")
    except OSError:
        return False
    converter = next(row for row in status["services"] if row["service"] == "converter")
    return status["verdict"] == "ok" and converter["details"].get("converted_until") is not None


def test_status_is_the_verdict_and_how_old_the_candles_are(shell):
    said = shell.run_until(lambda said: said.splitlines()[-1] == "ok: everything works", "status")

    assert "2 symbols stored; newest candle" in said
    assert [line.split()[0] for line in said.splitlines()[1:6]] == ["ranker", "collector", "writer", "converter", "api"]
    shell.run_until(lambda said: json.loads(said)["verdict"] == "ok", "status", "--json")


def test_ranking_is_the_universe_of_now_and_of_then(shell):
    members = json.loads(shell.run("ranking", "--json"))["members"]

    shown = [line.split()[:2] for line in shell.run("ranking").splitlines()[1:-1]]
    assert shown == [[str(place), one["symbol"]] for place, one in enumerate(members, 1)]
    assert "nothing was ranked by 2020-01-01" in shell.run("ranking", "--at", "2020-01-01", code=3)


def test_gaps_are_none_where_the_history_is_complete(shell):
    missing = shell.run("gaps", "--end", "2026-03-01T11:00")

    assert missing.startswith("0 minutes missing in 0 gaps from")
    assert json.loads(shell.run("gaps", "--verdict", "absent", "--json"))["total"] == 0
    assert shell.run("gaps", "--begin", "yesterday", code=2).startswith("begin: ")


def test_alerts_are_none_and_a_test_message_has_nowhere_to_go(shell):
    shell.run_until(lambda said: said.startswith("no alert is open"), "alerts", "list")
    assert "ALERT_URLS is empty" in shell.run("alerts", "test", code=1)


def test_doctor_finds_the_stack_and_the_exchange(shell):
    def is_well(said):  # how full this machine's disk is, no test can say
        return all(one["state"] in {"ok", "note"} for one in json.loads(said) if one["check"] != "disk")

    found = {one["check"]: one for one in json.loads(shell.run_until(is_well, "doctor", "--json"))}
    assert found["system"]["text"].startswith(shell.stack.api_url)
    assert shell.stack.simulator_url in found["exchange"]["text"]


def test_the_dataset_and_the_raw_data_are_those_of_the_stack(shell):
    assert "v0001" in shell.run("dataset", "list")
    assert "no difference" in shell.run("dataset", "verify")
    report = shell.folder / "report.json"
    assert "0 not as the exchange has them" in shell.run("audit", "--sample", "1", "--json", report.name)
    assert json.loads(report.read_text())["pages"] == 1


def test_dead_letters_come_from_its_redis(shell):
    assert "0 of 0" in shell.run("dead-letters", "list")
    assert shell.run("dead-letters", "replay").startswith("0 replayed as 0 events, 0 stay")


def test_where_nothing_runs_it_says_how_to_start_it(tmp_path):
    stack = Stack(tmp_path, simulator=MARKET)  # is not started: its settings name ports on which no one listens
    shell = Shell(stack, tmp_path)

    for question in (("status",), ("gaps",), ("ranking",), ("alerts", "list")):
        said = shell.run(*question, code=3)
        assert said.startswith("no running system answers")
        assert "Start one: `qlib-crypto run`" in said
    assert shell.run("dead-letters", "list", code=3).startswith("Redis does not answer")
    assert "could not audit" in shell.run("audit", code=3)
    assert "there is no dataset yet" in shell.run("dataset", "list", code=3)
    assert "there is no dataset yet" in shell.run("dataset", "show", code=3)
    assert "does not answer" in shell.run("doctor", code=1)
