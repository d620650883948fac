"""What does OKX say of a swap: can it be traded, what is a contract worth, when was it listed? Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from shared.datasets.instrument import ENDED_STATE, InstrumentDefinition
from shared.datasets.row import POSITIVE
from shared.exchanges.base import Instrument, Listing, Refused, RowError
from shared.exchanges.okx.names import EXCHANGE, inst_id_of, is_swap, symbol_of
from shared.exchanges.okx.values import LAST_TIME, Text, decimal_of, read_row, shown, text_of, time_or_none
from shared.symbol import Symbol, unique

CRYPTO_CATEGORIES = ("1", "")
"""instCategory 1 is crypto; 3 to 6 are stocks, commodities, forex, bonds. Older rows have none."""


class _InstrumentRow(msgspec.Struct):
    instId: str  # noqa: N815 - the exchange's spelling, here and below
    state: str = ""
    ctType: Text = None  # noqa: N815
    instCategory: Text = None  # noqa: N815
    listTime: Text = None  # noqa: N815
    expTime: Text = None  # noqa: N815
    tickSz: Text = None  # noqa: N815
    lotSz: Text = None  # noqa: N815
    minSz: Text = None  # noqa: N815
    ctVal: Text = None  # noqa: N815
    ctValCcy: Text = None  # noqa: N815
    settleCcy: Text = None  # noqa: N815
    lever: Text = None
    ruleType: Text = None  # noqa: N815


def instrument_of(row: object) -> Instrument:
    """Read a row of /public/instruments. Announced ones (preopen) have most fields empty. Raises `RowError`."""
    read = read_row(row, _InstrumentRow)
    return Instrument(
        symbol=symbol_of(read.instId),
        state=read.state,
        contract_type=text_of(read.ctType),
        category=text_of(read.instCategory),
        list_time=time_or_none(read.listTime, "listTime"),
        expiry_time=time_or_none(read.expTime, "expTime"),
        tick_size=text_of(read.tickSz),
        lot_size=text_of(read.lotSz),
        min_size=text_of(read.minSz),
        contract_value=text_of(read.ctVal),
        contract_value_currency=text_of(read.ctValCcy),
        settle_currency=text_of(read.settleCcy),
        max_leverage=text_of(read.lever),
        rule_type=text_of(read.ruleType),
        eligible=is_eligible(read.state, text_of(read.ctType), text_of(read.instCategory)),
        halted=read.state in HALTED_STATES,
    )


HALTED_STATES = {"suspend", "preopen", "test", "settling", "rebase"}
"""States in which nothing is traded; post_only still has candles."""


def is_eligible(state: str, contract_type: str, category: str) -> bool:
    """Return whether a swap can be in the universe: live, linear or inverse, crypto."""
    return state == "live" and contract_type in ("linear", "inverse") and category in CRYPTO_CATEGORIES


def definition_of(instrument: Instrument, known_time: datetime, receive_time: datetime) -> InstrumentDefinition:
    """Turn what the list says of a swap into a row. What is no positive number is left empty, as in announced ones."""
    return InstrumentDefinition(
        exchange=EXCHANGE,
        symbol=instrument.symbol,
        known_time=known_time,
        state=instrument.state[:_WORD],
        list_time=instrument.list_time,
        end_time=instrument.expiry_time,
        contract_type=instrument.contract_type[:_WORD],
        category=instrument.category[:_WORD],
        rule_type=instrument.rule_type[:_WORD],
        settle_currency=instrument.settle_currency[:_WORD],
        contract_value=_size(instrument.contract_value),
        contract_value_currency=instrument.contract_value_currency[:_WORD],
        tick_size=_size(instrument.tick_size),
        lot_size=_size(instrument.lot_size),
        min_size=_size(instrument.min_size),
        max_leverage=_size(instrument.max_leverage),
        receive_time=receive_time,
    )


_WORD = 40
"""Characters of a word of the exchange that are kept."""


def _size(text: str) -> float | None:
    number = decimal_of(text)
    return number if number is not None and POSITIVE.holds(number) else None


def listing_of(rows: Sequence[object], before: Collection[Symbol] = ()) -> Listing:
    """Read the list of instruments. before: names that could be in the universe when they were listed earlier.

    Of a name that is there twice one row is taken, and of names that are equal without case one name: the one that was
    taken before, else the one that can be in the universe, else is live, else is traded; among equals the older.
    """
    names: set[str] = set()
    read: list[tuple[Instrument, object]] = []
    refused: list[Refused] = []
    for row in rows:
        name = row.get("instId") if isinstance(row, dict) else None
        if isinstance(name, str) and not is_swap(name):
            continue
        try:
            if isinstance(name, str):
                names.add(_name_of(name))
            read.append((instrument_of(row), row))
        except RowError as error:
            refused.append(Refused(row, str(error)))
    found: dict[Symbol, Instrument] = {}
    for instrument, row in sorted(read, key=lambda one: _precedence(one[0], before)):
        if found.setdefault(instrument.symbol, instrument) != instrument:
            refused.append(Refused(row, f"instId: {shown(inst_id_of(instrument.symbol))} is listed twice, differently"))
    for symbol, kept in unique(found).items():
        reason = f"instId: {symbol} and {kept} differ in nothing but case: {kept} stays, being traded or older"
        refused.append(Refused(msgspec.to_builtins(found.pop(symbol)), reason))
    return Listing(found, frozenset(names), refused)


def _precedence(instrument: Instrument, before: Collection[Symbol]) -> tuple[bool, bool, bool, bool, datetime, Symbol]:
    """Return a key: the lower, the sooner an instrument is taken."""
    traded = instrument.state not in _UNTRADED
    return (
        not (traded and instrument.symbol in before),
        not instrument.eligible,
        instrument.state != "live",
        not traded,
        instrument.list_time or LAST_TIME,
        instrument.symbol,
    )


_UNTRADED = {"", "preopen", "test", ENDED_STATE}


def _name_of(inst_id: str) -> str:
    try:
        return symbol_of(inst_id)
    except RowError:
        return inst_id
