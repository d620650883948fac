"""What time is it at OKX? Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.exchanges.base import RowError
from shared.exchanges.okx.values import Text, read_row, time_if_any, time_of


class _TimeRow(msgspec.Struct):
    ts: Text


def exchange_time_of(rows: Sequence[object]) -> datetime:
    """Read the answer of /public/time. Raises `RowError`."""
    if not rows:
        raise RowError("ts: the answer holds no row")
    return time_of(read_row(rows[0], _TimeRow).ts, "ts")


def newest_time_of(rows: Sequence[object]) -> datetime | None:
    """Return when the rows of the funding list were made: the middle of their `ts`, which no single row can move."""
    times = sorted(at for row in rows if isinstance(row, dict) and (at := time_if_any(row.get("ts"))) is not None)
    return times[len(times) // 2] if times else None
