"""Dataset `trades`: what was dealt; and the declaration of its channel."""

from datetime import datetime

from shared.datasets.channel import Channel, Sequence
from shared.datasets.row import Event, Source


class Trade(Event, frozen=True, kw_only=True):
    """One trade. The numbers of a symbol leave none out."""

    stream = "trades"
    name = "trade"
    dataset = "trades"
    key = ("exchange", "symbol", "trade_id")
    time = "trade_time"
    newest = "receive_time"

    trade_time: datetime
    trade_id: int
    price: float
    source: Source
    receive_time: datetime


TRADES = Channel(
    name="trades",
    events={Trade: Sequence("trade_id")},
    collector="tests.support.other_channel.channel:Trades",
    cap=200_000,
    stale_seconds=600.0,
    letters=(),
)
