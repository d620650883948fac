"""Candles that jump: a price ten times, or a tenth, of its neighbour's. Stored, and to be audited first. Pure.

A real market does that now and then, and so does a wrong digit, a redenomination, or another asset under an old name.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.writer.audit.compare import Page
from shared.datasets.candle import Candle
from shared.grid import DAY, MINUTE, day_start

JUMP = 10.0
"""Times its neighbour's price."""
NEIGHBOUR = timedelta(hours=1)
"""How far apart two candles may lie to be neighbours."""
_AROUND = 5 * MINUTE
MOST = 1_000


@dataclass
class Suspects:
    """The newest price of every symbol, and the pages that are to be audited for a jump."""

    pages: dict[Page, None] = field(default_factory=dict)
    _newest: dict[str, tuple[datetime, float]] = field(default_factory=dict)

    def note(self, candle: Candle) -> bool:
        """Look at a candle as it comes; return whether it jumps, inside itself or against the one before it."""
        newest = self._newest.get(candle.symbol)
        prices = [candle.low, candle.high]
        if newest is not None and abs(candle.open_time - newest[0]) <= NEIGHBOUR:
            prices.append(newest[1])
        if newest is None or candle.open_time >= newest[0]:
            self._newest[candle.symbol] = (candle.open_time, candle.close)
        jumps = max(prices) >= JUMP * min(prices)
        if jumps and len(self.pages) < MOST:
            self.pages[page_around(candle)] = None
        return jumps

    def take(self, until: datetime) -> Page | None:
        """Return a page that ends before an instant, and forget it; None where there is none."""
        page = next((page for page in self.pages if page.end <= until), None)
        if page is not None:
            del self.pages[page]
        return page


def page_around(candle: Candle) -> Page:
    """Return the minutes around a candle, on its day."""
    midnight = day_start(candle.open_time.date())
    begin, end = candle.open_time - _AROUND, candle.open_time + _AROUND + MINUTE
    return Page(candle.symbol, max(begin, midnight), min(end, midnight + DAY))
