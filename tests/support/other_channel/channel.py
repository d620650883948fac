"""The collector's part of the channel: numbered rows, healed by the exchange's own answer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.collector.channels.backfill import Backfill
from services.collector.channels.channel import Surroundings
from services.collector.channels.sequence import SequenceIntake
from services.collector.tracking.requests import Request
from services.collector.tracking.universe import Tracker
from shared.datasets.channel import Channel
from shared.exchanges.base import Page
from shared.symbol import Symbol
from tests.support.other_channel.trade import Trade
from tests.support.other_exchange.client import OtherClient


class Trades:
    """An `OpenedChannel` (`services.collector.channels.channel`)."""

    def __init__(self, channel: Channel, around: Surroundings) -> None:
        service = around.service
        assert isinstance(service.exchange, OtherClient)
        self.channel = channel
        self._exchange: OtherClient = service.exchange
        self.tracker = Tracker(around.reach, around.ledger, Trade.dataset)
        self._intake = SequenceIntake(Trade, self.tracker, around.publisher.append, service.set_aside)
        self._backfill: Backfill = Backfill(channel, around, self.tracker, self)
        self.take, self.forget, self.run = self._intake.take, self._intake.forget, self._backfill.run
        self.history, self.published = self._intake.history, self._intake.published

    async def fetch(self, request: Request) -> Page[Trade]:
        return await self._exchange.trades(request.symbol, request.gap.begin, request.gap.end)

    def ask_since(self, symbol: Symbol, begin: datetime) -> None:
        """Do nothing: its own ledger says what lacks."""

    def report(self) -> Mapping[str, Any]:
        return {"missing_trade_minutes": self._backfill.missing}
