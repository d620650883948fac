"""What an exchange says, in our words: the protocol that each exchange's package implements, and what it returns.

An exchange's spelling ends here. A client and a stream return events, or a refusal with its reason; no row of an
exchange, no code and no name of an instrument in its spelling goes beyond its package and its stream file.

    ExchangeError
    ├── ExchangeUnavailable   network, 5xx, maintenance, busy, rate limit: trying again helps (the client does)
    ├── UnknownInstrument     delisted, never listed
    └── ExchangeRefused       a request that is wrong: a bug here, or a changed interface there
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import msgspec

from shared.clock import Sample
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.registry import AnyEvent
from shared.exchanges.proxy import Proxy
from shared.symbol import Symbol

SURE = timedelta(minutes=5)
"""A row that an exchange does not have this long after its minute, it does not have at all: OKX's history-candles was
seen to lag by about one minute."""


class ExchangeError(Exception):
    """Something went wrong between us and the exchange."""


class ExchangeUnavailable(ExchangeError):  # noqa: N818 - says what it is
    """Trying again helps."""


class UnknownInstrument(ExchangeError):  # noqa: N818 - says what it is
    """The exchange does not know the instrument (any more)."""


class ExchangeRefused(ExchangeError):  # noqa: N818 - says what it is
    """The exchange understood, and declined: trying again does not help."""


class RowError(ValueError):
    """A row that cannot be what it should be; the text says which value and why."""


class Refused(NamedTuple):
    """A row that was left out of an answer, and why."""

    row: object
    """As the exchange spelled it, for a dead letter; `Exchange.reread` reads it again."""
    reason: str
    at: datetime | None = None
    """Of a candle that the exchange calls closed: its open, where the row says so much."""


class Page[E](NamedTuple):
    """What one request, or one message, brought."""

    events: Sequence[E]
    refused: Sequence[Refused] = ()
    partial: Sequence[datetime] = ()
    """Opens of candles that are not over yet."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform needs to know about a perpetual swap. Sizes are decimal text, as the exchange spells them."""

    symbol: Symbol
    state: str
    """`LIVE_STATE`, `ENDED_STATE`, else the exchange's word."""
    contract_type: str
    """`linear` or `inverse`."""
    category: str
    list_time: datetime | None
    expiry_time: datetime | None = None
    """Set once a delisting is announced: when the instrument goes."""
    tick_size: str = ""
    lot_size: str = ""
    min_size: str = ""
    contract_value: str = ""
    """Of one contract, in `contract_value_currency`."""
    contract_value_currency: str = ""
    settle_currency: str = ""
    max_leverage: str = ""
    rule_type: str = ""
    eligible: bool = True
    """Whether it can be in the universe: live, linear or inverse, on a coin."""
    halted: bool = False
    """Whether nothing is traded in its state, so that it has no candles."""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """A window in which a part of the exchange stands still, or may."""

    title: str
    state: str
    """`scheduled`, `ongoing`, `pre_open`, `completed` or `canceled`."""
    begin: datetime
    end: datetime | None
    """Expected until it is completed, then actual."""
    halts_swaps: bool = True
    """Whether it concerns the trading of swaps on the exchange itself."""


class Listing(NamedTuple):
    """The list of swaps: what could be read, every name that was in it, and the rows that were left out."""

    instruments: dict[Symbol, Instrument]
    names: frozenset[str]
    """Every name that was listed, as a symbol where it is one: a row that was left out was there all the same."""
    refused: list[Refused]


@dataclass(frozen=True)
class Limits:
    """What an exchange gives in one request."""

    page_minutes: int
    """Most 1-minute candles of one request."""
    recent: timedelta
    """The newest candles, back to here, come from an endpoint of their own or are otherwise quick to get: they are
    asked for beside the history, and never wait for it."""


Share = Literal["service", "audit", "audit by hand"]
"""What of an exchange's limits a client takes: all clients of a machine together must stay below each limit, so an
audit, which has time, takes a small part beside the services."""


class Exchange(Protocol):
    """An exchange over REST. It is a context manager: its connections live inside of it.

    Every method but `reread`, `definition` and `measure_time` retries what trying again helps, within the exchange's
    limits, and raises an `ExchangeError` where it gives up.
    """

    name: str
    """As rows, settings and folders have it, such as `okx`."""
    limits: Limits
    proxy: Proxy | None

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def measure_time(self) -> Sample:
        """Ask the exchange's time once, without a retry."""

    async def newest_row_time(self) -> datetime | None:
        """Return when the exchange made its newest rows, as the rows themselves say; None where they do not."""

    async def instruments(self) -> Listing:
        """Return the list of perpetual swaps."""

    async def maintenance(self) -> Page[Maintenance]:
        """Return the maintenance windows that are scheduled, under way or about to end; none where it has no list."""

    async def predictions(self, *, now: datetime) -> Page[PredictedFundingRate]:
        """Return what every swap is expected to pay next. now: the exchange's clock, at its latest."""

    async def candles(
        self, symbol: Symbol, begin: datetime, end: datetime, *, now: datetime, final: bool = False
    ) -> Page[Candle]:
        """Return the 1-minute candles that open in [begin, end), at most `limits.page_minutes` of them.

        A minute that is not in the answer is one that the exchange does not have: where one of its endpoints lags or
        forgets, the client asks the other one. now: the exchange's clock, at its latest. final: ask where the exchange
        keeps its history from the beginning.
        """

    async def settlements(
        self, symbol: Symbol, since: datetime, until: datetime, *, now: datetime
    ) -> Page[FundingRate]:
        """Return the settled rates of [since, until), newest first, as far back as the exchange remembers."""

    @staticmethod
    def definition(instrument: Instrument, known: datetime, received: datetime) -> InstrumentDefinition:
        """Turn what the list says of a swap into a row. What is no positive number is left empty."""

    @staticmethod
    def reread(source: str, payload: object, *, received: datetime, now: datetime) -> list[AnyEvent]:
        """Read the payload of a dead letter again. source: what it is a row of, such as `candles` or `history`.

        Raises `RowError`, and `ValueError`, `TypeError` or `LookupError` for what is far from any row.
        """


class OpenExchange(Protocol):
    """Makes the client of an exchange."""

    def __call__(self, base_url: str, *, ca_file: Path | None = None, share: Share = "service") -> Exchange:
        """Make a client."""
