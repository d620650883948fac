"""Counting windows: so many events per key in so many seconds of wall time."""

from collections import deque
from collections.abc import Hashable

MAX_KEYS = 10_000
"""Keys come from outside (addresses, instIds); beyond this many the idle ones are forgotten."""


class SlidingWindow:
    """At most `limit` events of a key within `seconds`."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._events: dict[Hashable, deque[float]] = {}

    def allows(self, key: Hashable, now: float) -> bool:
        """Count an event and return whether it is within the limit; a refused one does not count."""
        events = self._events.get(key)
        if events is None:
            self._forget_idle(now)
            events = self._events[key] = deque()
        while events and events[0] <= now - self._seconds:
            events.popleft()
        if len(events) >= self._limit:
            return False
        events.append(now)
        return True

    def _forget_idle(self, now: float) -> None:
        if len(self._events) >= MAX_KEYS:
            self._events = {
                key: events for key, events in self._events.items() if events and events[-1] > now - self._seconds
            }
