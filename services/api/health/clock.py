"""The exchange's clock, as it was read and as answers show it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from shared.clock import ExchangeClock


@dataclass(frozen=True)
class ClockReading:
    """What the exchange's clock shows."""

    exchange_time: datetime
    offset_seconds: float
    """How far the exchange's clock is ahead of the host's."""
    rate: float
    """Seconds that pass at the exchange in one of ours; 1, except for a simulator that runs faster."""
    measured: bool
    """False: the exchange has not been asked successfully yet, and this is the host's clock."""


class ClockStatus(BaseModel):
    """The exchange's clock: every age and every 'is it late' is on it."""

    exchange_time: datetime = Field(description="What time it is at the exchange")
    offset_seconds: float = Field(description="How far the exchange's clock is ahead of the host's")
    rate: float = Field(description="Seconds that pass at the exchange in one of ours")
    source: Literal["exchange", "host"] = Field(description="host: the exchange's time is not known yet")


def read_clock(clock: ExchangeClock) -> ClockReading:
    """Read the exchange's clock."""
    return ClockReading(clock.now(), clock.offset_seconds, clock.rate, clock.measured)


def clock_status(clock: ClockReading) -> ClockStatus:
    """Return a reading as answers show it."""
    return ClockStatus(
        exchange_time=clock.exchange_time,
        offset_seconds=round(clock.offset_seconds, 3),
        rate=round(clock.rate, 6),
        source="exchange" if clock.measured else "host",
    )
