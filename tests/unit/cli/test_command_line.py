"""The list of commands: complete, quick, and honest about what is missing."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cli import lazy
from cli.__main__ import Commands, main
from cli.docs.env_example import example
from cli.lazy import Lazy
from cli.place import ROOT
from cli.settings import CommandSettings
from cli.simulated import use_stack
from cli.stack.stack import _as_file
from cli.unavailable import NotAvailableError, UsageProblemError
from services.api.settings import ApiSettings
from shared.runtime.settings import values_in_file

COMMAND = Path(sysconfig.get_path("scripts")) / "qlib-crypto"
HEAVY = {"aiohttp", "apprise", "cryptofeed", "numpy", "polars", "psutil", "pyarrow", "pydantic", "redis", "supervisor"}


def run(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [str(COMMAND), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("one", Commands.lazy, ids=lambda one: one.name)
def test_every_command_is_there_and_describes_itself(one):
    command = one.load()

    assert (command.help or "").strip()
    assert (command.callback is None) == hasattr(command, "commands")


def test_help_lists_every_command_and_the_exit_codes():
    said = run("--help", COLUMNS="100")

    assert said.returncode == 0
    for one in Commands.lazy:
        assert f" {one.name} " in said.stdout
    text = " ".join(said.stdout.split())
    for meaning in ("0 fine", "1 a finding", "2 wrong usage", "3 not available"):
        assert meaning in text


def test_help_and_completion_import_nothing_heavy():
    """What takes a second to import is imported by the command that needs it."""
    code = (
        "import sys\nfrom cli.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_shell_completes_commands_and_their_verbs():
    first = run(_QLIB_CRYPTO_COMPLETE="complete_bash", COMP_WORDS="qlib-crypto d", COMP_CWORD="1")
    second = run(_QLIB_CRYPTO_COMPLETE="complete_bash", COMP_WORDS="qlib-crypto docs f", COMP_CWORD="2")

    assert first.stdout.split() == ["demo", "doctor", "dead-letters", "dataset", "docs"]
    assert second.stdout.split() == ["fields"]


def test_python_m_cli_is_the_same():
    done = subprocess.run([sys.executable, "-m", "cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == run("--help").stdout


def test_a_wrong_command_or_option_is_wrong_usage():
    wrong = run("stauts")

    assert (wrong.returncode, run("gaps", "--limit", "0").returncode, run().returncode) == (2, 2, 2)
    assert "status" in wrong.stderr


def test_a_wrong_setting_is_wrong_usage():
    wrong = run("status", API_PORT="many")

    assert wrong.returncode == 2
    assert wrong.stderr.startswith("wrong setting: API_PORT='many'")


def test_doctor_names_every_wrong_setting_once_and_stops_there():
    said = run("doctor", API_PORT="many", LOG_LEVEL="loud")

    assert said.returncode == 1
    assert said.stdout.count("API_PORT='many'") == said.stdout.count("LOG_LEVEL='LOUD'") == 1
    assert "the other checks need settings that can be read" in said.stdout


def test_the_port_of_the_api_is_the_one_that_the_api_has():
    """An image of another service has no code of the api's, so its port is declared for the commands as well."""
    here, there = CommandSettings.model_fields["api_port"], ApiSettings.model_fields["api_port"]

    assert (here.default, here.description, here.metadata) == (there.default, there.description, there.metadata)


def test_a_command_works_from_the_checkout_wherever_it_is_called(tmp_path):
    here = run("docs", "env-example", cwd=tmp_path)

    assert here.stdout == example()


def test_a_command_whose_code_is_missing_says_where_it_is(monkeypatch):
    """As in an image, which holds the code of one service."""
    monkeypatch.setattr(lazy, "in_checkout", lambda: False)
    monkeypatch.setenv("SERVICE", "writer")

    with pytest.raises(NotAvailableError, match="is not part of the image of the service writer, it needs a checkout"):
        Lazy("dataset", "services.nothing:app", "", "").load()


def test_what_is_not_available_ends_with_3_and_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(Commands, "lazy", (Lazy("x", "services.nothing:app", "", ""),))

    with pytest.raises(SystemExit) as ended:
        main(["x"])

    assert ended.value.code == 3
    assert "make env" in capsys.readouterr().err


def test_settings_of_a_simulated_stack_are_read_back_as_they_were(tmp_path):
    settings = {"DATA_DIR": "/it's a \\ folder/100 % #1", "REDIS_URL": "redis://x/0"}
    (tmp_path / "settings.env").write_text(_as_file(settings))

    assert values_in_file(tmp_path / "settings.env") == settings


def test_of_a_simulated_stack_only_its_own_settings_count(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "settings.env").write_text(_as_file({"QLIB_DIR": "/q"}))
    monkeypatch.setattr("cli.place._chosen", [])
    for name, value in {"QLIB_DIR": "/mine", "DATA_DIR": "/mine"}.items():
        monkeypatch.setenv(name, value)

    use_stack("demo", tmp_path)

    assert (os.environ["QLIB_DIR"], os.environ.get("DATA_DIR")) == ("/q", None)
    with pytest.raises(UsageProblemError, match="those that have: demo"):
        use_stack("replay", tmp_path)
