"""Minutes that the exchange shows with figures that cannot be, or does not show yet: pure functions."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from services.simulator.engine.market import MINUTE_MS

TOO_LARGE = "1" + "0" * 39
"""Beyond what a float32 can hold."""
TOO_SMALL = "0." + "0" * 45 + "1"
"""Below what a float32 can hold: it would become 0."""

IMPOSSIBLE = ("zero", "huge", "tiny")
"""Figures that cannot be true; `tenfold` is possible, so it is the truth as long as it lasts for good."""
VARIANTS = (*IMPOSSIBLE, "tenfold")


class OddMinute(NamedTuple):
    """One minute that is shown otherwise than it was, once it is closed."""

    open_ms: int
    variant: str | None
    """One of VARIANTS; None: there is no row of it at all."""
    until_ms: int | None
    """From here on it is shown as it was; None: never."""

    def is_on(self, now_ms: int) -> bool:
        """Return whether it is still odd."""
        return self.until_ms is None or now_ms < self.until_ms

    @property
    def is_refused(self) -> bool:
        """Whether it will never have figures that can be believed."""
        return self.until_ms is None and self.variant in IMPOSSIBLE

    @property
    def is_true(self) -> bool:
        """Whether the odd figures are the only ones that it will ever have, and possible."""
        return self.until_ms is None and self.variant == "tenfold"


def odd_minute(begin_ms: int, variant: str | None, lasts_ms: int | None) -> OddMinute:
    """Return the minute that is open at an instant, odd until so long after its end."""
    open_ms = begin_ms // MINUTE_MS * MINUTE_MS
    return OddMinute(open_ms, variant, None if lasts_ms is None else open_ms + MINUTE_MS + lasts_ms)


def odd_candle(row: Sequence[str], variant: str) -> list[str]:
    """Return a closed candle row with other prices."""
    opens, high, low, close = row[1:5]
    prices = {
        "zero": ["0", high, "0", "0"],
        "huge": [TOO_LARGE] * 4,
        "tiny": [TOO_SMALL] * 4,
        "tenfold": [format(Decimal(price) * 10, "f") for price in (opens, high, low, close)],
    }
    return [row[0], *prices[variant], *row[5:]]
