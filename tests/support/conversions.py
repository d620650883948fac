"""Raw days for the converter, and what a conversion from nothing makes of them."""

import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from services.converter.convert import convert
from shared.datasets.candle import Candle
from shared.datasets.ledger import LedgerRow
from shared.datasets.row import Row
from shared.symbol import parse_symbol
from tests.support.builders import (
    a_candle,
    a_funding_rate,
    a_prediction,
    minute,
)
from tests.support.provider import tree
from tests.support.simulator import ROOT


def a_ledger_row(symbol: str, day: int = 0, **sets: str) -> LedgerRow:
    """Return what the ledger says of a day, counted from DAY_0."""
    return LedgerRow(exchange="okx", symbol=parse_symbol(symbol), day=minute(day * 1440), **sets)


def some_minutes(symbol: str, numbers: Iterable[int], price: float = 100.0) -> list[Candle]:
    return [a_candle(symbol, minute(number), price + number % 97) for number in numbers]


def rows_of_step(step: tuple[Any, ...], known: int) -> list[Row]:
    """Return the rows that a step of a made-up history brings; none for one that is of no rate and no candle.

    known: grows from step to step, so that later ones correct earlier ones.
    """
    match step:
        case ("candles", symbol, first, count, price):
            numbers = range(first, first + count)
            return [a_candle(symbol, minute(at), price + at / 7, receive_time=minute(known)) for at in numbers]
        case ("funding", symbol, hour, rate):
            return [a_funding_rate(symbol, minute(hour * 60), rate / 1000, known_time=minute(known))]
        case ("prediction", symbol, number, hours):
            due = minute(number) + timedelta(hours=hours)
            return [a_prediction(symbol, hours / 1000, minute(number), funding_time=due, receive_time=minute(known))]
    return []


def rebuilt(raw: Path, folder: Path, until: datetime | None = None) -> dict[str, bytes]:
    """Convert into a fresh folder."""
    convert(raw, folder, until=until)
    return tree(folder)


def started(raw: Path, qlib: Path, *options: str) -> subprocess.Popen[str]:
    """Start the converter as a user does; it converts what is there, then ends."""
    environment = os.environ | {
        "DATA_DIR": str(raw),
        "QLIB_DIR": str(qlib),
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "LOG_FORMAT": "json",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "services.converter", *(options or ("--once",))],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
