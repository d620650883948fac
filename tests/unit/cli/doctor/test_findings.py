"""What a fact about the machine means, and what is to be done: one test for each finding."""

from pathlib import Path

import pytest

from cli.doctor.findings import (
    Holder,
    RedisFacts,
    State,
    clock_finding,
    disk_finding,
    exchange_finding,
    folder_finding,
    locked_finding,
    port_finding,
    python_finding,
    redis_findings,
    settings_findings,
    system_finding,
)

ROOT = Path("/srv/qlib-crypto")


def test_settings_that_can_be_read_are_fine():
    assert [one.state for one in settings_findings([], {})] == [State.OK]


def test_a_wrong_setting_and_a_misspelt_one_are_named_each_with_what_to_do():
    wrong, misspelt, unknown = settings_findings(["TOP_N='x': no number"], {"TOPN": "TOP_N", "COLOUR": None})

    assert (wrong.state, wrong.text) == (State.TODO, "TOP_N='x': no number")
    assert (misspelt.text, misspelt.todo) == ("TOPN is no setting and is ignored", "rename it to TOP_N, or remove it")
    assert unknown.todo.startswith("remove it")


# --- Ports


def port(holder, number=8000, setting="API_PORT"):
    return port_finding(setting, number, "api" if setting == "API_PORT" else "writer", holder, ROOT)


def test_a_free_port_is_fine():
    assert port(None).text == "API_PORT=8000 is free"


def test_port_zero_is_never_taken():
    assert port(None, 0).text == "API_PORT=0: any free one"
    assert port(None, 0, "WRITER_METRICS_PORT").text == "WRITER_METRICS_PORT=0: no metrics"


def test_a_port_of_our_own_running_service_is_fine():
    found = port(Holder(7, "python -m services.writer", str(ROOT)), 9103, "WRITER_METRICS_PORT")

    assert (found.state, found.text) == (
        State.OK,
        "WRITER_METRICS_PORT=9103 is in use by the running writer (process 7)",
    )


def test_the_api_of_a_container_holds_its_port_through_docker():
    assert port(Holder(7, "/usr/bin/docker-proxy -host-port 8000", "/", is_our_api=True)).state is State.OK
    assert port(Holder(is_our_api=True)).state is State.OK


@pytest.mark.parametrize(
    ("holder", "who"),
    [
        (Holder(7, "nginx -g x", "/"), "taken by nginx -g x (process 7)"),
        (Holder(7, "python -m services.writer", "/srv/another"), "taken by python -m services.writer (process 7)"),
        (Holder(7, "python -m services.api", str(ROOT)), "taken by python -m services.api (process 7)"),
        (Holder(), "taken by a process of another user"),
    ],
)
def test_a_port_of_another_program_names_it_and_the_way_out(holder, who):
    found = port(holder, 9103, "WRITER_METRICS_PORT")

    assert found.state is State.TODO
    assert found.text.endswith(who)
    assert found.todo == "stop it, or set WRITER_METRICS_PORT to another port, or to 0 for no metrics"


def test_the_api_cannot_do_without_a_port():
    assert port(Holder()).todo == "stop it, or set API_PORT to another port"


# --- Folders and disks


def test_a_folder_that_cannot_be_written_names_its_setting():
    assert folder_finding("DATA_DIR", Path("d"), None).state is State.OK
    found = folder_finding("DATA_DIR", Path("d"), "/x: Read-only file system")
    assert (found.state, found.text) == (State.TODO, "DATA_DIR: d: /x: Read-only file system")
    assert "DATA_DIR" in found.todo


@pytest.mark.parametrize(("free", "state"), [(9, State.TODO), (10, State.OK), (100, State.OK), (0, State.TODO)])
def test_a_disk_is_full_below_what_the_api_alerts_at(free, state):
    assert disk_finding(["DATA_DIR"], free, 100, 10.0).state is state


def test_a_disk_without_size_is_full():
    assert disk_finding(["DATA_DIR"], 0, 0, 10.0).state is State.TODO


# --- Exchange and clock


def test_an_exchange_that_answers_says_which_way_it_was_asked():
    assert exchange_finding("https://x", None, 63.7).text == "https://x answers in 64 ms, directly"
    assert exchange_finding("https://x", "the proxy P", 63.7).text.endswith("through the proxy P")


def test_an_exchange_that_is_silent_says_why_and_looks_at_the_proxy():
    direct = exchange_finding("https://x", None, None, "no answer in time")
    proxied = exchange_finding("https://x", "the proxy P", None, "HTTP 407")

    assert (direct.state, proxied.state) == (State.TODO, State.TODO)
    assert direct.text == "https://x does not answer, asked directly: no answer in time"
    assert "HTTPS_PROXY" in direct.todo
    assert proxied.todo.startswith("check that proxy")


@pytest.mark.parametrize(
    ("offset", "unsure", "state"),
    [(0.2, 0.1, State.OK), (-5.0, 0.0, State.OK), (5.2, 0.1, State.TODO), (-61, 0.1, State.TODO), (6.0, 3.0, State.OK)],
)
def test_a_clock_is_wrong_when_it_is_surely_more_than_seconds_away(offset, unsure, state):
    assert clock_finding(offset, unsure, simulated=False).state is state


def test_a_wrong_clock_says_to_which_side():
    assert "is 2 min behind" in clock_finding(125, 0, simulated=False).text
    assert "is 9.0 s ahead of" in clock_finding(-9, 0, simulated=False).text


def test_a_simulated_exchange_has_a_time_of_its_own():
    assert clock_finding(-23_000_000, 0, simulated=True).state is State.NOTE


# --- Redis


def test_no_redis_is_needed_where_none_is_set():
    assert [one.state for one in redis_findings("h:6379", None, "x", given=False)] == [State.OK]


def test_a_redis_that_is_set_must_answer():
    (found,) = redis_findings("h:6379", None, "ConnectionError", given=True)

    assert (found.state, found.text) == (State.TODO, "h:6379 does not answer: ConnectionError")


@pytest.mark.parametrize(
    ("facts", "texts"),
    [
        (RedisFacts("7", True, "noeviction", 100), ["h answers, version 7, append-only, evicts nothing"]),
        (RedisFacts("7", True, "allkeys-lru", 0), ["h answers, version 7, append-only, evicts nothing"]),
        (RedisFacts("7", False, "noeviction", 0), ["h keeps nothing on disk"]),
        (
            RedisFacts("7", False, "allkeys-lru", 1),
            ["h keeps nothing on disk", "h evicts when it is full (allkeys-lru)"],
        ),
    ],
)
def test_a_redis_that_loses_data_is_found(facts, texts):
    assert [one.text for one in redis_findings("h", facts, "", given=True)] == texts


# --- Versions


def test_python_may_have_any_last_number():
    assert python_finding("3.13.1", "3.13").state is State.OK
    assert python_finding("3.130.1", "3.13").state is State.TODO
    assert python_finding("3.12.9", "3.13").todo == "run `make clean env`"


LOCK = {"cryptofeed": {"3.0.1"}, "numpy": {"1.26.4", "2.3.0"}, "typing-extensions": {"4.0"}}


def locked(**installed):
    names = {name.replace("typing_", "Typing_"): version for name, version in installed.items()}
    return locked_finding(".venv", names, LOCK, ["cryptofeed"], "make env")


def test_an_environment_as_the_lock_file_has_it_is_fine():
    found = locked(cryptofeed="3.0.1", numpy="1.26.4", typing_extensions="4.0", pip="99")

    assert (found.state, found.text) == (State.OK, ".venv: 4 packages as in uv.lock, cryptofeed 3.0.1")


def test_a_package_of_another_version_is_named():
    found = locked(cryptofeed="2.4.0", typing_extensions="4.1")

    assert found.state is State.TODO
    assert "cryptofeed 2.4.0 (lock: 3.0.1), typing-extensions 4.1 (lock: 4.0)" in found.text
    assert found.todo == "run `make env`"


def test_a_package_that_lacks_is_named():
    assert locked(numpy="2.3.0").text == ".venv lacks cryptofeed"


# --- The system


def test_that_nothing_runs_is_no_fault():
    assert system_finding(None, "", "").state is State.NOTE


def test_a_system_that_is_not_well_is_something_to_look_at():
    assert system_finding("http://x", "ok", "everything works").state is State.OK
    assert system_finding("http://x", "down", "writer: no heartbeat").state is State.TODO
