"""Raw Parquet beside the dataset, as the writer keeps it: one folder a UTC day. For what Qlib has no place for."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

_DAY = "date="


def day_folders(data: str | Path | None, dataset: str, what: str) -> dict[date, Path]:
    """Return the folder of each day of a dataset.

    data: the collector's DATA_DIR; by default the environment's DATA_DIR, or `okx_data`. what: is looked for, for the
    message. Raises `FileNotFoundError` where there is none.
    """
    folder = Path(data or os.environ.get("DATA_DIR", "okx_data")).expanduser() / dataset
    days = {date.fromisoformat(path.name.removeprefix(_DAY)): path for path in folder.glob(f"{_DAY}*")}
    if not days:
        raise FileNotFoundError(f"{folder}: no {what} there; `data` is the collector's DATA_DIR, such as okx_data")
    return days


def read_days(folders: Sequence[Path], stem: str, columns: Sequence[str], times: Sequence[str]) -> pd.DataFrame:
    """Return some columns of all files whose names begin with a stem; times are UTC without a zone, as Qlib's are."""
    files = [path for folder in folders for path in sorted(folder.glob(f"{stem}_*.parquet"))]
    parts = [pq.read_table(path, columns=list(columns), partitioning=None).to_pandas() for path in files]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
    for name in times:
        found[name] = pd.to_datetime(found[name], utc=True).dt.tz_localize(None)
    return found


def utc(instant: str | date | pd.Timestamp) -> pd.Timestamp:
    """Return an instant as UTC without a zone; one without a zone is UTC already."""
    given = pd.Timestamp(instant)
    return given if given.tz is None else given.tz_convert("UTC").tz_localize(None)
