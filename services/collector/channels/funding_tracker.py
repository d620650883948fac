"""Funding messages → events: every prediction, and each settlement once it has rolled. Pure.

The final rate of a period is `settFundingRate` after the roll, never the last prediction before it. What period a
settlement ended is told by the messages before the roll; so a settlement is only taken from a roll that was seen, and
the history endpoint fills in the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.row import Source
from shared.exchanges.registry import predicted_of, settled_of
from shared.grid import EPOCH


@dataclass
class _Known:
    prediction: PredictedFundingRate
    settled: FundingRate | None = None


@dataclass
class FundingTracker:
    """What was heard last of every symbol."""

    known: dict[str, _Known] = field(default_factory=dict)
    learned: dict[str, datetime] = field(default_factory=dict)
    """The newest settlement that the history gave."""

    def learn(self, settlements: Iterable[FundingRate]) -> None:
        """Note what the history gave, so that the first message does not tell it again with less knowledge."""
        for settled in settlements:
            newest = self.learned.get(settled.symbol, settled.funding_time)
            self.learned[settled.symbol] = max(newest, settled.funding_time)

    def differs(self, settled: FundingRate) -> bool:
        """Return whether the history gives another rate than what was taken after the roll."""
        known = self.known.get(settled.symbol)
        return known is not None and _differs(settled, known.settled)

    def hear(
        self, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime
    ) -> tuple[list[FundingRate | PredictedFundingRate], datetime | None]:
        """Return the events of one funding row, and the settlement that was missed, if any (ask the history).

        Raises `SpellingError` where the row makes no sense.
        """
        prediction = predicted_of(row, source=source, receive_time=receive_time, exchange_now=exchange_now)
        known = self.known.get(prediction.symbol)
        if known is None:
            self.known[prediction.symbol] = _Known(prediction)
            return [prediction, *self._before_the_first(row, source, receive_time, exchange_now)], None
        if prediction.known_time <= known.prediction.known_time:
            return [], None  # a copy, or overtaken by a newer one
        before, known.prediction = known.prediction, prediction
        events: list[FundingRate | PredictedFundingRate] = [prediction]
        rolled = prediction.funding_time > before.funding_time
        period = before.interval_hours if rolled else (known.settled.interval_hours if known.settled else None)
        settled = settled_of(
            row, period_hours=period, source=source, receive_time=receive_time, exchange_now=exchange_now
        )
        if rolled and (settled is None or settled.funding_time != before.funding_time):
            known.settled = None
            return events, before.funding_time
        if settled is not None and (rolled or _differs(settled, known.settled)):
            known.settled = settled
            events.append(settled)
        return events, None

    def _before_the_first(
        self, row: object, source: Source, receive_time: datetime, exchange_now: datetime
    ) -> list[FundingRate]:
        """Return the settlement before the first message, where it is so fresh that the history lacks it still."""
        settled = settled_of(
            row, period_hours=None, source=source, receive_time=receive_time, exchange_now=exchange_now
        )
        if settled is None or settled.funding_time <= self.learned.get(settled.symbol, EPOCH):
            return []
        return [settled]


def _differs(settled: FundingRate, before: FundingRate | None) -> bool:
    """Return whether the exchange changed the rate of a settlement that was already handed on."""
    return (
        before is not None
        and settled.funding_time == before.funding_time
        and settled.funding_rate != before.funding_rate
    )
