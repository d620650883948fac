"""What was charged, by OKX's funding history? Pure."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import msgspec

from shared.datasets.funding import FundingRate
from shared.exchanges.base import Page, Refused, RowError
from shared.exchanges.okx.funding import flag_of, interval_hours, rate_of
from shared.exchanges.okx.names import EXCHANGE, inst_id_of, symbol_of
from shared.exchanges.okx.values import CLOCK_TOLERANCE, Text, read_row, shown, time_of


class _SettlementRow(msgspec.Struct):
    instId: str  # noqa: N815
    fundingTime: Text  # noqa: N815
    realizedRate: Any = None  # noqa: N815
    fundingRate: Any = None  # noqa: N815


def settlement_time_of(row: object) -> datetime:
    """Return the instant of a row of the funding history. Raises `RowError`."""
    return time_of(read_row(row, _SettlementRow).fundingTime, "fundingTime")


def settlements_of(
    symbol: str, rows: Sequence[object], *, known_time: datetime, receive_time: datetime
) -> Page[FundingRate]:
    """Read rows of the funding history of one instrument, in any order; return them newest first.

    `realizedRate` is what was charged. The period of a row is its distance to the settlement before it; for the oldest
    row, and for one whose predecessor was left out, it is unknown.
    """
    found: dict[datetime, FundingRate] = {}
    holes: list[datetime] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            settled = _settlement_of(symbol, row, known_time=known_time, receive_time=receive_time)
        except RowError as error:
            refused.append(Refused(row, str(error)))
            holes += [at for at in [_settled_at(row)] if at is not None]
            continue
        if found.setdefault(settled.funding_time, settled).funding_rate != settled.funding_rate:
            refused.append(Refused(row, f"fundingTime: {settled.funding_time.isoformat()} is there twice, differently"))
            holes.append(settled.funding_time)
    times = sorted({*found, *holes})
    unread = len(refused) > len(holes)  # a row without a time may lie between any two
    periods = {} if unread else {later: interval_hours(earlier, later) for earlier, later in pairwise(times)}
    newest_first = sorted(found, reverse=True)
    return Page([msgspec.structs.replace(found[at], interval_hours=periods.get(at)) for at in newest_first], refused)


def _settlement_of(symbol: str, row: object, *, known_time: datetime, receive_time: datetime) -> FundingRate:
    read = read_row(row, _SettlementRow)
    if read.instId != inst_id_of(symbol):
        raise RowError(f"instId: asked for {inst_id_of(symbol)}: {shown(row)}")
    funding_time = time_of(read.fundingTime, "fundingTime")
    if funding_time > known_time + CLOCK_TOLERANCE:
        raise RowError(f"fundingTime: {funding_time.isoformat()} is from the future: {shown(row)}")
    name, value = ("fundingRate", read.fundingRate)
    if read.realizedRate not in (None, ""):
        name, value = ("realizedRate", read.realizedRate)
    rate = rate_of(value, name, row)
    return FundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        funding_time=funding_time,
        funding_rate=rate,
        interval_hours=None,
        known_time=known_time,
        source="rest",
        receive_time=receive_time,
        flag=flag_of(rate),
    )


def _settled_at(row: object) -> datetime | None:
    try:
        return settlement_time_of(row)
    except RowError:
        return None
