"""What a market is to the simulator: instruments, closed minutes and settlements, all pure functions of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

ANNOUNCED_MS = HOUR_MS
"""How long before its listing an instrument is shown as `preopen`. OKX documents no figure."""

DETAILS_MS = 5 * MINUTE_MS
"""A preopen row is complete, and its channels open, at least five minutes before the listing (documented)."""

StoppedState = Literal["suspend", "rebase", "post_only"]
"""States of a listed instrument in which nothing is traded."""
State = Literal["unknown", "announced", "preopen", "live", "gone"] | StoppedState


NEVER_MS = 10**15
"""Later than anything."""

DELISTING_NOTICE_MS = DAY_MS
"""expTime is "" until the delisting is announced, here a day ahead unless it is said otherwise."""


class Suspension(NamedTuple):
    """A span [begin, end) in which an instrument is not traded, and what its state reads."""

    begin_ms: int
    end_ms: int
    state: StoppedState = "suspend"
    contract_exponent: int | None = None
    """Of a rebase: what a contract is worth after it, as `Instrument.contract_exponent`."""


class TickChange(NamedTuple):
    """A new price step, announced in upcChg."""

    announce_ms: int
    at_ms: int
    decimals: int
    """The new tickSz is 10 ** -this."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One contract; ctVal and tickSz are powers of ten, so that every figure stays an exact decimal."""

    inst_id: str
    list_ms: int
    contract_exponent: int
    """ctVal = 10 ** this: base coin a contract (linear), or quote currency a contract (inverse)."""
    price_decimals: int
    """tickSz = 10 ** -this, as listed; `tick_changes` come later."""
    inst_type: Literal["SWAP", "FUTURES"] = "SWAP"
    inverse: bool = False
    category: str = "1"
    """instCategory: 1 crypto, 3 stocks, 4 commodities."""
    announce_ms: int | None = None
    """When it is first shown as `preopen`; None: an hour before the listing."""
    delist_ms: int | None = None
    delist_notice_ms: int | None = None
    """When expTime is published; None: a day before the delisting."""
    suspended: bool = False
    """Suspended for ever."""
    suspensions: tuple[Suspension, ...] = ()
    """In the order of their instants."""
    tick_changes: tuple[TickChange, ...] = ()
    """In the order of their instants."""
    rate_cap: float = 0.015
    """The clamp of the funding rate, on both sides."""
    earlier: "Instrument | None" = None
    """What the name stood for before: an instrument that was delisted, or this one before its redenomination."""
    since_ms: int = 0
    """From when on the name stands for this and no longer for `earlier`."""
    series: str | None = None
    """What its market knows its figures by; None: its name."""
    scale_exponent: int = 0
    """A price is that of its market times 10 ** this, an amount of coins that of its market divided by it."""

    @property
    def base(self) -> str:
        """The base coin: `BTC` of `BTC-USDT-SWAP`, `X-Y` of `X-Y-USDT-SWAP`."""
        return self.inst_id.rsplit("-", 2)[0]

    @property
    def family(self) -> str:
        """The instFamily: `BTC-USDT`, `BTC-USD_UM`."""
        return self.inst_id.rsplit("-", 1)[0]

    @property
    def quote(self) -> str:
        """The quote currency without its margin mark: `USD` of `BTC-USD_UM-SWAP`."""
        return self.inst_id.rsplit("-", 2)[1].split("_")[0]

    def as_of(self, at_ms: int) -> "Instrument":
        """Return what the name stands for at an instant."""
        instrument = self
        while instrument.earlier is not None and at_ms < instrument.since_ms:
            instrument = instrument.earlier
        return instrument

    def all_under_its_name(self) -> tuple["Instrument", ...]:
        """Return all that the name ever stands for, oldest first."""
        return (self,) if self.earlier is None else (*self.earlier.all_under_its_name(), self)

    @property
    def announced_ms(self) -> int:
        """When it is first shown as `preopen`."""
        return self.list_ms - ANNOUNCED_MS if self.announce_ms is None else self.announce_ms

    @property
    def exp_told_ms(self) -> int:
        """When its delisting is announced."""
        if self.delist_ms is None:
            return NEVER_MS
        return self.delist_ms - DELISTING_NOTICE_MS if self.delist_notice_ms is None else self.delist_notice_ms

    def decimals_at(self, at_ms: int) -> int:
        """Return the decimals of prices at an instant."""
        now = self.as_of(at_ms)
        return next((change.decimals for change in now.tick_changes[::-1] if change.at_ms <= at_ms), now.price_decimals)

    def turning_points(self) -> tuple[int, ...]:
        """Return the instants at which the row of its name in public/instruments changes, in no order."""
        instants = [self.announced_ms, self.list_ms - DETAILS_MS, self.list_ms]
        instants += [] if self.earlier is None else [self.since_ms, *self.earlier.turning_points()]
        instants += [] if self.delist_ms is None else [self.exp_told_ms, self.delist_ms]
        instants += [instant for span in self.suspensions for instant in (span.begin_ms, span.end_ms)]
        instants += [instant for change in self.tick_changes for instant in change[:2]]
        return tuple(instant for instant in instants if instant < NEVER_MS)

    def state(self, at_ms: int) -> State:
        """Where the instrument is in its life; `announced` is a preopen whose fields are still empty."""
        if (now := self.as_of(at_ms)) is not self:
            return now.state(at_ms)
        if at_ms < self.list_ms:
            if at_ms < self.announced_ms:
                return "unknown"
            return "preopen" if at_ms >= self.list_ms - DETAILS_MS else "announced"
        if self.delist_ms is not None and at_ms >= self.delist_ms:
            return "gone"
        if self.suspended:
            return "suspend"
        return next((span.state for span in self.suspensions if span.begin_ms <= at_ms < span.end_ms), "live")

    def is_suspended(self, at_ms: int) -> bool:
        """Return whether an instant lies in one of its suspensions."""
        return any(span.begin_ms <= at_ms < span.end_ms for span in self.as_of(at_ms).suspensions)

    def is_served(self, at_ms: int) -> bool:
        """Whether candles, funding and channels of it answer (else 51001 and 60018)."""
        return self.state(at_ms) in {"preopen", "live", "suspend", "rebase", "post_only"}


class Candle(NamedTuple):
    """One minute; times in ms, volumes in base coin and in quote currency."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    base_volume: float
    quote_volume: float


class Settlement(NamedTuple):
    """A funding rate that was exchanged at an instant."""

    funding_ms: int
    rate: float


class FundingPeriod(NamedTuple):
    """The time between two settlements, as seen from inside it."""

    began_ms: int
    funding_ms: int
    """The upcoming settlement."""
    following_ms: int
    """The settlement after the upcoming one (OKX: nextFundingTime)."""
    settled: Settlement | None
    """The last settlement that is known to have happened."""
    upcoming_rate: float
    """The rate that the upcoming settlement will have."""


class Market(Protocol):
    """The whole truth, past and future; what is visible when is decided by those who answer from it."""

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """Every instrument that ever exists, by instId."""

    @property
    def end_ms(self) -> int | None:
        """The last recorded open time, None for a market that never ends."""

    def candles(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Candle]:
        """Return the minutes that open in [begin, end), oldest first; minutes that do not exist are left out."""

    def newest_candles(self, inst_id: str, begin_ms: int, end_ms: int, limit: int) -> list[Candle]:
        """Return the last `limit` of the minutes that open in [begin, end), oldest first."""

    def settlements(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Settlement]:
        """Return the settlements in [begin, end), oldest first."""

    def funding_period(self, inst_id: str, at_ms: int) -> FundingPeriod:
        """Return the period that holds the instant; a settlement instant belongs to the period it begins."""
