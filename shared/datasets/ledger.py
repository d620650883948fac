"""Dataset `ledger`: what is known about every minute of the others, and the verdicts that change it."""

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from shared.datasets.row import Row
from shared.symbol import Symbol

Finding = Literal["wanted", "absent", "halted", "refused", "due"]

CANDLES = "kline_1m"
"""The dataset that rows and verdicts of before there were others are about."""


class LedgerRow(Row, frozen=True, kw_only=True):
    """What is known about a dataset's minutes of one symbol and UTC day; `shared.ledger.day` says what the sets mean.

    Each set is spelled as inclusive runs of the minutes of the day: "0-99,101-1439". The writer alone writes it.
    """

    dataset = "ledger"
    file_stem = "ledger"
    key = ("exchange", "about", "day", "symbol")
    time = "day"
    newest = "version"
    on_grid = True

    day: datetime
    wanted: str = ""
    received: str = ""
    healed: str = ""
    absent: str = ""
    halted: str = ""
    due: str = ""
    """Of files before there was `about`: when funding was settled. Now these are `wanted` about `funding`."""
    settled: str = ""
    """Of the same files: whose settled rate is stored. Now these are `received` or `healed` about `funding`."""
    version: str = ""
    """Signature of the file that `received` and `healed` were read from; empty where many symbols share it."""
    refused: str = ""
    about: str = CANDLES
    """The dataset whose rows are counted."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the collector found out about the minutes of [begin, end) of some symbols; the ledger keeps it.

    wanted: they were to be collected. absent: the exchange has no such row, asked well after the minute. halted: it has
    none since it, or the instrument, stood still. refused: it has one that cannot be true. due, of collectors before
    there was `about`: wanted, about `funding`.
    """

    stream: ClassVar[str] = "ledger"
    name: ClassVar[str] = "verdict"

    exchange: str
    verdict: Finding
    symbols: tuple[Symbol, ...]
    begin: datetime
    end: datetime
    known_time: datetime
    """The exchange's clock."""
    about: str = CANDLES
    """The dataset whose rows are judged."""
