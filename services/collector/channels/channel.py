"""What the channels have in common: a row of an instrument that was not asked for."""

from collections.abc import Callable

from services.collector.stream.connection import Row
from services.collector.tracking.universe import Tracker

SetAside = Callable[[str, object, str], None]
"""(origin, payload, reason): makes a dead letter of bad input."""


def note_unrequested(tracker: Tracker, set_aside: SetAside, origin: str, row: Row) -> None:
    """Set the first row of an instrument aside that was not asked for; the last ones of a leaver are no news."""
    if tracker.first_sighting(row.symbol):
        set_aside(origin, row.payload, f"the instrument {row.symbol} was not asked for")
