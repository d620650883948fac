"""Datasets `funding` and `funding_predicted`: settled and predicted funding rates."""

from datetime import datetime
from types import MappingProxyType

from shared.datasets.row import PERIOD, RATE, Event, Source


class FundingRate(Event, frozen=True, kw_only=True):
    """A settled funding rate: what was exchanged at `funding_time`. Positive: longs pay."""

    stream = "funding"
    name = "funding_rate"
    dataset = "funding"
    file_stem = "funding_rates"
    key = ("exchange", "symbol", "funding_time")
    time = "funding_time"
    newest = "known_time"
    converted = True
    bounds = MappingProxyType({"funding_rate": RATE, "interval_hours": PERIOD})

    funding_time: datetime
    funding_rate: float
    interval_hours: int | None = None
    """Length of the period that this settlement ended; None where the exchange did not let us know."""
    known_time: datetime
    """The exchange's clock when it published it."""
    source: Source
    receive_time: datetime
    flag: str | None = None
    """What is suspicious about the rate, such as that it is beyond the instrument's own cap; None: nothing."""


class PredictedFundingRate(Event, frozen=True, kw_only=True):
    """What the exchange expected at `known_time` for the settlement at `funding_time`."""

    stream = "funding"
    name = "predicted_funding_rate"
    dataset = "funding_predicted"
    file_stem = "funding_predicted"
    key = ("exchange", "symbol", "known_time")
    time = "known_time"
    newest = "receive_time"
    converted = True
    retired = True
    bounds = MappingProxyType({"funding_rate": RATE, "interval_hours": PERIOD})

    known_time: datetime
    funding_time: datetime
    funding_rate: float
    interval_hours: int | None = None
    source: Source
    receive_time: datetime
    flag: str | None = None
    """As of a settled rate. A rate that is flagged is kept, and does not rank."""
