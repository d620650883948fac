"""Counters that show what happened on the wire."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Stats:
    """What /sim/stats shows; counters never go down except the `now` ones."""

    connections_now: Counter[str] = field(default_factory=Counter)
    connections_total: Counter[str] = field(default_factory=Counter)
    connections_refused: int = 0
    subscriptions_now: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    """REST requests by path."""
    codes: Counter[str] = field(default_factory=Counter)
    """REST answers by OKX code."""
    http_429: int = 0
    pushes: Counter[str] = field(default_factory=Counter)
    """Pushes by kind (forming, confirm, funding), counted once for all subscribers."""
    rows_sent: Counter[str] = field(default_factory=Counter)
    """Pushes by kind, counted for each subscriber."""
    closes: Counter[str] = field(default_factory=Counter)
    """Connections that the simulator ended, by reason."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "connections_now": dict(self.connections_now),
            "connections_total": dict(self.connections_total),
            "connections_refused": self.connections_refused,
            "subscriptions_now": dict(self.subscriptions_now),
            "requests": dict(self.requests),
            "codes": dict(self.codes),
            "http_429": self.http_429,
            "pushes": dict(self.pushes),
            "rows_sent": dict(self.rows_sent),
            "confirm_rows_sent": self.rows_sent["confirm"],
            "closes": dict(self.closes),
        }
