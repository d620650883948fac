"""A channel: what an exchange sends of each instrument over time, declared once.

From a declaration follow the stream of the bus, its groups and its cap, the sets of the ledger, what the api calls
stale, and what the dead letters of a collector may be rows of. What a row means and what heals a gap is code of the
collector (`services.collector.channels`), which the declaration names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.datasets.row import Event


@dataclass(frozen=True)
class EveryMinute:
    """Complete is one row a minute: the time of a row is the open of its minute."""


@dataclass(frozen=True)
class DueInstants:
    """Complete is one row for each instant that is due, such as a settlement. The channel finds out which are."""


@dataclass(frozen=True)
class Sequence:
    """Complete are rows whose numbers leave none out. A minute that a hole in the numbers touches is missing."""

    number: str
    """The field with the number: it grows by one from a row of a symbol to the next."""


type Completeness = EveryMinute | DueInstants | Sequence


@dataclass(frozen=True, kw_only=True)
class Channel:
    """The declaration of a channel. Its name is that of its stream on the bus, too."""

    name: str
    events: Mapping[type[Event], Completeness | None]
    """What travels on it, and when that is complete; None: best effort, nothing is counted."""
    collector: str
    """Where the collector's part is, `module:name`: an `OpenChannel` (`services.collector.channels.channel`)."""
    cap: int
    """Most entries of its stream; about 300 bytes each."""
    stale_seconds: float
    """No row of any instrument for this long is a fault that the api reports."""
    letters: tuple[str, ...]
    """What its dead letters may be rows of, as `Exchange.reread` knows them."""
