"""Funding messages become events: every prediction, and each settlement once it has rolled. Pure.

The final rate of a period is the one that the exchange gives after the roll, never the last prediction before it. What
period a settlement ended follows from the messages before the roll; so a settlement is only taken from a roll that was
seen, and the history endpoint fills in the others. An exchange that never pushes a settled rate has all of them there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.grid import EPOCH


@dataclass
class _Last:
    prediction: PredictedFundingRate
    settled: FundingRate | None = None


@dataclass
class FundingTracker:
    """The last message of every symbol."""

    last: dict[str, _Last] = field(default_factory=dict)
    learned: dict[str, datetime] = field(default_factory=dict)
    """The newest settlement that the history gave."""

    def learn(self, settlements: Iterable[FundingRate]) -> None:
        """Note what the history gave, so that the first message does not repeat it with less knowledge."""
        for settled in settlements:
            newest = self.learned.get(settled.symbol, settled.funding_time)
            self.learned[settled.symbol] = max(newest, settled.funding_time)

    def differs(self, settled: FundingRate) -> bool:
        """Return whether the history gives another rate than what was taken after the roll."""
        last = self.last.get(settled.symbol)
        return last is not None and _differs(settled, last.settled)

    def observe(
        self, prediction: PredictedFundingRate, settled: FundingRate | None
    ) -> tuple[list[FundingRate | PredictedFundingRate], datetime | None]:
        """Return the events of one message, and the settlement that was missed, if any (ask the history).

        settled: the last settlement, where the message has it; its period is not known from the message.
        """
        last = self.last.get(prediction.symbol)
        if last is None:
            self.last[prediction.symbol] = _Last(prediction)
            return [prediction], self._before_the_first(settled)
        if prediction.known_time <= last.prediction.known_time:
            return [], None  # a copy, or overtaken by a newer one
        before, last.prediction = last.prediction, prediction
        events: list[FundingRate | PredictedFundingRate] = [prediction]
        rolled = prediction.funding_time > before.funding_time
        if rolled and (settled is None or settled.funding_time != before.funding_time):
            last.settled = None
            return events, before.funding_time
        if settled is not None and (rolled or _differs(settled, last.settled)):
            period = before.interval_hours if rolled else (last.settled.interval_hours if last.settled else None)
            last.settled = msgspec.structs.replace(settled, interval_hours=period)
            events.append(last.settled)
        return events, None

    def _before_the_first(self, settled: FundingRate | None) -> datetime | None:
        """Return the settlement before the first message, unless the history has given it.

        The message does not say what period it ended, and whether its rate was known to us before.
        """
        if settled is None or settled.funding_time <= self.learned.get(settled.symbol, EPOCH):
            return None
        return settled.funding_time


def _differs(settled: FundingRate, before: FundingRate | None) -> bool:
    """Return whether the exchange changed the rate of a settlement that was already published."""
    return (
        before is not None
        and settled.funding_time == before.funding_time
        and settled.funding_rate != before.funding_rate
    )
