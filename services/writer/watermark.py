"""Up to when is everything stored? Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from shared.grid import MINUTE

PATIENCE = timedelta(minutes=10)
"""A member whose newest candle is older than this, seen from the freshest one, is halted or being healed: it does not
hold up the others. Its minutes reach Qlib when they come."""


def written_until(newest: Mapping[str, datetime], members: frozenset[str]) -> datetime | None:
    """Return the instant up to which every minute of the universe's members is stored, or None before the first.

    newest: symbol → open of its newest stored candle. A minute is stored when its candle is, so the watermark is the
    open after it. Without a universe all symbols count.
    """
    opens = [instant for symbol, instant in newest.items() if not members or symbol in members]
    if not opens:
        return None
    freshest = max(opens)
    return min(instant for instant in opens if freshest - instant <= PATIENCE) + MINUTE
