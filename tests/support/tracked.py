"""An instrument that is tracked, as far as its tests share it."""

from services.collector.tracking.instrument import TrackedInstrument
from tests.support.builders import minute

NOON = minute(720)


def see(wanted: TrackedInstrument, *numbers: int) -> None:
    """Let rows of some minutes have been published."""
    for number in numbers:
        wanted.seen.add(minute(number))
