"""Raw days for the converter, and what a conversion from nothing makes of them."""

import os
import subprocess
import sys

from services.converter.convert import convert
from shared.datasets.ledger import LedgerRow
from tests.support.builders import (
    a_candle,
    minute,
)
from tests.support.provider import tree
from tests.support.simulator import ROOT


def a_ledger_row(symbol, day=0, **sets):
    """Return what the ledger says of a day, counted from DAY_0."""
    return LedgerRow(exchange="okx", symbol=symbol, day=minute(day * 1440), **sets)


def some_minutes(symbol, numbers, price=100.0):
    return [a_candle(symbol, minute(number), price + number % 97) for number in numbers]


def rebuilt(raw, folder, until=None):
    """Convert into a fresh folder."""
    convert(raw, folder, until=until)
    return tree(folder)


def started(raw, qlib, *options):
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
