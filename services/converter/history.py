"""When history that came after the first conversion is taken in: a version of the dataset that begins earlier. Pure."""

from dataclasses import dataclass

PATIENCE_SECONDS = 900.0
"""Longer than a rate limit or a maintenance usually lasts: what has not grown for so long will not grow soon."""
_SETTLED_SECONDS = 60.0
"""How long no history must have come before it is taken in."""
_MOST_WAITING_SECONDS = 3600.0
"""History that goes on coming for so long is taken in bit by bit."""
_BETWEEN_SECONDS, _BETWEEN_TIMES = 600.0, 20
"""Between two times that history is taken in: so long, and so many times as long as the last one took."""


@dataclass
class History:
    """What lies before the calendar's first day, and how it came. Times are those of a clock that never jumps."""

    symbol_days: int = 0
    since: float = 0.0
    """When there began to be so many."""
    first_seen: float = 0.0
    tried: float = float("-inf")
    took_seconds: float = 0.0
    """How long it took to take some in the last time."""

    def note(self, symbol_days: int, now: float) -> None:
        """Take in how many there are now."""
        if not self.symbol_days:
            self.first_seen = now
        if symbol_days != self.symbol_days:
            self.symbol_days, self.since = symbol_days, now

    def is_due(self, complete: bool, now: float) -> bool:
        """Return whether it is to be taken in now; complete: no more of it is expected.

        That costs a copy of the dataset. So it waits until the history has stopped growing, though not for ever, and
        takes up a small share of the time.
        """
        patience = _SETTLED_SECONDS if complete else PATIENCE_SECONDS
        is_settled = now - self.since >= patience or now - self.first_seen >= _MOST_WAITING_SECONDS
        return is_settled and now - self.tried >= max(_BETWEEN_SECONDS, _BETWEEN_TIMES * self.took_seconds)
