"""One connection to an exchange's stream, and what it reports: the protocol that each exchange's stream implements.

What an exchange calls a code, an ack or an instrument ends in its stream file. A connection reports observations; its
listener (`link.py`) decides. Observations are reported inside the reader, so a listener only notes them.

Acks may come per instrument or per request, names may be in errors or not: a connection knows what it asked for, and
reports symbols in either case.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from services.collector.stream.liveness import Patience
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import Page
from shared.exchanges.proxy import Proxy
from shared.symbol import Symbol


@dataclass(frozen=True)
class Opened:
    """The connection is there, and can be written to."""


@dataclass(frozen=True)
class Subscribed:
    """The exchange acknowledged subscriptions."""

    symbols: Collection[Symbol]


@dataclass(frozen=True)
class Rejected:
    """The exchange rejected subscriptions."""

    symbols: Collection[Symbol]
    """Empty where it cannot be known which; a missing ack is found by its time all the same."""
    code: str
    """In the exchange's spelling; shown and counted, never interpreted."""
    text: str
    together: bool = False
    """Whether these are a whole request that was rejected because of some of them. The next requests are halves of it,
    until the ones at fault stand alone."""


@dataclass(frozen=True)
class TooManyRequests:
    """The exchange refused the last request as one too many; what it asked for has to be asked for again, later."""

    code: str
    """In the exchange's spelling; shown and counted, never interpreted."""
    text: str


@dataclass(frozen=True)
class WillClose:
    """The exchange announced that it will close the connection."""

    text: str


class Row(msgspec.Struct, frozen=True):
    """A row of one instrument: what it means, which may be that it was refused."""

    symbol: Symbol
    page: Page[AnyEvent]
    spelled: object
    """The payload, or a function that returns it: of nearly all rows it is never needed."""

    @property
    def payload(self) -> object:
        """Return it as the exchange spelled it, for a dead letter."""
        return self.spelled() if callable(self.spelled) else self.spelled

    @property
    def is_sign_of_life(self) -> bool:
        """Return whether anything in it made sense. A row that was refused proves nothing about its subscription."""
        return bool(self.page.events or self.page.partial)


@dataclass(frozen=True)
class Unreadable:
    """A frame that is none of those that the exchange sends, or a row that names no instrument of ours."""

    payload: object
    reason: str


@dataclass(frozen=True)
class Notice:
    """Anything else that the exchange says, for the log."""

    text: str


Observation = Opened | Subscribed | Rejected | TooManyRequests | WillClose | Row | Unreadable | Notice
Observe = Callable[[Observation], None]
Operation = Literal["subscribe", "unsubscribe"]


class Connection(Protocol):
    """One connection, from its opening to its end; it is never opened a second time."""

    @property
    def is_open(self) -> bool:
        """Return whether requests can be sent."""

    async def run(self) -> str:
        """Open it and read it to its end; return why it ended, in a sentence for the operator. It never raises."""

    async def send(self, operation: Operation, symbols: Collection[Symbol]) -> None:
        """Send one request; a connection that cannot be written to ends."""

    def end(self, why: str) -> None:
        """Let it end; `run` returns `why`."""


class Stream(Protocol):
    """One channel of an exchange: how to connect to it, and what it takes and promises."""

    @property
    def name(self) -> str:
        """The name of the channel."""

    @property
    def covered(self) -> str:
        """Return what makes up for what does not come, in words for the operator."""

    @property
    def patience(self) -> Patience:
        """Return what silence means on this channel, and how fast to try again."""

    @property
    def most_symbols(self) -> int:
        """Return how many symbols one request may hold."""

    @property
    def requests_per_hour(self) -> int:
        """Return how many requests one connection may send."""

    @property
    def proxy(self) -> Proxy | None:
        """Return the proxy that connections go through."""

    def connect(self, observe: Observe) -> Connection:
        """Make a connection that reports to `observe`; it opens when it runs."""


class OpenStreams(Protocol):
    """Makes the streams of an exchange: one a channel."""

    def __call__(self, base_url: str, *, ca_file: Path | None, now: Callable[[], datetime]) -> Mapping[str, Stream]:
        """Make them. now: the exchange's clock, at its latest: a row from the future is refused."""
