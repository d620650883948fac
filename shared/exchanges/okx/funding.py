"""What does a row of OKX's funding stream or list say: the predicted rate, and the last settlement? Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.row import FUNDING_HOURS, RATE, Source
from shared.exchanges.base import Page, Refused, RowError
from shared.exchanges.okx.names import EXCHANGE, is_swap, symbol_of
from shared.exchanges.okx.values import (
    CLOCK_TOLERANCE,
    Text,
    decimal_of,
    known_time_of,
    read_each,
    read_row,
    shown,
    time_if_any,
    time_of,
)
from shared.grid import DAY

IMPLAUSIBLE_RATE = 0.05
"""A funding rate beyond this is kept and flagged where the row does not say its own cap; OKX's are 0.4 % to 4 %."""

_FUNDING_AHEAD = 7 * DAY
"""How far ahead the next settlement may lie: periods are 1 to 8 hours, a contract that is about to be listed waits."""


class _FundingRow(msgspec.Struct):
    instId: str  # noqa: N815
    fundingTime: Text  # noqa: N815
    ts: Text
    fundingRate: Any = None  # noqa: N815
    nextFundingTime: Any = None  # noqa: N815
    prevFundingTime: Any = None  # noqa: N815
    settFundingRate: Any = None  # noqa: N815
    maxFundingRate: Any = None  # noqa: N815
    minFundingRate: Any = None  # noqa: N815


def predicted_of(
    row: object, *, source: Source, receive_time: datetime, exchange_now: datetime
) -> PredictedFundingRate:
    """Read what a funding row predicts. `fundingTime` is the upcoming settlement, `nextFundingTime` the one after it.

    Raises `RowError` where rate or time is missing, no number, or from the future.
    """
    read = read_row(row, _FundingRow)
    funding_time = time_of(read.fundingTime, "fundingTime")
    known_time = known_time_of(read.ts, exchange_now)
    if funding_time > known_time + _FUNDING_AHEAD:
        raise RowError(f"fundingTime: {funding_time.isoformat()} is too far ahead in {shown(row)}")
    rate = rate_of(read.fundingRate, "fundingRate", row)
    return PredictedFundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        known_time=known_time,
        funding_time=funding_time,
        funding_rate=rate,
        interval_hours=_interval(read, funding_time),
        source=source,
        receive_time=receive_time,
        flag=flag_of(rate, read),
    )


def funding_of(
    inst_id: str, row: object, *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Page[PredictedFundingRate | FundingRate]:
    """Read a row of the funding stream: what it predicts, and the last settlement where it has that.

    The period that the settlement ended is not in the row. A row of which a part cannot be read is refused as a whole.
    """
    if isinstance(row, dict) and row.get("instId", inst_id) != inst_id:
        return Page([], [Refused({"instId": inst_id, "row": row}, "a row of another instrument")])
    named = {"instId": inst_id, **row} if isinstance(row, dict) else row
    try:
        predicted = predicted_of(named, source=source, receive_time=receive_time, exchange_now=exchange_now)
        settled = settled_of(
            named, period_hours=None, source=source, receive_time=receive_time, exchange_now=exchange_now
        )
    except RowError as error:
        return Page([], [Refused({"instId": inst_id, "row": row}, str(error))])
    return Page([predicted] if settled is None else [predicted, settled])


def predictions_of(
    rows: Sequence[object], *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Page[PredictedFundingRate]:
    """Read the funding rows of all swaps; rows of X-Perps and dated futures are not ours. A name twice: the newest."""
    ours = [row for row in rows if not (isinstance(row, dict) and _is_other(row.get("instId")))]
    page = read_each(
        ours, lambda row: predicted_of(row, source=source, receive_time=receive_time, exchange_now=exchange_now)
    )
    newest: dict[str, PredictedFundingRate] = {}
    for rate in page.events:
        if rate.symbol not in newest or rate.known_time > newest[rate.symbol].known_time:
            newest[rate.symbol] = rate
    return Page(list(newest.values()), page.refused)


def _is_other(name: object) -> bool:
    """Return whether a name is one of an instrument that is not a swap."""
    return isinstance(name, str) and name != "" and not is_swap(name)


def settled_of(
    row: object, *, period_hours: int | None, source: Source, receive_time: datetime, exchange_now: datetime
) -> FundingRate | None:
    """Read the last finished settlement out of a funding row; None where the row does not have its time.

    `settFundingRate` belongs to `prevFundingTime`, in settState `settled` as in `processing`. `period_hours` is the
    length of the period that it ended, known from the messages before the roll. Raises `RowError`.
    """
    read = read_row(row, _FundingRow)
    previous = time_if_any(read.prevFundingTime)
    if previous is None or read.settFundingRate in (None, ""):
        return None
    known_time = known_time_of(read.ts, exchange_now)
    if previous > known_time + CLOCK_TOLERANCE:
        raise RowError(f"prevFundingTime: {previous.isoformat()} is later than its row in {shown(row)}")
    rate = rate_of(read.settFundingRate, "settFundingRate", row)
    return FundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(read.instId),
        funding_time=previous,
        funding_rate=rate,
        interval_hours=period_hours,
        known_time=known_time,
        source=source,
        receive_time=receive_time,
        flag=flag_of(rate, read),
    )


def _interval(read: _FundingRow, funding_time: datetime) -> int | None:
    """Length of the period that ends at fundingTime; the documented rule (next - this) is the fallback.

    Both fields come and go: one that is empty, "0" or no time is one that is not there.
    """
    if (previous := time_if_any(read.prevFundingTime)) is not None:
        return interval_hours(previous, funding_time)
    if (following := time_if_any(read.nextFundingTime)) is not None:
        return interval_hours(funding_time, following)
    return None


def interval_hours(begin: datetime, end: datetime) -> int | None:
    """Return the hours between two settlements, where that is a period OKX uses; else None."""
    hours, rest = divmod(end - begin, timedelta(hours=1))
    return hours if not rest and hours in FUNDING_HOURS else None


def rate_of(value: object, name: str, row: object) -> float:
    """Read a funding rate. Raises `RowError`."""
    if (rate := decimal_of(value)) is None:
        raise RowError(f"{name}: no rate in {shown(row)}")
    if not RATE.holds(rate):
        raise RowError(f"{name}: {rate} cannot be a funding rate")
    return rate


def flag_of(rate: float, read: _FundingRow | None = None) -> str | None:
    """Return what is suspicious about a rate: it is beyond its instrument's own cap, or where that is unknown, 5 %."""
    most = decimal_of(read.maxFundingRate) if read else None
    least = decimal_of(read.minFundingRate) if read else None
    if most is not None and least is not None and -1 < least < most < 1:
        slack = 1e-9  # the cap itself is a legitimate rate, spelled with other digits
        return None if least - slack <= rate <= most + slack else f"beyond its cap, {least:g} to {most:g}"
    return None if abs(rate) <= IMPLAUSIBLE_RATE else f"beyond {IMPLAUSIBLE_RATE:.0%}"
