"""The exchange's clock: what time it is there, and how fast time runs there.

The host's clock may be off by a minute, and a simulator may replay last year at 600 times the speed; schedules and
every "is it over" decision use this clock, so neither changes anything (invariant 13).
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

from shared.grid import EPOCH


@dataclass(frozen=True)
class Sample:
    """One answer of the exchange's time endpoint: it was `exchange` there at some moment in [sent, received] here.

    sent, received: seconds of the local monotonic clock; exchange: Unix seconds.
    """

    sent: float
    received: float
    exchange: float


@dataclass(frozen=True)
class ClockLine:
    """exchange = exchange_at + rate * (monotonic - monotonic_at)."""

    monotonic_at: float
    exchange_at: float
    rate: float
    unsure: float = 0.0
    """By how many of our seconds the line may be off to either side, where it is anchored."""
    rate_unsure: float = 0.0
    """By how much the rate may be off to either side."""

    def latest(self, monotonic: float) -> float:
        """Return the latest Unix time that it can be there at a moment of the local monotonic clock."""
        away = abs(monotonic - self.monotonic_at)
        return self.exchange(monotonic) + self.unsure * self.rate + self.rate_unsure * away

    def exchange(self, monotonic: float) -> float:
        """Return the exchange's Unix time at a moment of the local monotonic clock."""
        return self.exchange_at + self.rate * (monotonic - self.monotonic_at)


def fit(samples: Sequence[Sample]) -> ClockLine:
    """Fit offset and rate to samples, oldest first.

    Two samples bound the rate from both sides, whatever the network did in between; the pair with the tightest bounds
    counts. The rate is 1 unless these bounds exclude it: network jitter must not bend time. The line goes through the
    sample with the shortest round trip, which is the surest.
    """
    bounds = min((_Bounds.of(*pair) for pair in combinations(samples, 2)), default=_Bounds(1.0, 1.0))
    surest = min(reversed(samples), key=lambda sample: sample.received - sample.sent)
    half = (surest.received - surest.sent) / 2
    return ClockLine(surest.sent + half, surest.exchange, bounds.rate, half, bounds.unsure)


@dataclass(frozen=True)
class _Bounds:
    """Between what the rate lies."""

    least: float
    most: float

    @classmethod
    def of(cls, earlier: Sample, later: Sample) -> "_Bounds":
        """Return what two samples say."""
        shortest = later.sent - earlier.received
        if shortest <= 0:
            return cls(0.0, float("inf"))
        elapsed = later.exchange - earlier.exchange
        slack = 0.001  # the endpoint answers in whole milliseconds
        return cls((elapsed - slack) / (later.received - earlier.sent), (elapsed + slack) / shortest)

    def __lt__(self, other: "_Bounds") -> bool:
        return self.most - self.least < other.most - other.least

    @property
    def rate(self) -> float:
        """Return the middle; or 1, or 0, where that is possible."""
        for plain in (1.0, 0.0):
            if self.least <= plain <= self.most:
                return plain
        return max(0.0, (self.least + self.most) / 2)

    @property
    def unsure(self) -> float:
        """Return by how much the rate may be off; 0 where it is taken to be 1 or 0."""
        return 0.0 if self.rate in {0.0, 1.0} else (self.most - self.least) / 2


@dataclass
class ExchangeClock:
    """Tells the exchange's time from measurements; before the first one it is the host's clock, and says so."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=5))
    line: ClockLine | None = None
    _fitted: bool = False

    @property
    def measured(self) -> bool:
        """Whether offset and rate are known: the exchange was asked successfully at least twice."""
        return self.line is not None and self._fitted

    @property
    def settled(self) -> bool:
        """Whether the window holds enough samples; until then it is worth measuring again soon."""
        return len(self.samples) >= _SETTLED_SAMPLES

    def add(self, sample: Sample) -> None:
        """Take a measurement into account.

        One that contradicts the line starts a new window: the other clock was set, or runs at another rate from now
        on. The old rate holds until the next sample tells.
        """
        if self.line is not None and len(self.samples) > 1:
            error = abs(self.line.exchange((sample.sent + sample.received) / 2) - sample.exchange)
            if error > _JUMP_SECONDS * max(1.0, self.line.rate):
                self.samples.clear()
        self.samples.append(sample)
        if len(self.samples) > 1:
            self.line = fit(list(self.samples))
            self._fitted = True
        else:
            self.line = replace(fit([sample]), rate=self.rate)

    def now(self) -> datetime:
        """Return the exchange's time."""
        if self.line is None:
            return datetime.now(UTC)
        return EPOCH + timedelta(seconds=self.line.exchange(time.monotonic()))

    def latest(self) -> datetime:
        """Return the latest time that it can be there now: what is later still is from the future."""
        if self.line is None:
            return self.now()
        return EPOCH + timedelta(seconds=self.line.latest(time.monotonic()))

    @property
    def rate(self) -> float:
        """Return how many seconds pass there in one of ours."""
        return 1.0 if self.line is None else self.line.rate

    @property
    def offset_seconds(self) -> float:
        """Return how far the exchange's clock is ahead of the host's."""
        return (self.now() - datetime.now(UTC)).total_seconds()

    def seconds_until(self, instant: datetime) -> float:
        """Return our seconds until it is `instant` there; 0 where it has passed."""
        remaining = (instant - self.now()).total_seconds()
        return max(0.0, remaining / self.rate) if self.rate > 0 else _STANDSTILL_SECONDS


#: A measurement that contradicts the line by more than this starts a new one.
_JUMP_SECONDS = 5.0
_SETTLED_SAMPLES = 3
#: How long to wait before looking again at a clock that stands still (a replay that ended).
_STANDSTILL_SECONDS = 1.0
