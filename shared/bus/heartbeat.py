"""What a service publishes about itself, and how often its results are due."""

from datetime import datetime
from typing import Any

import msgspec


class Cadence(msgspec.Struct, frozen=True):
    """When the results of a service are due, as its settings have it. Readers derive from it what is late."""

    every_seconds: float
    """Longest time between two results, in seconds of the exchange's clock."""
    delay_seconds: float = 0.0
    """How long after the end of its period a result is produced."""


class Heartbeat(msgspec.Struct, kw_only=True):
    """What a service says about itself; its absence is the alarm."""

    service: str
    state: str
    """`starting`, `ok` or `degraded`."""
    reason: str
    ready: bool = True
    """Whether it has done its first work; a problem may be open all the same."""
    host: str
    pid: int
    started: datetime
    beaten: datetime
    exchange_time: datetime | None = None
    cadence: Cadence | None = None
    """None: the service has no schedule, or is of a version that does not publish it."""
    details: dict[str, Any] = {}
    problems: dict[str, str] = {}
    """The open causes behind `reason`, each with its sentence."""
