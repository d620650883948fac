"""What each channel of the collector is, and how it is opened: its rows are taken, what is missing is fetched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, Protocol

from services.collector.publisher import Publisher
from services.collector.stream.connection import Row
from services.collector.tracking.lifecycle import Instruments
from services.collector.tracking.universe import Reach, Tracker
from shared.datasets.channel import Channel
from shared.datasets.channels import CHANNELS
from shared.datasets.registry import AnyEvent
from shared.ledger.replica import LedgerCopy
from shared.runtime.service import Service
from shared.symbol import Symbol

SetAside = Callable[[str, object, str], None]
"""(origin, payload, reason): makes a dead letter of bad input."""


@dataclass(frozen=True)
class Surroundings:
    """What a channel works with."""

    service: Service
    publisher: Publisher
    instruments: Instruments
    ledger: LedgerCopy
    reach: Reach


class OpenedChannel(Protocol):
    """A channel at work."""

    @property
    def channel(self) -> Channel:
        """Return its declaration."""

    @property
    def tracker(self) -> Tracker:
        """Return what is wanted of it, and what is missing."""

    def take(self, row: Row) -> None:
        """Take a row of the stream. It runs inside the reader of the connection, so it must only append."""

    def forget(self, event: AnyEvent) -> None:
        """Count an event as missing again where it is one of this channel: it was dropped from a full buffer."""

    def ask_since(self, symbol: Symbol, begin: datetime) -> None:
        """Fetch what may be missing of a symbol from an instant on: another channel was found to have holes there."""

    async def run(self) -> None:
        """Fetch what is missing, for ever."""

    def report(self) -> Mapping[str, Any]:
        """Return what the heartbeat shows."""


class OpenChannel(Protocol):
    """Opens a channel."""

    def __call__(self, channel: Channel, around: Surroundings) -> OpenedChannel:
        """Open it."""


def open_channel(name: str, around: Surroundings) -> OpenedChannel:
    """Open a channel that is declared in `CHANNELS`."""
    module, _, part = CHANNELS[name].collector.partition(":")
    make: OpenChannel = getattr(import_module(module), part)
    return make(CHANNELS[name], around)


def note_unrequested(tracker: Tracker, set_aside: SetAside, origin: str, row: Row) -> None:
    """Set the first row of an instrument aside that was not asked for; the last ones of a leaver are no news."""
    if tracker.first_sighting(row.symbol):
        set_aside(origin, row.payload, f"the instrument {row.symbol} was not asked for")
