"""Dataset `ledger`: what is known about every minute, and the verdicts of the collector that change it."""

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from shared.datasets.row import Row
from shared.symbol import Symbol

Finding = Literal["wanted", "absent", "halted", "refused", "due"]


class LedgerRow(Row, frozen=True, kw_only=True):
    """What is known about every minute of one symbol and UTC day; see `shared.ledger.day` for what the sets mean.

    Each set is spelled as inclusive runs of the minutes of the day: "0-99,101-1439". The writer alone writes it.
    """

    dataset = "ledger"
    file_stem = "ledger"
    key = ("exchange", "day", "symbol")
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
    settled: str = ""
    version: str = ""
    """Signature of the candle file that `received` and `healed` were read from."""
    refused: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the collector found out about the minutes of [begin, end) of some symbols; the ledger keeps it.

    wanted: they were to be collected. absent: the exchange has no such candle, asked well after the minute. halted:
    it has none since it, or the instrument, stood still. due: funding was settled at `begin`.
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
