"""The shipped workflows and the notebook, run as a user runs them."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import nbformat
import perps
from nbclient import NotebookClient
from perps.risk import bars_per_year
from qlib.cli.run import render_template
from qlib.cli.run import workflow as qrun
from qlib.data import D
from qlib.utils import get_callable_kwargs
from qlib.workflow import R
from ruamel.yaml import YAML

from tests.research.market_folder import Market, write_folder

ROOT = Path(__file__).resolve().parents[2]
RESEARCH = ROOT / "research"
FREQUENCIES = ["day", "60min"]
#: Enough days for the daily workflow to learn from, and few enough bars for the hourly one to be quick.
MARKETS = {"day": Market(symbols=10, days=80), "60min": Market(symbols=8, days=16)}


def workflow(freq):
    return YAML(typ="safe", pure=True).load(render_template(str(RESEARCH / "workflows" / f"{freq}.yaml")))


def parts(config):
    """Yield every class that a workflow names, with its arguments."""
    if isinstance(config, dict):
        if "class" in config and "module_path" in config:
            yield config
        for value in config.values():
            yield from parts(value)
    if isinstance(config, list):
        for value in config:
            yield from parts(value)


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """Give one folder for all runs: mlflow takes seconds to make its tables."""
    return tmp_path_factory.mktemp("workflows") / "experiments"


def run_by_command(freq, folder, experiments):
    command = [Path(sys.executable).with_name("qrun"), RESEARCH / "workflows" / f"{freq}.yaml"]
    environment = {name: value for name, value in os.environ.items() if name not in {"QLIB_DIR", "PYTHONPATH"}}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"EXPERIMENTS_DIR": str(experiments)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_what_was_kept(freq, folder, experiments):
    perps.init(folder / "qlib_data", experiments=experiments)
    (recorder,) = R.list_recorders(experiment_name=f"perps-{freq}").values()
    assert recorder.status == recorder.STATUS_FI
    kept = recorder.list_artifacts("portfolio_analysis") + recorder.list_artifacts("sig_analysis")
    assert {"portfolio_analysis/report.png", "portfolio_analysis/risk.pkl", "sig_analysis/ic.pkl"} <= set(kept)
    shown = recorder.list_metrics()
    assert {"IC", "Rank IC", "net.annualized_return", "pnl.funding", "pnl.price", "pnl.fee"} <= set(shown)
    ledger, scores = (recorder.load_object(name) for name in ("portfolio_analysis/ledger.pkl", "pred.pkl"))
    assert len(ledger) == pytest.approx(0.2 * len(D.calendar(freq=freq)), abs=1)
    assert ledger["turnover"].sum() > 0
    assert ledger["funding"].ne(0).any()
    step = ledger.index[1] - ledger.index[0]
    assert scores.index.get_level_values("datetime").min() == ledger.index[0] - step


def test_the_daily_workflow_runs_by_the_command_qrun(tmp_path, experiments):
    """From the data to the report; what is kept is read back."""
    write_folder(tmp_path / "qlib_data", MARKETS["day"])

    run_by_command("day", tmp_path, experiments)

    check_what_was_kept("day", tmp_path, experiments)


@pytest.mark.proof
def test_the_hourly_workflow_runs_by_what_the_command_calls(tmp_path, experiments, monkeypatch):
    """The same in this process, which has Qlib imported already."""
    write_folder(tmp_path / "qlib_data", MARKETS["60min"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPERIMENTS_DIR", str(experiments))
    monkeypatch.delenv("QLIB_DIR", raising=False)

    qrun(str(RESEARCH / "workflows" / "60min.yaml"))

    check_what_was_kept("60min", tmp_path, experiments)


@pytest.mark.parametrize("freq", FREQUENCIES)
def test_a_workflow_has_one_frequency_a_gap_for_its_label_and_a_year_of_365_days(freq):
    config = workflow(freq)

    frequencies = {part["kwargs"]["freq"] for part in parts(config) if "freq" in part.get("kwargs", {})}
    arguments = {part["class"]: part.get("kwargs", {}) for part in parts(config)}
    horizon = arguments["FundingAlpha158"]["horizon"]
    assert frequencies == {freq}
    assert arguments["SigAnaRecord"]["ann_scaler"] * horizon == bars_per_year(freq)
    assert arguments["CalendarDataset"]["gap"] == horizon + 1
    assert config["sys"] == {"rel_path": [".."]}


@pytest.mark.parametrize("freq", FREQUENCIES)
def test_a_workflow_gives_its_classes_only_what_they_take(freq):
    found = list(parts(workflow(freq)))

    assert {"FundingAlpha158", "CalendarDataset", "PerpAnaRecord", "LongShortTopK", "Experiments"} <= {
        part["class"] for part in found
    }
    for part in found:
        kind, arguments = get_callable_kwargs(part)
        known = inspect.signature(kind.__init__).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        assert takes_all or set(arguments) <= set(known), part["class"]


def test_a_workflow_takes_settings_from_the_environment(monkeypatch):
    settings = {
        "QLIB_DIR": "/elsewhere",
        "MARKET": "all",
        "TOPK": "7",
        "BENCHMARK": "BTC_USDT",
        "EXPERIMENTS_DIR": "/kept",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    config = workflow("day")

    arguments = {part["class"]: part.get("kwargs", {}) for part in parts(config)}
    assert config["qlib_init"]["provider_uri"] == "/elsewhere"
    assert arguments["FundingAlpha158"]["instruments"] == "all"
    assert arguments["LongShortTopK"]["topk"] == 7
    assert arguments["PerpAnaRecord"]["benchmark"] == "BTC_USDT"
    assert arguments["Experiments"]["folder"] == "/kept"


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads((RESEARCH / "from_data_to_backtest.ipynb").read_text())

    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.proof
def test_the_notebook_goes_from_data_to_a_backtest(tmp_path, experiments, monkeypatch):
    """Every cell, in a kernel of its own."""
    write_folder(tmp_path / "qlib_data", MARKETS["60min"])
    monkeypatch.setenv("QLIB_DIR", str(tmp_path / "qlib_data"))
    monkeypatch.setenv("EXPERIMENTS_DIR", str(experiments))
    monkeypatch.setenv("PYTHONPATH", str(RESEARCH))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(RESEARCH / "from_data_to_backtest.ipynb", as_version=4)

    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    perps.init(tmp_path / "qlib_data", experiments=experiments)
    assert "notebook" in R.list_experiments()
