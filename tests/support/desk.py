"""Both intakes of the collector on a clock that says it is one minute past noon, fed with rows as OKX spells them."""

import time
from datetime import UTC, datetime
from typing import Any

from services.collector.channels.candles import CandleIntake
from services.collector.channels.funding_intake import FundingIntake
from services.collector.stream.connection import Row
from services.collector.tracking.instrument import TrackedInstrument
from services.collector.tracking.requests import Request
from services.collector.tracking.universe import Reach, Tracker
from shared.clock import ExchangeClock, Sample
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import Page
from shared.exchanges.okx.candles import candles_of
from shared.exchanges.okx.funding import funding_of
from shared.exchanges.okx.names import symbol_of
from shared.ledger.replica import LedgerCopy
from shared.symbol import Symbol
from tests.support.builders import a_ranking, minute

NOON = minute(720)
BTC = "BTC-USDT-SWAP"


class Desk:
    """The intakes of BTC and ETH, and what came out of them."""

    def __init__(self) -> None:
        self.clock = ExchangeClock()
        here = time.monotonic()
        for ago in (1.0, 0.0):
            self.clock.add(Sample(here - ago, here - ago, minute(721).timestamp() - ago))
        self.ledger = LedgerCopy(exchange="okx")
        self.tracker = Tracker(Reach(1), self.ledger)
        self.settlements = Tracker(Reach(1), self.ledger, FundingRate.dataset)
        for tracker in (self.tracker, self.settlements):
            tracker.apply(a_ranking("BTC_USDT", "ETH_USDT", ranked_time=NOON), NOON, {})
        self.events: list[AnyEvent] = []
        self.asides: list[tuple[str, object, str]] = []
        self.candles = CandleIntake(self.tracker, self.clock, self.events.append, self._set_aside)
        self.funding = FundingIntake(self.settlements, self.events.append, self._set_aside)

    def _set_aside(self, origin: str, payload: object, error: str) -> None:
        self.asides.append((origin, payload, error))

    @property
    def btc(self) -> TrackedInstrument:
        """What is known of BTC."""
        return self.tracker.symbols[Symbol("BTC_USDT")]

    def live_candle(self, inst_id: str, row: object) -> None:
        """Take a candle row of the stream."""
        page = candles_of(inst_id, [row], source="ws", **self._now())
        self.candles.take(Row(symbol_of(inst_id), Page(*page), {"instId": inst_id, "row": row}))

    def live_funding(self, inst_id: str, row: object) -> None:
        """Take a funding row of the stream."""
        page = funding_of(inst_id, row, source="ws", **self._now())
        self.funding.take(Row(symbol_of(inst_id), Page(*page), {"instId": inst_id, "row": row}))

    def history(self, request: Request, rows: list[object]) -> list[Candle]:
        """Take a page of history of BTC."""
        page: Page[Candle] = candles_of(BTC, rows, source="rest", **self._now())
        return self.candles.history(request, page)

    def _now(self) -> dict[str, Any]:
        return {"receive_time": datetime.now(UTC), "exchange_now": self.clock.latest()}
