"""Every benchmark hands its figures over, each with the command that repeats it; one that fails stops no other."""

import inspect
import sys
from importlib import import_module

import pytest
import typer

from proofs.bench import __main__ as command
from proofs.bench.document import Outcome
from proofs.bench.figure import Beside, Figure
from proofs.bench.runner import BENCHMARKS, chosen, outcome_of


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("full", [False, True])
def test_what_a_benchmark_is_called_with_is_what_its_own_command_takes(name, full):
    module, options = import_module(f"proofs.bench.{name}"), chosen([name], full=full)[name]

    inspect.signature(module.figures).bind(**options)
    app = typer.Typer()
    app.command()(module.main)
    its_own = {one.name for one in typer.main.get_command(app).params}
    assert set(options) <= its_own


def test_a_small_run_leaves_out_what_takes_minutes_unless_it_is_named():
    assert set(BENCHMARKS) - set(chosen([], full=False)) == {"writes", "load", "soak"}
    assert set(chosen([], full=True)) == set(BENCHMARKS)
    assert list(chosen(["soak"], full=False)) == ["soak"]


def test_a_benchmark_runs_in_a_process_of_its_own_and_hands_figures_over():
    outcome = outcome_of("sweep", {"symbols": [3], "days": [1, 2], "minutes": 1})

    assert outcome.failure is None
    assert outcome.command == "python -m proofs.bench.sweep --symbols 3 --days 1 --days 2 --minutes 1"
    assert [one.unit for one in outcome.figures] == ["of a core", "ms of CPU at most"]
    assert all(isinstance(one.floor, Beside) and one.ours > 0 for one in outcome.figures)


def test_a_benchmark_that_fails_says_why():
    outcome = outcome_of("sweep", {"symbols": [3], "days": [], "minutes": 1})

    assert not outcome.figures
    assert outcome.failure
    assert outcome.failure.startswith("ValueError: ")


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Return how the command ends, and what it prints, where `drain` fails and all others have a figure."""

    def a_run(name, options):
        figures = [Figure(f"work of {name}", 1.0, "s")]
        return Outcome(name, "again", 1.0, *([[], "it is broken"] if name == "drain" else [figures]))

    monkeypatch.setattr(command, "outcome_of", a_run)
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.run(command.main)
    return ended.value.code, capsys.readouterr().out


def test_one_that_fails_lets_the_others_go_on_and_the_run_end_with_1(monkeypatch, capsys, tmp_path):
    page = tmp_path / "performance.md"

    code, said = run(monkeypatch, capsys, "--page", str(page))

    assert code == 1
    assert "drain: not measured: it is broken" in said
    assert "| drain | not measured: it is broken |" in page.read_text()
    for name in chosen([], full=False):
        assert f"] {name}\n" in said
        assert name == "drain" or f"| work of {name} | 1.00 s |" in page.read_text()


def test_some_that_are_named_are_printed_and_written_nowhere(monkeypatch, capsys):
    monkeypatch.setattr(command, "PAGE", None)

    code, said = run(monkeypatch, capsys, "frames", "ledger")

    assert code == 0
    assert "work of frames" in said
    assert "work of ledger" in said
    assert "written" not in said


def test_a_name_that_there_is_not_is_wrong_usage(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "nope")

    assert code == 2
    assert "[1/" not in said
