"""The channel of funding rates: predicted ones as they come, settled ones complete."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.collector.channels.channel import Surroundings
from services.collector.channels.funding_intake import FundingIntake
from services.collector.channels.settlements import Settlements
from services.collector.tracking.universe import Tracker
from shared.datasets.channel import Channel
from shared.datasets.funding import FundingRate
from shared.datasets.registry import AnyEvent
from shared.symbol import Symbol


class Funding:
    """The channel at work. Counted are the settlements; what was predicted cannot be asked for again."""

    def __init__(self, channel: Channel, around: Surroundings) -> None:
        self.channel = channel
        self.tracker = Tracker(around.reach, around.ledger, FundingRate.dataset)
        self._clock = around.service.clock
        self._intake = FundingIntake(self.tracker, around.publisher.append, around.service.set_aside)
        self._settlements = Settlements(around, self.tracker, self._intake)
        self.take, self.run = self._intake.take, self._settlements.run

    def ask_since(self, symbol: Symbol, begin: datetime) -> None:
        """Ask the history of a symbol: whoever left candles behind may have left settlements, too."""
        self._settlements.ask_since(symbol, begin)

    def forget(self, event: AnyEvent) -> None:
        """Count a settlement as missing again: it was dropped from a full buffer."""
        if isinstance(event, FundingRate):
            self.tracker.forget(event.symbol, event.funding_time)

    def report(self) -> Mapping[str, Any]:
        """Return whose rates are suspicious."""
        return {"flagged_rates": self._intake.flagged(self._clock.now())}
