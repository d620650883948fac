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
        away = monotonic - self.monotonic_at
        exchange = self.exchange_at + self.rate * away
        return exchange + self.unsure * self.rate + self.rate_unsure * abs(away)

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
    """The exchange's time from measurements; before the first one it is the host's clock, and says so.

    A measurement that contradicts the others opens a dispute: the clock was set, or the endpoint is wrong for a while.
    Until the dispute is over both are kept. `now` is the earlier of the two and `latest` the later, so nothing
    counts as over, and nothing as from the future, that might not be; whoever deletes or denies data waits for the end.

    A time that stands still is that of a replay which has ended, or of an answer that was cached. Rows that are newer
    deny it: then its answers count for nothing until they move on.
    """

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=5))
    line: ClockLine | None = None
    distrusted: bool = False
    """Whether even the first measurements are to be held against rows before they count as measured."""
    _fitted: bool = False
    _doubted: deque[Sample] = field(default_factory=lambda: deque(maxlen=30))
    """Samples that agree with each other and contradict the line."""
    _rival: ClockLine | None = None
    """The line through them."""
    _newest: Sample | None = None
    _moved: Sample | None = None
    """The first answer with the time that is still said, or with a later one than those after it."""
    still_denied: bool = False
    """Whether the exchange's time stands still, and its rows say that this is not so."""

    @property
    def measured(self) -> bool:
        """Whether offset and rate are known: the exchange was asked successfully at least twice, and is believed."""
        return self.fitted and not self.distrusted

    @property
    def fitted(self) -> bool:
        """Whether there were two answers that agree, believed or not."""
        return self.line is not None and self._fitted

    @property
    def settled(self) -> bool:
        """Whether the window holds enough samples; until then it is worth measuring again soon."""
        return len(self.samples) >= _SETTLED_SAMPLES

    @property
    def disputed(self) -> bool:
        """Whether newer measurements contradict the clock, and neither is proven."""
        return self._rival is not None

    @property
    def jump_seconds(self) -> float:
        """Return by how much the newer measurements are ahead; 0 without a dispute."""
        if self.line is None or self._rival is None:
            return 0.0
        here = self._rival.monotonic_at
        return self._rival.exchange(here) - self.line.exchange(here)

    def add(self, sample: Sample) -> None:
        """Take a measurement into account: with the others, or where it contradicts them in a dispute of its own."""
        self._watch(sample)
        if self.still_denied:
            return
        if self.line is not None and self._fitted and _contradicts(self.line, sample):
            self._doubt(sample)
            return
        self._end_dispute()
        self.samples.append(sample)
        if len(self.samples) > 1:
            self.line = fit(list(self.samples))
            self._fitted = True
        else:
            self.line = replace(fit([sample]), rate=self.rate)

    def _watch(self, sample: Sample) -> None:
        """Note whether the exchange's time moves on."""
        if self._newest is None or sample.exchange > self._newest.exchange:
            self._moved, self.still_denied = sample, False
        self._newest = sample

    @property
    def still_seconds(self) -> float:
        """Return for how many of our seconds the exchange has said no later time."""
        if self._newest is None or self._moved is None:
            return 0.0
        return max(0.0, self._newest.sent - self._moved.received)

    @property
    def still_time(self) -> datetime | None:
        """Return the time at which the exchange's clock stands still; None where it does not."""
        if self._moved is None or self.still_seconds < _STILL_SECONDS:
            return None
        return EPOCH + timedelta(seconds=self._moved.exchange)

    def deny_standstill(self, row_time: datetime) -> bool:
        """Hold a standstill against the time of the exchange's newest rows; return whether they were made after it.

        Then the clock goes on at what was measured before; where that is not enough, nothing is measured.
        """
        if self._moved is None or self.still_time is None or row_time <= self.still_time + _STILL_SLACK:
            return False
        before = [sample for sample in self.samples if sample.sent <= self._moved.sent]
        if len(before) > 1 and fit(before).rate > 0:
            self.samples.clear()
            self.samples.extend(before)
            self.line = fit(before)
            self._end_dispute()
        else:
            self.forget()
            self.distrusted = True
        self.still_denied = True
        return True

    def _doubt(self, sample: Sample) -> None:
        if self._rival is not None and len(self._doubted) > 1 and _contradicts(self._rival, sample):
            self._doubted.clear()
        self._doubted.append(sample)
        fitted = fit(list(self._doubted))
        self._rival = fitted if len(self._doubted) > 1 else replace(fitted, rate=self.rate)

    def _end_dispute(self) -> None:
        self._doubted.clear()
        self._rival = None

    def forget(self) -> None:
        """Forget every measurement: they were proven wrong."""
        self.samples.clear()
        self.line, self._fitted = None, False
        self._end_dispute()

    @property
    def is_ripe(self) -> bool:
        """Whether a dispute has lasted so long, and its samples agree so often, that rows may decide it."""
        if len(self._doubted) < _RIPE_SAMPLES:
            return False
        return self._doubted[-1].received - self._doubted[0].sent >= RIPE_SECONDS

    def decide(self, row_time: datetime, monotonic: float) -> bool:
        """Hold a ripe dispute against the time of the exchange's newest rows, seen at a moment of the local clock.

        Return whether the newer measurements are believed from now on; else the dispute goes on, also where rows fit
        both a time that stands still and one that does not.
        """
        if self._rival is None or not self.is_ripe or not self.is_near(row_time, self._rival, monotonic):
            return False
        if self._rival.rate == 0 and self.confirms(row_time, monotonic):
            return False
        self.samples.clear()
        self.samples.extend(self._doubted)
        self.line = fit(list(self.samples))
        self._end_dispute()
        return True

    def confirms(self, row_time: datetime, monotonic: float) -> bool:
        """Return whether the exchange's newest rows, seen at a moment of the local clock, are as old as they may be."""
        return self.line is not None and self.is_near(row_time, self.line, monotonic)

    @staticmethod
    def is_near(row_time: datetime, line: ClockLine, monotonic: float) -> bool:
        """Return whether rows of a time can be the newest ones of a line at that moment."""
        age = line.exchange(monotonic) - (row_time - EPOCH).total_seconds()
        return abs(age) <= ROW_AGE_SECONDS + _ANSWER_SECONDS * line.rate

    def now(self) -> datetime:
        """Return the exchange's time; in a dispute the earlier one."""
        if self.line is None:
            return datetime.now(UTC)
        here = time.monotonic()
        return EPOCH + timedelta(seconds=min(line.exchange(here) for line in self._lines()))

    def latest(self) -> datetime:
        """Return the latest time that it can be there now: what is later still is from the future."""
        if self.line is None:
            return self.now()
        here = time.monotonic()
        latest = self.line.latest(here)
        return EPOCH + timedelta(seconds=latest if self._rival is None else max(latest, self._rival.latest(here)))

    def _lines(self) -> list[ClockLine]:
        return [line for line in (self.line, self._rival) if line is not None]

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


def _contradicts(line: ClockLine, sample: Sample) -> bool:
    """Return whether a line cannot be true given a sample: at no moment between question and answer. Pure."""
    off = max(line.exchange(sample.sent) - sample.exchange, sample.exchange - line.exchange(sample.received))
    return off > _JUMP_SECONDS * max(1.0, line.rate)


#: A measurement that contradicts the line by more than this opens a dispute.
_JUMP_SECONDS = 5.0
_STILL_SECONDS = 5.0
"""How long the same time must be said until it stands still: the slowest simulator moves on by milliseconds in it."""
_STILL_SLACK = timedelta(seconds=5)
"""By how much rows must be newer to deny a standstill."""
_SETTLED_SAMPLES = 3
RIPE_SECONDS = 60.0
"""How long new measurements must agree before rows may prove them."""
_RIPE_SAMPLES = 3
ROW_AGE_SECONDS = 180.0
"""How old the newest funding row of the exchange may be: OKX renews them every 30 to 90 s."""
_ANSWER_SECONDS = 10.0
"""How long the answer may take that brings it, in our seconds."""
#: How long to wait before looking again at a clock that stands still (a replay that ended).
_STANDSTILL_SECONDS = 1.0
