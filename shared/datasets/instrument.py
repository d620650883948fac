"""Dataset `instruments`: what the exchange said of an instrument, and since when."""

from datetime import datetime
from types import MappingProxyType

from shared.datasets.row import POSITIVE, Event


class InstrumentDefinition(Event, frozen=True, kw_only=True):
    """What the exchange said of an instrument from `known_time` on: there is a row for each time that it changed.

    A name can be given to another instrument, or come back after years: see `services.converter.lives`.
    """

    stream = "instruments"
    name = "instrument_definition"
    dataset = "instruments"
    file_stem = "instruments"
    rare = True
    key = ("exchange", "symbol", "known_time")
    time = "known_time"
    newest = "receive_time"
    converted = True
    bounds = MappingProxyType(
        dict.fromkeys(("contract_value", "tick_size", "lot_size", "min_size", "max_leverage"), POSITIVE)
    )

    known_time: datetime
    """The exchange's clock when its list was seen to say so for the first time."""
    state: str
    """The exchange's word, such as `live`, `suspend`, `rebase`, `preopen`; `expired`: it is over."""
    list_time: datetime | None = None
    end_time: datetime | None = None
    """When it went, or is announced to go. Without an announcement: when it was first missing."""
    contract_type: str = ""
    """`linear` or `inverse`."""
    category: str = ""
    rule_type: str = ""
    settle_currency: str = ""
    contract_value: float | None = None
    """Of one contract, in `contract_value_currency`."""
    contract_value_currency: str = ""
    tick_size: float | None = None
    """Step of prices, in the quote currency."""
    lot_size: float | None = None
    """Step of orders, in contracts."""
    min_size: float | None = None
    """Smallest order, in contracts."""
    max_leverage: float | None = None
    receive_time: datetime


LIVE_STATE = "live"
"""State of an instrument that is traded as usual; the same for every exchange, as is the next one."""
ENDED_STATE = "expired"
"""State of an instrument that is over."""
