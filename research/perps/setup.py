"""Set Qlib up for a dataset of perpetual futures."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import qlib
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from qlib.config import C
from qlib.constant import REG_CN
from qlib.data.cache import H
from qlib.data.data import register_all_wrappers
from qlib.log import get_module_logger
from qlib.workflow.expm import ExpAlreadyExistError, MLflowExperiment, MLflowExpManager

from perps.grid import GridProvider
from perps.operators import register

DEFAULT_EXPERIMENTS = "experiments"

#: What `init` was asked to read → the folder that it stood for, symlinks resolved.
_reading: dict[Path, Path] = {}


class DatasetError(Exception):
    """A path that is no dataset of Qlib's; the message says what to do."""


class Experiments(MLflowExpManager):
    """Qlib's experiments with everything in one folder: `mlflow.db` in it, artifacts below it.

    Qlib and mlflow alone put artifacts into `./mlruns` of whatever folder a process is started in.
    Look at them with `mlflow ui --backend-store-uri sqlite:////absolute/path/experiments/mlflow.db`.
    """

    def __init__(self, folder: str, default_exp_name: str = "perps") -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        _follow_move(self.folder)
        super().__init__(uri=f"sqlite:///{self.folder / 'mlflow.db'}", default_exp_name=default_exp_name)

    def create_exp(self, experiment_name: str | None = None) -> MLflowExperiment:
        """Create an experiment. Raises ExpAlreadyExistError, as Qlib's does."""
        name = experiment_name or self._default_exp_name
        artifacts = (self.folder / "artifacts" / name).as_uri()
        try:
            identity = self.client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise ExpAlreadyExistError(f"experiment {name!r} exists already") from error
            raise
        return MLflowExperiment(identity, name, self.uri)


_LOCATIONS = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
"""Where mlflow keeps absolute addresses of artifacts: table and column."""


def _follow_move(folder: Path) -> None:
    """Let the records name the artifacts where they are now: mlflow keeps absolute paths, and folders are moved."""
    database = folder / "mlflow.db"
    if not database.is_file():
        return
    now = (folder / "artifacts").as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        for before in _roots_before(connection, now):
            for table, column in _LOCATIONS:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 - names of our own
                        (now, len(before) + 1, len(before) + 1, f"{before}/"),
                    )


def _roots_before(connection: sqlite3.Connection, now: str) -> set[str]:
    """Return the addresses of our folder of artifacts that experiments were made with, other than the present one."""
    roots = set()
    for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
        root = str(location).removesuffix(f"/{quote(name)}")
        if root != location and root.endswith("/artifacts"):
            roots.add(root)
    return roots - {now}


def init(
    path: str | Path = "qlib_data",
    *,
    kernels: int = 1,
    experiments: str | Path | None = None,
    **qlib_init: Any,
) -> Path:
    """Set Qlib up for the dataset in a folder; return the folder that is read, symlinks resolved.

    No lots of 100, no price limits, no chatter (`logging_level=logging.INFO` brings it back); experiments are kept in a
    folder, by default `experiments` beside the notebook (the current folder). Calendars are computed where their
    file is the grid, and are those that Qlib would read. `kernels`: processes that compute
    features; more than 1 pays on Linux only, for many symbols. Everything else goes to `qlib.init`. The kit's operators
    for expressions, such as `WithinLife`, are known from then on.

    Raises DatasetError where there is no dataset, and says what to do.
    """
    asked = Path(path).expanduser().absolute()
    check_dataset(asked)
    folder = Path(DEFAULT_EXPERIMENTS if experiments is None else experiments).expanduser().absolute()
    settings: dict[str, Any] = {
        "region": REG_CN,
        "trade_unit": None,
        "limit_threshold": None,
        "logging_level": logging.ERROR,
        "calendar_provider": {"class": "GridCalendarProvider", "module_path": "perps.grid"},
        "provider": GridProvider,
        "exp_manager": {"class": "Experiments", "module_path": "perps.setup", "kwargs": {"folder": str(folder)}},
    }
    settings |= qlib_init
    logging.getLogger("mlflow").setLevel(settings["logging_level"])
    qlib.init(provider_uri=str(asked), kernels=kernels, **settings)
    register()
    # Modules that were imported just now have set their own level.
    get_module_logger.setLevel(settings["logging_level"])
    _reading.clear()
    _reading[asked] = _folder()
    return _folder()


def refresh() -> Path:
    """Make data visible that was written since `init`, without a new kernel; return the folder that is read now.

    Qlib keeps calendars, instruments and values in memory, and resolves a symlink when it is initialised: a reader
    stays on its version of the dataset until it asks for the current one, here. A running experiment goes on.
    After a plain `qlib.init`, which forgets the symlink, only the memory is cleared.
    """
    asked, folder = next(iter(_reading.items()), (None, None))
    if asked is not None and folder == _folder():
        check_dataset(asked)
        C["provider_uri"] = str(asked)
        C.resolve_path()
        register_all_wrappers(C)
        _reading[asked] = _folder()
    H.clear()
    return _folder()


def _folder() -> Path:
    return Path(next(iter(C.provider_uri.values())))


def check_dataset(path: Path) -> None:
    """Raise DatasetError where a path is no dataset of Qlib's."""
    advice = (
        "give the folder that QLIB_DIR names (a running system fills it: `make run`, or `make demo` without internet)"
    )
    if path.is_symlink() and not path.exists():
        raise DatasetError(f"{path} points to {path.readlink()}, which does not exist: {advice}")
    if not path.is_dir():
        raise DatasetError(f"{path} does not exist or is no folder: {advice}")
    missing = [name for name in ("calendars", "instruments", "features") if not (path / name).is_dir()]
    if missing:
        raise DatasetError(f"{path} is no Qlib dataset, it has no {' and no '.join(missing)}: {advice}")
    if not any(file.stat().st_size for file in (path / "calendars").glob("*.txt")):
        raise DatasetError(f"{path} is empty: nothing has been converted yet; wait for the first closed bars")
