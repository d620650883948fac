"""Dataset `kline_1m`: closed 1-minute candles."""

from datetime import datetime
from types import MappingProxyType

from shared.datasets.row import AMOUNT, POSITIVE, Event, Source


class Candle(Event, frozen=True, kw_only=True):
    """One closed candle. `open_time` is the start of the interval and its identity."""

    stream = "candles"
    name = "candle"
    dataset = "kline_1m"
    key = ("exchange", "symbol", "interval", "open_time")
    time = "open_time"
    newest = "receive_time"
    on_grid = True
    converted = True
    retired = True
    bounds = MappingProxyType(
        dict.fromkeys(("open", "high", "low", "close"), POSITIVE)
        | dict.fromkeys(("volume", "amount", "contracts"), AMOUNT)
    )

    interval: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    """In the base coin."""
    amount: float
    """In the quote currency."""
    contracts: float
    source: Source
    receive_time: datetime
    """Our clock when it arrived."""
