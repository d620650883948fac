"""Raw Parquet beside the dataset, as the writer keeps it: one folder a UTC day. For what Qlib has no place for."""

import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_DAY = "date="
_MAY_LACK = {"interval_hours"}
"""What older files may be without: it is not known then."""
_CURE = (
    "move it out of its folder: a running writer puts aside a damaged file by itself when it next works on that day, "
    "and what is missing is fetched again"
)


class BadFileError(ValueError):
    """A file of a day cannot be read, or holds rows that cannot be believed."""


def day_files(data: str | Path | None, dataset: str, stem: str, what: str) -> dict[date, Path]:
    """Return the file of each day of a dataset: `date=2025-04-05/{stem}_20250405.parquet`, and no other.

    data: the collector's DATA_DIR; by default the environment's DATA_DIR, or `okx_data`. what: is looked for, for the
    message. Raises `FileNotFoundError` where there is none.
    """
    if not isinstance(data, str | Path | None):
        raise ValueError(f"data is {data!r}: it must be the collector's DATA_DIR, such as okx_data")  # noqa: TRY004 - as for other values
    folder = Path(data or os.environ.get("DATA_DIR", "okx_data")).expanduser() / dataset
    named = {day: path / f"{stem}_{day:%Y%m%d}.parquet" for path in folder.glob(f"{_DAY}*") if (day := _day(path.name))}
    files = {day: file for day, file in named.items() if file.exists()}
    if not files:
        raise FileNotFoundError(f"{folder}: no {what} there; `data` is the collector's DATA_DIR, such as okx_data")
    return files


def read_days(
    files: Mapping[date, Path], columns: Sequence[str], times: Sequence[str], identity: Sequence[str]
) -> pd.DataFrame:
    """Return some columns of the files of days; times are UTC without a zone, as Qlib's are.

    times: columns that hold times, first the one that says to which day a row belongs. identity: no two rows have the
    same values in all of these.

    Raises `BadFileError`, with the name of the file, where one cannot be read, or has a row of another day than its
    own, or two rows of one identity.
    """
    parts = []
    for day, path in sorted(files.items()):
        part = _read(path, list(dict.fromkeys([*columns, *identity])), times)
        _check(part, day, path, times[0], list(identity))
        parts.append(part[list(columns)])
    if parts:
        return pd.concat(parts, ignore_index=True)
    nothing = pd.DataFrame(columns=list(columns))
    return nothing.astype(dict.fromkeys(times, "datetime64[us]"))


def _day(name: str) -> date | None:
    """Return the day of a folder; None where it is not spelt as the writer does, or does not exist."""
    try:
        day = date.fromisoformat(name.removeprefix(_DAY))
    except ValueError:
        return None
    return day if name == f"{_DAY}{day}" else None


def _read(path: Path, columns: list[str], times: Sequence[str]) -> pd.DataFrame:
    try:
        found = _table(path, columns).to_pandas().reindex(columns=columns)
        for name in times:
            found[name] = pd.to_datetime(found[name], utc=True).dt.tz_localize(None)
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        raise BadFileError(f"{path}: the file cannot be read ({error}); {_CURE}") from error
    return found


def _table(path: Path, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        lacking = set(columns) - set(there) - _MAY_LACK
        if lacking:
            raise ValueError(f"it has no column {', '.join(sorted(lacking))}")
        return file.read(columns=there)


def _check(found: pd.DataFrame, day: date, path: Path, time: str, identity: list[str]) -> None:
    foreign = found.loc[found[time].dt.date != day, time]
    if len(foreign):
        raise BadFileError(
            f"{path}: {len(foreign)} of its rows are not of {day}, such as one of {foreign.iloc[0]}; {_CURE}"
        )
    twice = found[found.duplicated(identity)]
    if len(twice):
        first = ", ".join(f"{name} {twice.iloc[0][name]}" for name in identity)
        raise BadFileError(f"{path}: {len(twice)} of its rows are there twice, such as {first}; {_CURE}")


def utc(instant: str | date | pd.Timestamp) -> pd.Timestamp:
    """Return an instant as UTC without a zone; one without a zone is UTC already."""
    given = pd.Timestamp(instant)
    return given if given.tz is None else given.tz_convert("UTC").tz_localize(None)
