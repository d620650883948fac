"""Simulated exchange time: start + elapsed wall time * speed, standing still at the end of a recording."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(slots=True)
class SimulatedClock:
    """The one clock of the exchange; times are Unix ms."""

    start_ms: int
    speed: float = 1.0
    end_ms: int | None = None
    _origin: float = field(default_factory=time.monotonic)

    def now_ms(self) -> int:
        """Return the exchange's time."""
        now = self.start_ms + int((time.monotonic() - self._origin) * self.speed * 1000)
        return now if self.end_ms is None else min(now, self.end_ms)

    def restart(self) -> None:
        """Begin again at the start: called once the ports are open, so that no simulated time is lost."""
        self._origin = time.monotonic()

    def ended(self) -> bool:
        """Return whether the recording is over."""
        return self.end_ms is not None and self.now_ms() >= self.end_ms


def instant_ms(at: int | str) -> int:
    """Read ms or an ISO time, UTC unless it says otherwise. Raises ValueError."""
    if isinstance(at, int):
        return at
    try:
        instant = datetime.fromisoformat(at)
    except ValueError as error:
        raise ValueError(f"`at` is neither ms nor an ISO time: {at!r}") from error
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)
