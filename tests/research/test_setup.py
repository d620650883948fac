"""Qlib set up for a dataset, and kept up to date with it."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import logging
import os
import subprocess
import sys
from pathlib import Path

import perps
import qlib
from qlib.config import C
from qlib.constant import REG_CN
from qlib.data import D
from qlib.workflow import R
from qlib.workflow.expm import ExpAlreadyExistError

from tests.research.provider import Symbol, bar, write_provider

ROOT = Path(__file__).resolve().parents[2]


def closes() -> list[float]:
    return D.features(["A"], ["$close"], freq="60min")["$close"].tolist()


@pytest.fixture
def versions(tmp_path):
    """Two versions of a dataset, and a symlink to the first."""
    write_provider(tmp_path / "v1", "60min", {"A": Symbol([1, 2, 3])}, 3)
    write_provider(tmp_path / "v2", "60min", {"A": Symbol([10, 20, 30, 40])}, 4)
    link = tmp_path / "qlib_data"
    link.symlink_to("v1")
    return link


def point(link: Path, target: str) -> None:
    (link.parent / "new").symlink_to(target)
    (link.parent / "new").replace(link)


def test_init_reads_the_dataset_without_lots_limits_or_chatter(versions, tmp_path):
    assert perps.init(versions, experiments=tmp_path / "e") == tmp_path / "v1"
    assert closes() == [1, 2, 3]
    assert (C.trade_unit, C.limit_threshold, C.kernels, C.region) == (None, None, 1, REG_CN)
    assert C.logging_level == logging.ERROR


def test_settings_of_qlib_may_be_given(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e", kernels=2, logging_level=logging.INFO)
    assert (C.kernels, C.logging_level) == (2, logging.INFO)


def test_refresh_shows_bars_that_were_written_since(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e")
    assert closes() == [1, 2, 3]
    write_provider(tmp_path / "v1", "60min", {"A": Symbol([1, 2, 3, 4, 5])}, 5)
    assert closes() == [1, 2, 3]
    assert perps.refresh() == tmp_path / "v1"
    assert closes() == [1, 2, 3, 4, 5]


def test_refresh_follows_the_symlink_to_a_new_version(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e")
    assert closes() == [1, 2, 3]
    point(versions, "v2")
    assert closes() == [1, 2, 3]  # a reader stays on its version
    assert perps.refresh() == tmp_path / "v2"
    assert closes() == [10, 20, 30, 40]
    assert len(D.calendar(freq="60min")) == 4


def test_refresh_follows_a_relative_path_after_the_folder_was_changed(versions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    perps.init("qlib_data")
    monkeypatch.chdir("/")
    point(versions, "v2")
    assert perps.refresh() == tmp_path / "v2"
    assert (tmp_path / "experiments").is_dir()


def test_a_running_experiment_survives_a_refresh(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e")
    with R.start(experiment_name="trial"):
        R.log_metrics(before=1.0)
        point(versions, "v2")
        perps.refresh()
        R.log_metrics(after=2.0)
        recorder = R.get_recorder()
    assert recorder.list_metrics() == {"before": 1.0, "after": 2.0}


def test_experiments_are_kept_in_one_folder(versions, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    perps.init(versions, experiments=tmp_path / "e")
    with R.start(experiment_name="trial"):
        R.save_objects(**{"thing.pkl": [1, 2]})
        identity = R.get_recorder().id
    with pytest.raises(ExpAlreadyExistError, match="'trial' exists already"):
        R.exp_manager.create_exp("trial")
    assert (tmp_path / "e" / "mlflow.db").is_file()
    assert list((tmp_path / "e" / "artifacts" / "trial").rglob("thing.pkl"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    perps.init(versions, experiments=tmp_path / "e")
    assert R.get_recorder(recorder_id=identity, experiment_name="trial").load_object("thing.pkl") == [1, 2]


def test_experiments_are_found_and_go_on_after_their_folder_was_moved(versions, tmp_path):
    before, now = tmp_path / "be fore" / "e", tmp_path / "now" / "e"
    perps.init(versions, experiments=before)
    for name in ("trial", "ä 1"):
        with R.start(experiment_name=name):
            R.save_objects(**{"thing.pkl": [1, 2]})
            identity = R.get_recorder().id
    now.parent.mkdir()
    before.rename(now)
    before.parent.rmdir()

    perps.init(versions, experiments=now)

    assert R.get_recorder(recorder_id=identity, experiment_name="ä 1").load_object("thing.pkl") == [1, 2]
    with R.start(experiment_name="trial"):
        R.save_objects(**{"new.pkl": 3})
    assert list((now / "artifacts" / "trial").rglob("new.pkl"))
    assert not before.parent.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist or is no folder"),
        (lambda path: path.mkdir(), "has no calendars and no instruments and no features"),
        (lambda path: path.symlink_to("nowhere"), "points to nowhere, which does not exist"),
        (
            lambda path: [(path / name).mkdir(parents=True) for name in ("calendars", "instruments", "features")],
            "is empty",
        ),
    ],
    ids=["nothing", "empty folder", "dangling link", "nothing converted"],
)
def test_what_is_no_dataset_is_refused_with_advice(tmp_path, make, message):
    make(tmp_path / "qlib_data")
    with pytest.raises(perps.DatasetError, match=message) as caught:
        perps.init(tmp_path / "qlib_data")
    assert "give the folder that QLIB_DIR names" in str(caught.value) or "wait for the first closed bars" in str(
        caught.value
    )


def test_refresh_after_plain_qlib_init_clears_the_memory(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e")
    qlib.init(provider_uri=str(tmp_path / "v2"), region=REG_CN)
    assert closes() == [10, 20, 30, 40]
    write_provider(tmp_path / "v2", "60min", {"A": Symbol([10, 20, 30, 40, 50])}, 5)
    assert perps.refresh() == tmp_path / "v2"
    assert closes() == [10, 20, 30, 40, 50]


def test_a_notebook_sees_no_chatter(versions, tmp_path):
    code = (
        f"import perps; perps.init({str(versions)!r})\n"
        "from qlib.data import D; D.features(['A'], ['$close'], freq='60min')\n"
        "perps.backtest(perps.FundingCarry(topk=1), '2026-01-01 01:00', freq='60min')\n"
        "from qlib.workflow import R\n"
        "with R.start(experiment_name='trial'): R.log_metrics(sharpe=1.0)"
    )
    # Qlib asks git for the changes that were not committed, and where there is no repository git complains.
    subprocess.run(["git", "init", "-q"], check=True, cwd=tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "research"), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout + done.stderr == ""


def test_the_dataset_of_the_test_is_the_one_that_is_read(versions, tmp_path):
    perps.init(versions, experiments=tmp_path / "e")
    assert D.calendar(freq="60min")[0] == bar(0)
